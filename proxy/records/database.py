"""The database: connections for one process, and its migration before there is any worker."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson
from sqlalchemy import URL, Connection, QueuePool, create_engine, event, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy.errors import ConfigError
from proxy.records.tables import HEAD

if TYPE_CHECKING:
    from proxy.settings import Settings

BUSY_TIMEOUT_S = 5.0


class Database:
    """The connections of one process to the database at `url`; make it after the fork.

    What goes wrong with the database itself, then or later, is one of `Database.failures`.
    """

    failures = (SQLAlchemyError, sqlite3.Error, OSError)

    def __init__(self, url: str | URL) -> None:
        self.path = Path(make_url(url).database or "")
        #: Counts the times that another file has taken the place of the one that was open.
        self.generation = 0
        self._file: tuple[int, int] | None = None
        self._pid = os.getpid()
        self._engine = create_engine(
            "sqlite://",
            creator=self.connect,
            poolclass=QueuePool,
            hide_parameters=True,  # the text of a failure goes to the log, and digests are parameters
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
        )
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database and changes nothing."""
        self._check()
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is alone in writing: waits up to 5 s for its turn, commits when the block ends."""
        self._check()
        with self._engine.connect() as connection:
            connection = connection.execution_options(lockgate_write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose(close=os.getpid() == self._pid)

    def connect(self) -> sqlite3.Connection:
        """Open one more connection, without a transaction and outside of the pool."""
        # mode=rw: a file that is gone is a failure, and not silently an empty new database.
        # isolation_level: transactions are begun by `_begin`, not by the driver's guess. The pool hands a
        # connection to one thread at a time.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"the database was opened by process {self._pid}: open it after the fork")
        found = os.stat(self.path)
        if self._file != (found.st_dev, found.st_ino):
            # Open connections would read the file that was moved away or deleted, for ever and without an error:
            # a key revoked in the new one would go on working.
            if self._file is not None:
                self._engine.dispose()
                self.generation += 1
            self._file = (found.st_dev, found.st_ino)


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then wants to write is refused at once when another one wrote meanwhile,
    # whatever the busy timeout says: writers take the lock at the beginning.
    write = connection.get_execution_options().get("lockgate_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def location(settings: Settings) -> URL:
    """Return where the database is that `settings` name."""
    return URL.create("sqlite", database=str(settings.server.state / "lockgate.db"))


def migrate(settings: Settings) -> None:
    """Bring the database to this version's tables; run by the master before it forks. Cheap when it is current.

    Raises `ConfigError` when the file cannot be used, or was migrated by a newer Lockgate.
    """
    state = settings.server.state
    with closing(Database(location(settings))) as database, explained(database):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(state):
            _make(database.path)
            with database.read() as connection:
                revision = _revision(connection)
            if revision == HEAD:
                return
            if revision is not None and revision > HEAD:
                raise ConfigError(
                    [
                        f"{database.path} was made by a newer Lockgate (its revision is {revision}, this one knows "
                        f"{HEAD}): install that version again, or restore a backup from before the upgrade"
                    ]
                )
            with closing(database.connect()) as plain:
                plain.execute("PRAGMA journal_mode = WAL")  # outside of a transaction; the file keeps the mode
            with database.write() as connection:
                _upgrade(connection)


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn what goes wrong with the database in the block into a `ConfigError` that names the file and the remedy."""
    try:
        yield
    except Database.failures as failure:
        raise ConfigError([_explain(database.path, failure)]) from failure


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time into the block; the kernel forgets the lock of a process that died."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """Make the file, for its owner alone, if there is none; SQLite gives its own files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened to find out: closing it again would drop the locks that this process holds on it through SQLite.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None


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


REMEDIES = {
    "SQLITE_BUSY": "is locked by another process: end the program that holds it (`fuser FILE` tells) and try again",
    "SQLITE_READONLY": "cannot be written: make the file and its directory writable for this user",
    "SQLITE_CANTOPEN": "cannot be opened: make the file and its directory readable and writable for this user",
    "SQLITE_NOTADB": "is not a database: move it away, or restore a backup",
    "SQLITE_CORRUPT": "is damaged: restore a backup",
    "SQLITE_FULL": "cannot be written: the disk is full",
}


def _explain(path: Path, failure: BaseException) -> str:
    """Say what is wrong with the database at `path` and what to do."""
    cause = getattr(failure, "orig", None) or failure
    if isinstance(cause, OSError):
        refused = cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        remedy = ": make it and its directory writable for this user" if refused else ""
        return f"{cause.filename or path}: {cause.strerror}{remedy}"
    name = getattr(cause, "sqlite_errorname", "")
    for code, remedy in REMEDIES.items():
        if name.startswith(code):
            return f"{path} {remedy}"
    return f"{path}: the database cannot be used ({name or type(cause).__name__})"
