"""A real Redis on loopback, from apt's package."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from gateways import free_port

PATIENCE_S = 20.0


def program() -> str | None:
    """Return where the server's program is."""
    return shutil.which("redis-server")


class Redis:
    """A server without persistence, from its making until `stop()`. `options` are settings of its file by name."""

    def __init__(self, **options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lockgate-redis-"))
        self.port = free_port()
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        said = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": str(self.folder), **self.options}
        arguments = [part for name, value in said.items() for part in (f"--{name.replace('_', '-')}", value)]
        self.process = subprocess.Popen(
            [program() or "redis-server", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _await(self.process, self.port)

    def client(self) -> redis.Redis:
        """Return a client of the test's own."""
        return redis.Redis(port=self.port, socket_timeout=PATIENCE_S, protocol=2)

    def freeze(self) -> None:
        """Let it answer nobody."""
        self.process.send_signal(signal.SIGSTOP)
        # Until the kernel has stopped it, it may answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; `start()` brings an empty one back to the same port."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """End it, frozen or not, and remove what it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the server answers, whatever it says: it may want a password."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"PING\r\n")
            if client.recv(64):
                return
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{process.args} did not start")
        time.sleep(0.02)


@contextlib.contextmanager
def running(**options: str) -> Iterator[Redis]:
    """Start a server for the block."""
    server = Redis(**options)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def sentinel(file: Path, port: int) -> Iterator[None]:
    """Run a Sentinel with this configuration for the block."""
    process = subprocess.Popen(
        [program() or "redis-server", str(file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await(process, port)
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_S)
