"""The counters of one machine, in a file that all workers map into their memory: no server, and microseconds."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from proxy import forks
from proxy.counters.embedded import Embedded, Unavailable
from proxy.counters.mounts import remote

FILE = "counters.lmdb"
BOOT = b"!boot"
#: How long a failure is remembered before the file is opened anew, and how often it is looked whether it is the same.
AGAIN_S, LOOK_S = 1.0, 1.0
#: Beyond what it may hold the file has room for what a transaction writes anew before it frees the old: without any,
#: not even a removal succeeds.
RESERVE_BYTES = 4 << 20
REPAIR = "stop Lockgate and run `lockgate counters repair`"


class Lmdb(Embedded):
    """The file in the directory `state`; `size_bytes` is all that it may hold, and is set aside on the disk at once.

    It is opened at first use, after the fork, once per process. What is written survives the death of any process,
    at any moment, but not a loss of power. A transaction holds a lock that the kernel takes from a dead process.
    """

    def __init__(
        self,
        state: Path,
        size_bytes: int = 64 << 20,
        *,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(steady, wall)
        self.path = state / FILE
        self._size_bytes = size_bytes
        self._text_full = f"{self.path} is full: raise counters.size_mib and restart"
        self._map_bytes = size_bytes + max(RESERVE_BYTES, size_bytes // 4)
        self._lock = threading.Lock()
        self._env: Any = None
        self._file: tuple[int, int] | None = None
        self._found = False
        self._process = forks.process
        self._look_at = 0.0
        self._failed: Unavailable | None = None
        self._cursor = b""

    def probe(self) -> None:
        """Walk through all that there is, drop what is over, and see whether something new has room."""
        self.sweep()
        if self._full:
            raise Unavailable(self._full)

    def sweep(self, count: int | None = None) -> None:
        """Remove what is over, and see how full the file is."""
        super().sweep(count)
        found = self._opened().stat()
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        self._full = self._text_full if pages * found["psize"] > self._size_bytes else ""

    def close(self) -> None:
        """See `Store`."""
        with self._lock:
            if self._env is not None and forks.process is self._process:
                self._env.close()
            self._env = None

    def _do(self, step: Callable[..., Any], *arguments: Any) -> Any:
        fresh = time.monotonic() < self._look_at and self._process is forks.process
        env = fresh and self._env or self._opened()
        try:
            with env.begin(write=True) as records:
                return step(records, *arguments)
        except lmdb.Error as failure:
            raise self._failure(failure) from failure

    def _items(self) -> list[tuple[bytes, bytes]]:
        env = self._opened()
        try:
            with env.begin() as records:
                return [(bytes(key), bytes(value)) for key, value in records.cursor()]
        except lmdb.Error as failure:
            raise self._failure(failure) from failure

    def _next(self, records: Any, count: int | None) -> list[tuple[bytes, bytes]]:
        cursor = records.cursor()
        if count is None or not cursor.set_range(self._cursor):
            self._cursor = b""
            if not cursor.first():
                return []
        found: list[tuple[bytes, bytes]] = []
        for key, value in cursor.iternext():
            if count is not None and len(found) == count:
                self._cursor = key
                break
            found.append((key, value))
        else:
            self._cursor = b""
        return found

    def _opened(self) -> Any:
        now = time.monotonic()
        with self._lock:
            if self._process is not forks.process:
                raise RuntimeError("the counters were opened by another process: open them after the fork")
            if now < self._look_at:
                if self._failed is not None:
                    raise self._failed
                if self._env is not None:
                    return self._env
            self._look_at = now + LOOK_S
            try:
                self._open()
                self._failed = None
            except (lmdb.Error, OSError) as failure:
                self._failed = self._explained(failure)
                self._look_at = now + AGAIN_S
                raise self._failed from failure
            return self._env

    def _open(self) -> None:
        """Open the file, or another one that has taken its place."""
        identity = _identity(self.path)
        if self._env is not None:
            if self._file == identity:
                return
            # Not closed: another thread may be waiting in it. It goes with the last of them.
            self._env = None
        if identity is None and self._found:
            # A new one would hand all budgets out again.
            raise OSError(None, f"is gone: {REPAIR}")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = remote(self.path)
        if kind is not None:
            raise OSError(None, f"is on a network file system ({kind}): server.state must be on a local disk")
        with _alone(self.path) as descriptor:
            self._found = True
            before = os.fstat(descriptor).st_size
            # Nothing is forced to the disk: counts outlive processes without that, a loss of power ends them anyway.
            # With writemap a commit needs no system call.
            env = lmdb.open(
                str(self.path),
                subdir=False,
                map_size=self._map_bytes,
                sync=False,
                metasync=False,
                writemap=True,
                mode=0o600,
                max_readers=512,
                readahead=False,
            )
            if before < self._map_bytes:
                # Writing to a mapped page for which the disk has no room ends the process (SIGBUS).
                try:
                    os.posix_fallocate(descriptor, 0, self._map_bytes)
                except OSError:
                    env.close()
                    os.ftruncate(descriptor, before)
                    raise
        try:
            env.reader_check()
            _rebooted(env)
        except BaseException:
            env.close()
            raise
        self._env, self._file = env, _identity(self.path)

    def _failure(self, failure: lmdb.Error) -> Unavailable:
        explained = self._explained(failure)
        if not isinstance(failure, lmdb.MapFullError):
            # The next use opens it anew: what is damaged may have been repaired by then.
            with self._lock:
                self._failed, self._look_at = explained, time.monotonic() + AGAIN_S
                self._file = None
        return explained

    def _explained(self, failure: Exception) -> Unavailable:
        if isinstance(failure, lmdb.MapFullError):
            return Unavailable(self._text_full)
        if isinstance(failure, OSError):
            return Unavailable(f"{self.path}: {failure.strerror or failure}")
        return Unavailable(f"{self.path} is damaged or cannot be opened ({type(failure).__name__}): {REPAIR}")


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Make the file, for its owner alone, and let one process at a time open it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _rebooted(env: Any) -> None:
    """Free all slots if the machine was started anew: who held them is gone, and so is the clock they ran by."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return
    with env.begin(write=True) as records:
        if records.get(BOOT) == boot:
            return
        records.put(BOOT, boot)
        cursor = records.cursor()
        while cursor.set_range(b"s") and cursor.key()[:1] == b"s":
            cursor.delete()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
