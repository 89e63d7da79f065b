"""The database in PostgreSQL: shared by several hosts, migrated by `lockgate db upgrade` alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine

#: How long a connection may take to be made, and to be noticed as dead where nobody answers any more, in seconds.
CONNECT_TIMEOUT_S = 5
SILENCE_S = 10
#: Idle connections a process keeps, and how many more it may open for a moment. No request uses one.
POOL_SIZE = 2
OVERFLOW = 8
#: The advisory lock that writers hold, whatever else is locked in that database: "lockgate" in bytes.
WRITERS = int.from_bytes(b"lockgate")

# Set for each transaction and not for the connection, which may be one that a pooler shares. Who waits for a lock gives
# up as it does with SQLite, and a writer whose host has vanished lets go. The numbers are those of the database and the
# table: a restored backup has others.
BEGIN = """\
SELECT set_config('lock_timeout', '{lock}', true), set_config('statement_timeout', '{statement}', true),
    set_config('idle_in_transaction_session_timeout', '60s', true),
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()), to_regclass('versions')::oid::bigint"""


class Postgres:
    """The database that a URL names. `name` is what messages call it: without user and password."""

    def __init__(self, url: URL, **options: Any) -> None:
        host = url.host or url.query.get("host") or "the default socket"
        where = f"{host}:{url.port}" if url.port else str(host)
        self.name = f"PostgreSQL database {url.database or ''!r} at {where}"
        self.generation = 0
        self._begin = BEGIN.format(lock="5s", statement="60s")
        self._seen: tuple[int, int | None] | None = None
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": SILENCE_S,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": SILENCE_S * 1000,
            "application_name": "lockgate",
            # Poolers and servers that were replaced know nothing of statements prepared earlier.
            "prepare_threshold": None,
        }
        self.engine: Engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={name: value for name, value in arguments.items() if name not in url.query},
            pool_size=POOL_SIZE,
            max_overflow=OVERFLOW,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,  # after a restart of the server the first use would fail otherwise
            **options,
        )

    def begin(self, connection: Connection, write: bool) -> None:
        """Begin a transaction."""
        if not write:
            # A number of statements must see one state, as they do in SQLite.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        *_, database, table = connection.exec_driver_sql(self._begin).one()
        if self._seen != (database, table):
            self.generation += self._seen is not None
            self._seen = (database, table)
        if write:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")

    def look(self) -> None:
        """Nothing: a database that has taken the place of another is noticed by `begin`."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing: writers wait for each other in the database."""
        yield

    def prepare(self) -> None:
        """Let the migration take as long as it needs, and wait for one that is under way."""
        self._begin = BEGIN.format(lock="0", statement="0")

    def explain(self, failure: BaseException) -> str:
        """Say what is wrong with the database and what to do; never what was sent to it."""
        cause = getattr(failure, "orig", None) or failure
        state = getattr(cause, "sqlstate", None) or ""
        for code, remedy in REMEDIES.items():
            if state.startswith(code):
                return f"{self.name} {remedy}"
        if not state and type(cause).__name__ in ("OperationalError", "ConnectionTimeout", "TimeoutError"):
            return f"{self.name} cannot be reached: is it running, and are address, TLS mode, user and password right?"
        return f"{self.name}: cannot be used ({type(cause).__name__}{f', SQLSTATE {state}' if state else ''})"


#: By SQLSTATE, or by its first two characters, its class.
REMEDIES = {
    "28": "refuses the user or the password: check both in the URL, and pg_hba.conf",
    "3D000": "does not exist: make it with `createdb --owner USER NAME`",
    "42501": "denies a right: the user must own the database, or may create and use tables in its schema `public`",
    "53300": "has no connection left: raise its max_connections",
    "53100": "cannot be written: its disk is full",
    "55P03": "is locked by another process: end the one that holds it (pg_stat_activity tells) and try again",
    "57014": "took too long to answer",
    "57P": "is shutting down or starting: try again",
    "25006": "is read-only: name the primary server, or add target_session_attrs=read-write to the URL",
    "08": "cannot be reached: is it running?",
}
