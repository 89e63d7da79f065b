"""One file of one worker's journal: locked as long as its writer lives, chained, entered in the index."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import secrets
import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from proxy.records import chain
from proxy.records.index import Index, put
from proxy.records.lines import WHOLE
from proxy.records.reading import alive, files

logger = logging.getLogger("lockgate.journal")

#: Lines that are sealed and written in one go: of more, most would be sealed in vain where there is no room.
MOST_AT_ONCE = 256
#: Room for all lines of one exchange, and how much more is set aside in one go, so that it is done once in hundreds.
EACH_BYTES, STEP_BYTES = 3 * WHOLE, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_NOT_KNOWN = (errno.EOPNOTSUPP, errno.ENOSYS)


class Segment:
    """A file that is appended to, made and entered in the `index` at `now` (seconds since 1970).

    The file is locked (`flock`) until it is closed, so an unlocked one is a dead worker's; closed, it is read-only.
    Its name begins with the time of its making. Not safe for several threads: the journal has a lock.

    `begun` counts the exchanges whose other lines will come, which all go to this file: room is set aside for them
    behind its end, where the file system can do that. `held` are lines that may wait.
    """

    __slots__ = (
        "_index",
        "_mac",
        "_room",
        "_torn",
        "begun",
        "descriptor",
        "dirty",
        "held",
        "path",
        "seq",
        "size_bytes",
    )

    def __init__(self, index: Index, now: float) -> None:
        self._index = index
        index.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = index.directory / f"{made}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._mac = chain.seed(index.key, self.path.name)
        self._torn = False
        self.seq = self.size_bytes = self.begun = 0
        self._room = 0  # the offset up to which the disk's blocks are this file's
        self.dirty = False
        self.held: list[bytes] = []
        self.descriptor = _made(self.path)
        try:
            # Before its first line: a file that holds one and is not in the index was put there by somebody else.
            index.append("open", {"file": self.path.name})
        except OSError:
            self.path.unlink()
            os.close(self.descriptor)
            raise

    def write(self, *more: bytes) -> int:
        """Append the held lines and then these (JSON objects with a line feed); return the number of the last.

        Raises `OSError` where there is no room beside that of exchanges that have begun; the file then ends as before,
        and what was held still is.
        """
        while len(self.held) > MOST_AT_ONCE:
            self.reserve(MOST_AT_ONCE)
            self._append(self.held[:MOST_AT_ONCE])
            del self.held[:MOST_AT_ONCE]
        self.reserve(len(self.held) + len(more))
        self._append([*self.held, *more] if self.held else more)
        self.held.clear()
        return self.seq

    def write_begun(self, line: bytes) -> None:
        """Append a line of an exchange that has begun, for which there is room; raises `OSError` where that is not so.

        What is held stays so.
        """
        self._append((line,))

    def reserve(self, more: int) -> None:
        """Have room for the lines of so many exchanges beside those that have begun; raises `OSError` without any."""
        wanted = self.size_bytes + (self.begun + more) * EACH_BYTES
        if wanted <= self._room:
            return
        try:
            _set_aside(self.descriptor, self._room, wanted + STEP_BYTES - self._room)
        except OSError as failure:
            if failure.errno not in _NOT_KNOWN:
                raise OSError(failure.errno, failure.strerror, str(self.path)) from None
            self._room = sys.maxsize  # whether there is room is told by the write
        else:
            self._room = wanted + STEP_BYTES

    def _append(self, bodies: Sequence[bytes]) -> None:
        if self.descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))
        seq, mac, lines = self.seq, self._mac, []
        for body in bodies:
            seq += 1
            line, mac = chain.sealed(self._index.key, mac, seq, body)
            lines.append(line)
        data = b"".join(lines)
        try:
            if self._torn:
                os.ftruncate(self.descriptor, self.size_bytes)
            self._torn = True
            put(self.descriptor, data, self.size_bytes)
            self._torn = False
        except OSError as failure:
            self._room = self.size_bytes  # what is behind the end goes with the half line
            raise OSError(failure.errno, failure.strerror, str(self.path)) from failure
        self.seq, self._mac = seq, mac
        self.size_bytes += len(data)
        self.dirty = True

    def sync(self) -> None:
        """Wait until what was written is on the disk; a file that was closed meanwhile is as it should be."""
        self.dirty = False
        if self.descriptor >= 0:
            os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Write what is held, give back what was set aside, enter the end in the index and unlock; never raises.

        What cannot be entered now is by whoever finds the file unlocked.
        """
        if self.descriptor < 0:
            return
        try:
            while self.held:  # also into the room of those that have begun: nobody will write their lines
                self._append(self.held[:MOST_AT_ONCE])
                del self.held[:MOST_AT_ONCE]
            os.ftruncate(self.descriptor, self.size_bytes)
            said = {"file": self.path.name, "lines": self.seq, "bytes": self.size_bytes, "head": self._mac.decode()}
            self._index.append("close", said)
            os.fchmod(self.descriptor, stat.S_IRUSR)
        except OSError as failure:
            logger.error("%s could not be closed, %d lines lost: %s", self.path, len(self.held), failure.strerror)
        finally:
            os.close(self.descriptor)
            self.descriptor = -1


def give_back(directory: Path) -> None:
    """Free what dead writers had set aside behind the ends of their files in `directory`."""
    for path in files(directory):
        with contextlib.suppress(OSError):  # of another user, or removed by retention
            found = path.stat()
            if found.st_mode & stat.S_IWUSR and not alive(path):
                os.truncate(path, found.st_size)


def _set_aside(descriptor: int, offset: int, size_bytes: int) -> None:
    """Have blocks of the disk kept for a file, whose end stays where it is: fallocate(2); raises `OSError`."""
    while _libc.fallocate(descriptor, _KEEP_SIZE, offset, size_bytes):
        number = ctypes.get_errno()
        if number != errno.EINTR:  # unlike `os`, ctypes does not try again
            raise OSError(number, os.strerror(number))


def _made(path: Path) -> int:
    """Make the file and lock it."""
    # It gets its name when it is locked: a reader that finds it unlocked would take it for a dead worker's.
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(draft, path)
    return descriptor
