"""The database in SQLite: one file in the state directory, opened by name and watched for being replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine

BUSY_TIMEOUT_S = 5.0


class Sqlite:
    """The file at `path`. `name` is what messages call it."""

    def __init__(self, url: URL, **options: Any) -> None:
        self.path = Path(url.database or "")
        self.name = str(self.path)
        self.generation = 0
        self.engine: Engine = create_engine("sqlite://", creator=self.connect, poolclass=QueuePool, **options)
        self._file: tuple[int, int] | None = None

    def connect(self) -> sqlite3.Connection:
        """Open one more connection, without a transaction and outside of the pool."""
        # mode=rw: a file that is gone is a failure, and not silently an empty new database.
        # isolation_level: transactions are begun by `begin`, not by the driver's guess. The pool hands a
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

    def begin(self, connection: Connection, write: bool) -> None:
        """Begin a transaction."""
        # A transaction that reads first and then wants to write is refused at once when another one wrote meanwhile,
        # whatever the busy timeout says: writers take the lock at the beginning.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    def look(self) -> None:
        """Notice that another file has taken the place of the one that is open."""
        found = os.stat(self.path)
        if self._file != (found.st_dev, found.st_ino):
            # Open connections would read the file that was moved away or deleted, for ever and without an error:
            # a key revoked in the new one would go on working.
            if self._file is not None:
                self.engine.dispose()
                self.generation += 1
            self._file = (found.st_dev, found.st_ino)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the directory and the file, and let one process at a time into the block.

        The kernel forgets the lock of a process that died.
        """
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _make(self.path)
            yield
        finally:
            os.close(descriptor)

    def prepare(self) -> None:
        """Set what the file keeps beside its tables, before the first of them is made."""
        with closing(self.connect()) as plain:
            plain.execute("PRAGMA journal_mode = WAL")  # outside of a transaction

    def explain(self, failure: BaseException) -> str:
        """Say what is wrong with the database and what to do."""
        cause = getattr(failure, "orig", None) or failure
        if isinstance(cause, OSError):
            refused = cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            remedy = ": make it and its directory writable for this user" if refused else ""
            return f"{cause.filename or self.path}: {cause.strerror}{remedy}"
        name = getattr(cause, "sqlite_errorname", "")
        for code, remedy in REMEDIES.items():
            if name.startswith(code):
                return f"{self.path} {remedy}"
        return f"{self.path}: the database cannot be used ({name or type(cause).__name__})"


def _make(path: Path) -> None:
    """Make the file, for its owner alone, if there is none; SQLite gives its own files beside it the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened to find out: closing it again would drop the locks that this process holds on it through SQLite.
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None


REMEDIES = {
    "SQLITE_BUSY": "is locked by another process: end the program that holds it (`fuser FILE` tells) and try again",
    "SQLITE_READONLY": "cannot be written: make the file and its directory writable for this user",
    "SQLITE_CANTOPEN": "cannot be opened: make the file and its directory readable and writable for this user",
    "SQLITE_NOTADB": "is not a database: move it away, or restore a backup",
    "SQLITE_CORRUPT": "is damaged: restore a backup",
    "SQLITE_FULL": "cannot be written: the disk is full",
}
