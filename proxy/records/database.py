"""The database: connections for one process, and the way to this version's tables."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson
from sqlalchemy import URL, Connection, Engine, event, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy.errors import ConfigError
from proxy.records.postgres import Postgres
from proxy.records.sqlite import Sqlite
from proxy.records.tables import HEAD

if TYPE_CHECKING:
    from proxy.settings import Settings


class Store(Protocol):
    """What differs between SQLite and PostgreSQL."""

    name: str
    generation: int
    engine: Engine

    def begin(self, connection: Connection, write: bool) -> None:
        """Begin a transaction, alone in it to `write`."""

    def look(self) -> None:
        """Find out whether another database has taken this one's place."""

    def alone(self) -> AbstractContextManager[None]:
        """Let one process at a time migrate."""

    def prepare(self) -> None:
        """Do what comes before the first table."""

    def explain(self, failure: BaseException) -> str:
        """Say what is wrong and what to do."""


class Database:
    """The connections of one process to the database at `url`; make it after the fork.

    What goes wrong with the database itself, then or later, is one of `Database.failures`.
    """

    failures = (SQLAlchemyError, sqlite3.Error, OSError)

    def __init__(self, url: str | URL) -> None:
        url = make_url(url)
        self.store: Store = (Sqlite if url.get_backend_name() == "sqlite" else Postgres)(
            url,
            hide_parameters=True,  # the text of a failure goes to the log, and digests are parameters
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
        )
        self._pid = os.getpid()
        event.listen(self.store.engine, "begin", self._begin)

    @property
    def generation(self) -> int:
        """How often another database has taken the place of the one that was open."""
        return self.store.generation

    @property
    def migrates_itself(self) -> bool:
        """Whether a start brings it to this version's tables: not where several hosts share it."""
        return isinstance(self.store, Sqlite)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and changes nothing."""
        self._check()
        with self.store.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is alone in writing: waits up to 5 s for its turn, commits when the block ends."""
        self._check()
        with self.store.engine.connect() as connection:
            connection = connection.execution_options(lockgate_write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.store.engine.dispose(close=os.getpid() == self._pid)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"the database was opened by process {self._pid}: open it after the fork")
        self.store.look()

    def _begin(self, connection: Connection) -> None:
        self.store.begin(connection, bool(connection.get_execution_options().get("lockgate_write")))


def location(settings: Settings) -> URL:
    """Return where the database is that `settings` name; its `str` hides the password."""
    if settings.database.url is not None:
        return make_url(settings.database.url.reveal())
    return URL.create("sqlite", database=str(settings.server.state / "lockgate.db"))


def migrate(settings: Settings) -> None:
    """See to it that the database has this version's tables; run by the master before it forks.

    SQLite is migrated, PostgreSQL only looked at. Cheap when it is current. Raises `ConfigError` when it cannot be
    used, or was migrated by a newer Lockgate, or is PostgreSQL and not current.
    """
    with closing(Database(location(settings))) as database, explained(database):
        if database.migrates_itself:
            _bring_up(database)
            return
        found = revision(database)
        if found != HEAD:
            _refuse_newer(database, found)
            state = f"is at revision {found}" if found else "has no tables yet"
            raise ConfigError(
                [f"{database.store.name} {state}, this version needs {HEAD}: run `lockgate db upgrade` once"]
            )


def upgrade(settings: Settings) -> tuple[str | None, str]:
    """Bring the database to this version's tables, whichever it is; return its revision before and after."""
    with closing(Database(location(settings))) as database, explained(database):
        return _bring_up(database), HEAD


def revision(database: Database) -> str | None:
    """Return the revision of the database's tables, `None` where there are none; raises one of `failures`."""
    with database.read() as connection:
        return _revision(connection)


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn what goes wrong with the database in the block into a `ConfigError` that names it and the remedy."""
    try:
        yield
    except Database.failures as failure:
        raise ConfigError([database.store.explain(failure)]) from failure


def _bring_up(database: Database) -> str | None:
    with database.store.alone():
        found = revision(database)
        if found == HEAD:
            return found
        _refuse_newer(database, found)
        database.store.prepare()
        with database.write() as connection:
            if _revision(connection) != HEAD:  # unless another host did it while this one waited
                _upgrade(connection)
        return found


def _refuse_newer(database: Database, found: str | None) -> None:
    if found is not None and found > HEAD:
        raise ConfigError(
            [
                f"{database.store.name} was made by a newer Lockgate (its revision is {found}, this one knows "
                f"{HEAD}): install that version again, or restore a backup from before the upgrade"
            ]
        )


def _revision(connection: Connection) -> str | None:
    # Asked here, not by Alembic: importing that takes longer than everything else at start.
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic reads this through configparser, to which % is special.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
