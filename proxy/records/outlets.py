"""What a log's lines go out through: the standard output, a file, or syslog."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

CONNECT_S = 5.0
STDOUT = 1
#: Facility local0, severity informational (RFC 5424, 6.2.1).
PRIORITY = 16 * 8 + 6


class Outlet(Protocol):
    """What a line goes out through. `write` takes whole lines with their line feeds; it may raise `OSError`."""

    def write(self, line: bytes) -> None:
        """Write one line, waiting for the other side where it must."""

    def close(self) -> None:
        """Give it up; a `write` opens it anew."""


class Stream:
    """A descriptor that other processes may share, by default the standard output; lines up to 4096 bytes stay whole.

    A pipe or terminal is opened anew, so that not to wait is a matter of this process alone. A socket (systemd's
    journal) can't be, and a file must not: those who share its place in it would write over what is appended.
    """

    def __init__(self, descriptor: int = STDOUT) -> None:
        self._shared = descriptor
        self._own: int | None = None

    def write(self, line: bytes) -> None:
        """Write a line as a whole; where a reader stalls, wait for it."""
        if self._own is None:
            self._own = self._opened()
        poll = select.poll()
        poll.register(self._own, select.POLLOUT)
        while line:
            if poll.poll(1000):
                try:
                    line = line[os.write(self._own, line) :]
                except BlockingIOError:  # another process was faster
                    time.sleep(0.01)

    def close(self) -> None:
        """Close what was opened."""
        if self._own is not None:
            os.close(self._own)
        self._own = None

    def _opened(self) -> int:
        mode = os.fstat(self._shared).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with suppress(OSError):
                return os.open(f"/proc/self/fd/{self._shared}", flags)
        return os.dup(self._shared)


class File:
    """A file that is appended to, made for its owner and group; one that was moved away is made anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own: int | None = None

    def write(self, line: bytes) -> None:
        """Write a line as a whole; where a full disk takes a part of it, that is taken back."""
        if self._own is not None and self._moved():
            self.close()
        if self._own is None:
            self._own = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        done = 0
        try:
            while done < len(line):
                done += os.write(self._own, line[done:])
        except OSError:
            if done:
                _take_back(self._own, done)
            raise

    def close(self) -> None:
        """Close the file."""
        if self._own is not None:
            os.close(self._own)
        self._own = None

    def _moved(self) -> bool:
        assert self._own is not None
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        mine = os.fstat(self._own)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


def _take_back(file: int, size: int) -> None:
    """Cut off what was written last, unless another process has written behind it by now."""
    with suppress(OSError):
        end = os.lseek(file, 0, os.SEEK_CUR)
        if end == os.fstat(file).st_size:
            os.ftruncate(file, end - size)


class Syslog:
    """A syslog that speaks RFC 5424: `unix:/dev/log`, `udp://HOST:PORT` or `tcp://HOST:PORT` (RFC 6587, counted)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._own: socket.socket | None = None
        self._host = socket.gethostname() or "-"
        self._tcp = url.startswith("tcp:")

    def write(self, line: bytes) -> None:
        """Send a line as one message."""
        if self._own is None:
            self._own = self._connected()
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = f"<{PRIORITY}>1 {now} {self._host} lockgate {os.getpid()} - - "
        message = head.encode() + line.rstrip(b"\n")
        if self._tcp:
            message = b"%d %b" % (len(message), message)
        self._own.sendall(message)

    def close(self) -> None:
        """Close the socket."""
        if self._own is not None:
            self._own.close()
        self._own = None

    def _connected(self) -> socket.socket:
        parts = urlsplit(self._url)
        if self._tcp:
            return socket.create_connection((parts.hostname, parts.port or 514), CONNECT_S)
        if parts.scheme == "unix":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            address: Any = parts.path
        else:
            found = socket.getaddrinfo(parts.hostname, parts.port or 514, type=socket.SOCK_DGRAM)
            made, address = socket.socket(*found[0][:3]), found[0][4]
        made.settimeout(CONNECT_S)
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        return made
