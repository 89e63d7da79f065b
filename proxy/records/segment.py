"""One file of one worker's journal: locked as long as its writer lives, chained, entered in the index."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from proxy.records import chain
from proxy.records.index import Index, put

logger = logging.getLogger("lockgate.journal")

#: Lines that are sealed and written in one go: of more, most would be sealed in vain where there is no room.
MOST_AT_ONCE = 256


class Segment:
    """A file that is appended to, made and entered in the `index` at `now` (seconds since 1970).

    The file is locked (`flock`) until it is closed, so an unlocked one is a dead worker's; closed, it is read-only.
    Its name begins with the time of its making. Not safe for several threads: the journal has a lock.

    `begun` counts the exchanges whose other lines will come, which all go to this file. `held` are lines that may wait.
    """

    __slots__ = ("_index", "_mac", "_torn", "begun", "descriptor", "dirty", "held", "path", "seq", "size_bytes")

    def __init__(self, index: Index, now: float) -> None:
        self._index = index
        index.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = index.directory / f"{made}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._mac = chain.seed(index.key, self.path.name)
        self._torn = False
        self.seq = self.size_bytes = self.begun = 0
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

        Raises `OSError` where there is no room; the file then ends as before, and what was held still is.
        """
        if self.descriptor < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))
        while len(self.held) > MOST_AT_ONCE:
            self._append(self.held[:MOST_AT_ONCE])
            del self.held[:MOST_AT_ONCE]
        self._append([*self.held, *more] if self.held else more)
        self.held.clear()
        return self.seq

    def _append(self, bodies: Sequence[bytes]) -> None:
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
            raise OSError(failure.errno, failure.strerror, str(self.path)) from failure
        self.seq, self._mac = seq, mac
        self.size_bytes += len(data)
        self.dirty = True

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        self.dirty = False
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Write what is held, enter the end in the index and unlock the file; never raises.

        What cannot be entered now is by whoever finds the file unlocked.
        """
        if self.descriptor < 0:
            return
        try:
            if self.held:
                self.write()
            said = {"file": self.path.name, "lines": self.seq, "bytes": self.size_bytes, "head": self._mac.decode()}
            self._index.append("close", said)
            os.fchmod(self.descriptor, stat.S_IRUSR)
        except OSError as failure:
            logger.error("%s could not be closed, %d lines lost: %s", self.path, len(self.held), failure.strerror)
        finally:
            os.close(self.descriptor)
            self.descriptor = -1


def _made(path: Path) -> int:
    """Make the file and lock it."""
    # It gets its name when it is locked: a reader that finds it unlocked would take it for a dead worker's.
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(draft, path)
    return descriptor
