"""A real gateway in processes of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai
from wire import PATIENCE_S, Wire

REPOSITORY = Path(__file__).resolve().parent.parent

#: A start takes seconds of CPU, which many other processes may want as well.
START_S = 90.0
#: Below those that the system gives to whoever asks for any, and the file in which processes of tests reserve theirs.
PORTS = range(20000, 32000)
RESERVED = os.open(Path(tempfile.gettempdir()) / f"lockgate-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)

ECHO = """
chain = ["keys"]

[plugins.keys]
use = "api_keys"

[providers.echo]
use = "echo"

[models.echo]
targets = ["echo"]
"""

#: An upstream at `{url}` which is never left alone, whatever it does: the provider `up`, without models.
UP = """
chain = ["keys"]

[plugins.keys]
use = "api_keys"

[providers.up]
use = "openai"
base_url = "{url}"
timeouts = {{ connect = 5, first_byte = 60, idle = 60 }}
breaker = {{ failures = 0 }}
"""

#: The same as the model `mock`, for which it is asked once.
MOCK = (
    UP
    + """
[models.mock]
targets = ["up"]
retry = {{ attempts = 1 }}
"""
)


class Gateway:
    """gunicorn with the repository's `gunicorn.conf.py`, on a free port, from its making until `stop()`.

    `toml` is the configuration without `[server]`, which is made from `server`. `key` is an API key that is known from
    the start, `log` all that was written so far.
    """

    def __init__(
        self,
        folder: Path,
        toml: str = ECHO,
        *,
        worker: str = "threads",
        server: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "lockgate.toml"
        settings = {"bind": f"127.0.0.1:{self.port}", "state": "var", "worker": worker, "workers": 1, **(server or {})}
        # JSON's strings, numbers, booleans and flat lists are TOML's too.
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        self.config.write_text("\n".join([toml, "[server]", *lines, ""]))
        self.key = new_key(self.config)
        self._text: list[str] = []
        self._said = threading.Condition()
        self._workers: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", str(REPOSITORY / "gunicorn.conf.py")],
            cwd=folder,
            env={**_environment(), "LOCKGATE_CONFIG": str(self.config), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> str:
        """What the processes have written to their standard output and error."""
        with self._said:
            return "".join(self._text)

    def wait_log(self, pattern: str, timeout_s: float = PATIENCE_S) -> re.Match[str]:
        """Wait until the log matches a regular expression."""
        with self._said:
            found = self._said.wait_for(lambda: re.search(pattern, "".join(self._text)), timeout_s)
        assert found, f"the log never said {pattern!r}:\n{self.log}"
        return found

    def worker_pids(self) -> list[int]:
        """Return the worker processes of this moment."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            pids = [int(pid) for pid in children.split()]
            self._workers.update(pids)
            return pids
        return []

    def records(self) -> list[dict[str, Any]]:
        """Return the journal's lines so far; those that end an exchange with what its lines before have said.

        An end line may come a moment after its exchange has ended.
        """
        deadline = time.monotonic() + 2
        while True:
            files = sorted((self.folder / "var" / "journal").glob("2*.jsonl"))
            lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            kinds = {kind: {line["id"]: line for line in lines if line["kind"] == kind} for kind in ("settle", "end")}
            if kinds["settle"].keys() <= kinds["end"].keys() or time.monotonic() > deadline:
                starts = {line["id"]: line for line in lines if line["kind"] == "start"}
                before = {id: starts.get(id, {}) | kinds["settle"].get(id, {}) for id in kinds["end"]}
                return [before[line["id"]] | line if line["kind"] == "end" else line for line in lines]
            time.sleep(0.01)

    def client(self, **options: Any) -> openai.OpenAI:
        """Return the official client with the gateway's key, which does not try again; close it after use."""
        return openai.OpenAI(
            **{"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, "timeout": PATIENCE_S, **options}
        )

    def wire(self) -> Wire:
        """Open a connection of bare bytes."""
        return Wire(self.address, self.key)

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End the gateway, by force where it does not go in time; return its exit status."""
        self.worker_pids()
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            for pid in self.worker_pids() or self._workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        status = self._process.wait(PATIENCE_S)
        # The pipe ends when the last worker has gone.
        self._reader.join(PATIENCE_S)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._said:
                    self._text.append(line)
                    self._said.notify_all()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, EOFError), self.wire() as wire:
                if wire.get("/healthz").status == 200:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise AssertionError(f"the gateway did not start:\n{self.log}")


def free_port() -> int:
    """Return a port of the loopback on which nobody listens, and which no other process of tests is given.

    Seconds may pass until it is used: one that the system gives to anybody could be somebody else's by then.
    """
    any_of = random.SystemRandom()  # hypothesis begins `random` anew for each test
    for port in any_of.sample(PORTS, 200):
        with contextlib.suppress(OSError):
            fcntl.lockf(RESERVED, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.create_server(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


def new_key(config: Path, name: str = "test", **details: Any) -> str:
    """Make an API key in the database of a configuration."""
    from proxy.access.keys import create
    from proxy.access.pepper import agreed
    from proxy.config import assemble
    from proxy.records.database import Database, location, migrate

    settings, _ = assemble(config)
    migrate(settings)
    with contextlib.closing(Database(location(settings))) as database:
        pepper = agreed(settings, database)
        with database.write() as connection:
            return create(connection, pepper, name=name, **details)[1]


def _environment() -> dict[str, str]:
    """The environment without what would configure a gateway or send its calls elsewhere."""
    unwanted = re.compile(r"LOCKGATE_|OPENAI_|GUNICORN_|(HTTPS?|ALL|NO)_PROXY$", re.I)
    return {name: value for name, value in os.environ.items() if not unwanted.match(name)}
