"""A real PostgreSQL on loopback, from apt's package, which runs as the user `postgres` where the tests are root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from gateways import free_port

PATIENCE_S = 30.0
PASSWORD = "canary-of-postgresql"
#: Durable as an operator's, but small. `kill()` is a crash of the server, not of the machine.
SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_buffers = 16MB
max_connections = 60
log_min_messages = warning
"""


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest of those installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    return Path(elsewhere).resolve().parent if elsewhere else None


class Postgresql:
    """A server with a cluster of its own, from its making until `stop()`."""

    def __init__(self) -> None:
        bin = programs()
        assert bin is not None, "PostgreSQL is not installed"
        self._bin = bin
        # Not below pytest's folder, which is root's alone.
        self.folder = Path(tempfile.mkdtemp(prefix="lockgate-pg-"))
        self.port = free_port()
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        self._data = self.folder / "data"
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(password, "postgres")
        initial = ("-U", "lockgate", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        self._run("initdb", "-D", str(self._data), *initial)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS.format(port=self.port))
        self.pid = 0
        self._made = 0
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://lockgate:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Make an empty database and return its URL."""
        self._made += 1
        name = f"lockgate_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement outside of any transaction and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start it and wait until it takes connections, also after a crash."""
        log = self.folder / "log"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(log), "-w", "-t", "60", "start")
        self.pid = int((self._data / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """End it like a power cut of the server, and wait until its port is free."""
        backends = _children(self.pid)
        for pid in (self.pid, *backends):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while any(map(_lives, (self.pid, *backends))):
            assert time.monotonic() < deadline, "PostgreSQL outlived SIGKILL"
            time.sleep(0.01)
        # Where nobody reaps it, the dead server's id still exists, and the next one would take it for alive.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it and remove its files."""
        if _lives(self.pid):
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Not into pipes: the server keeps them, and they would never end.
        with (self.folder / "out").open("ab") as out:
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
        assert done.returncode == 0, (self.folder / "out").read_text(errors="replace")


@contextlib.contextmanager
def running() -> Iterator[Postgresql]:
    """A server for the block."""
    server = Postgresql()
    try:
        yield server
    finally:
        server.stop()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
