"""The files that hold the metrics: one for each worker that runs, taken over by the next when it has ended."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from proxy.sockets import native

log = logging.getLogger("lockgate.metrics")

#: The header: what the file is, how many bytes of lines there are, and which master made it.
HEADER = struct.Struct("8sqqq")
MAGIC = b"LGMETR1\n"
#: Values are doubles, which are written and read in one piece; the first ones are for what found no room.
VALUES_AT, VALUES, SPARE = 64, 32768, 64
#: Lines of JSON that say which values are whose: an object is a metric, an array one set of its labels.
LINES_AT, LINES = VALUES_AT + 8 * VALUES, 512 << 10
SIZE_BYTES = LINES_AT + LINES


class Slot:
    """The file that this worker counts in; make it after the fork.

    Slots are numbered and locked with `flock`: the number of files is that of the workers that ran at once, however
    many there have been. A worker that takes a slot over goes on with its counters, and begins its gauges anew. The
    first worker of a new master begins everything anew, as a restart does.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = native("_thread", "allocate_lock")()
        self._file = -1
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._map = self._take(directory)
        except OSError as failure:
            # Metrics are worth no request: on a full disk this worker counts for itself.
            log.warning("the metrics of this worker cannot be kept: %s: %s", directory, failure.strerror)
            self._map = mmap.mmap(-1, SIZE_BYTES)
        view = memoryview(self._map)
        self.values: memoryview[float] | array[float] = view[VALUES_AT:LINES_AT].cast("d")
        self._head = view[:VALUES_AT].cast("q")
        self._lines_used = self._head[1]
        self._values_used = SPARE
        self._metrics: dict[bytes, int] = {}
        self._rows: dict[tuple[int, tuple[str, ...]], int] = {}
        self._recall()

    def metric(self, definition: dict[str, Any]) -> int:
        """Return the number of a metric, which is entered where it is new."""
        line = orjson.dumps(definition)
        with self._lock:
            number = self._metrics.get(line)
            if number is None:
                number = len(self._metrics)
                if self._enter(line, 0):
                    self._metrics[line] = number
            return number

    def row(self, metric: int, labels: tuple[str, ...], width: int) -> int:
        """Return where the `width` values of one set of labels begin; 0 where there is no more room."""
        with self._lock:
            at = self._rows.get((metric, labels))
            if at is None:
                at = self._values_used
                if not self._enter(orjson.dumps([metric, at, width, labels]), width):
                    return 0
                self._rows[metric, labels] = at
            return at

    def add(self, changes: Iterable[tuple[int, float]]) -> None:
        """Add to values, by where they are, all at once."""
        with self._lock:
            values = self.values
            for at, amount in changes:
                values[at] += amount

    def set(self, at: int, value: float) -> None:
        """Set a value."""
        with self._lock:
            self.values[at] = value

    def close(self) -> None:
        """Leave the slot to the next worker; what is counted later is lost."""
        with self._lock:
            self.values = array("d", bytes(8 * VALUES))
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # the map has a descriptor of its own, which would keep it
                os.close(self._file)
                self._file = -1

    def _take(self, directory: Path) -> mmap.mmap:
        master = os.getppid()
        began = _began(master)
        with guarded(directory):
            if not any(is_live(path) for path in files(directory)):
                for path in files(directory):
                    if _master(path) != (master, began):
                        path.unlink()
            number = 0
            while True:
                path = directory / f"{number}.slot"
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    os.close(file)
                    number += 1
            try:
                # A hole in a mapped file kills the process that writes to it when the disk is full.
                os.posix_fallocate(file, 0, SIZE_BYTES)
                self._map = mmap.mmap(file, SIZE_BYTES)
            except OSError:
                path.unlink()
                os.close(file)
                raise
            self._file = file
            if HEADER.unpack_from(self._map)[0] != MAGIC:
                self._map[:] = HEADER.pack(MAGIC, 0, master, began).ljust(SIZE_BYTES, b"\0")
        return self._map

    def _recall(self) -> None:
        """Find again what the worker before has entered; its gauges say nothing any more."""
        gauges = set()
        for line in bytes(self._map[LINES_AT : LINES_AT + self._lines_used]).splitlines():
            entry = orjson.loads(line)
            if isinstance(entry, dict):
                if entry["kind"] == "gauge":
                    gauges.add(len(self._metrics))
                self._metrics[line] = len(self._metrics)
            else:
                metric, at, width, labels = entry
                self._rows[metric, tuple(labels)] = at
                self._values_used = at + width
                if metric in gauges:
                    self.values[at : at + width] = array("d", bytes(8 * width))

    def _enter(self, line: bytes, width: int) -> bool:
        """Append a line, and `width` values that it speaks of; false where there is no room for both."""
        used = self._lines_used + len(line) + 1
        if used > LINES or self._values_used + width > VALUES:
            log.warning("there is no room for more metrics; what is new is not counted")
            return False
        at = LINES_AT + self._lines_used
        self._map[at : at + len(line) + 1] = line + b"\n"
        self._lines_used, self._values_used = used, self._values_used + width
        # Last and in one piece: a worker that dies before this has entered nothing.
        self._head[1] = used
        return True


def files(directory: Path) -> Iterator[Path]:
    """Yield the slots' files."""
    yield from directory.glob("*.slot")


def is_live(path: Path) -> bool:
    """Say whether a worker has the slot; ask only within `guarded`, for asking holds the lock for a moment."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Let nobody else take a slot, or ask for one, in `directory`."""
    guard = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _master(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        return None
    _, _, master, began = HEADER.unpack(header)
    return master, began


def _began(process: int) -> int:
    """Return when a process started, in clock ticks since the machine did: process ids come again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[19])
