"""The journal: what happened to each exchange, written before anybody is told, so that no crash can lose it."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from proxy.exchange import Exchange
from proxy.records import entries
from proxy.records.index import Index
from proxy.records.segment import Segment
from proxy.settings import JournalSettings
from proxy.sockets import native

logger = logging.getLogger("lockgate.journal")

DAY_S = 86_400
#: How long an end line may wait for another one to be written with, and between two tries where there is no room.
HOLD_S = 0.05
RETRY_S = 0.2
#: Lines that wait in memory for room in one file, of up to 4 kB each.
MOST_HELD = 10_000
#: How much longer a file for which no successor could be made goes on being used.
AGAIN_S, AGAIN_BYTES = 60, 1 << 20


class Journal:
    """One worker's own files of chained JSON lines in `directory`; make it after the fork.

    An exchange has a `start` line before its upstream is called, a `settle` line before the last of its answer is
    handed over, and an `end` line, all in one file; one that is refused earlier has an `end` line alone, with what
    `start` would say. Lines hold no prompts, answers, credentials or names of people. Written lines survive the death
    of the process; when they survive that of the machine is said by `settings.fsync`. An end line that only completes
    a settled exchange may wait in memory for 50 ms: a record can be made without it (`proxy.records.reading`).

    Where there is no room `start` raises `OSError`, or with `when_full = "continue"` goes on without; the lines of
    exchanges that are under way wait in memory. `failures` counts what could not be written when it should have been,
    `lost` the lines that never will be, and `writable` says how the last try went. It tries again by itself.
    """

    def __init__(
        self,
        directory: Path,
        key: bytes,
        settings: JournalSettings = JournalSettings(),  # noqa: B008 - frozen
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Close what dead workers left open, and open a file; raises `OSError` where that cannot be."""
        self.failures = self.lost = 0
        self._index = Index(directory, key, clock=clock)
        self._settings = settings
        self._each = settings.fsync == "each"
        self._sync_every_s = settings.fsync / 1000 if isinstance(settings.fsync, int) else None
        self._clock = clock
        self._pid = os.getpid()
        new_lock = native("_thread", "allocate_lock")
        # `_lock` guards everything; `_syncing` keeps files open while they are put on the disk without it.
        self._lock, self._syncing, self._wake = new_lock(), new_lock(), new_lock()
        self._wake.acquire()
        self._resting = True
        self._closed = False
        self._failure: OSError | None = None
        self._retired: list[Segment] = []
        self._index.recover()
        self._segment = self._opened(clock())
        native("_thread", "start_new_thread")(self._tend, ())

    @property
    def path(self) -> Path:
        """The file that new exchanges go to."""
        return self._segment.path

    @property
    def writable(self) -> bool:
        """Whether the last line that was to be written was."""
        return self._failure is None

    def start(self, exchange: Exchange) -> None:
        """Write who is about to have which target called; raises `OSError` where it must not be called."""
        line = entries.start(exchange)
        with self._lock:
            self._usable()
            segment = self._current()
            try:
                if self._failure is not None:
                    raise OSError(*self._failure.args)
                seq = segment.write(line)
            except OSError as failure:
                self._failed(failure)
                if self._settings.when_full == "refuse":
                    raise
                return
            segment.begun += 1
            self._stir()
        exchange.stash[self] = [segment, seq, False]
        if self._each:
            segment.sync()

    def settle(self, exchange: Exchange) -> None:
        """Write what the answer cost."""
        begun = exchange.stash.get(self)
        if begun is None:  # the end line will say everything
            return
        segment, seq, _ = begun
        self._put(segment, entries.settle(exchange, seq, self._clock()))
        begun[2] = True

    def end(self, exchange: Exchange) -> None:
        """Write how the exchange ended."""
        segment, seq, settled = exchange.stash.pop(self, (None, None, False))
        line = entries.end(exchange, seq, settled, self._clock())
        self._put(segment, line, last=True, may_wait=settled and not self._each)

    def close(self) -> None:
        """Give the files up: whatever is called later raises `OSError`."""
        with self._syncing, self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            self._stir()
            for segment in (*self._retired, self._segment):
                self._finish(segment)

    def _usable(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"the journal was opened by process {self._pid}: open it after the fork")
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))

    def _opened(self, now: float) -> Segment:
        segment = Segment(self._index, now)
        self._next_at = (now // DAY_S + 1) * DAY_S
        self._next_bytes = self._settings.max_file_bytes
        return segment

    def _current(self) -> Segment:
        """Return the file that new exchanges go to; begin another where it is full or of another day."""
        segment, now = self._segment, self._clock()
        if segment.size_bytes < self._next_bytes and now < self._next_at:
            return segment
        try:
            self._segment = self._opened(now)
        except OSError:
            # Out of descriptors, say. Whether there is room for a line is told by the line.
            self.failures += 1
            self._next_at, self._next_bytes = now + AGAIN_S, segment.size_bytes + AGAIN_BYTES
        else:
            self._retired.append(segment)
        return self._segment

    def _put(self, begun: Segment | None, line: bytes, *, last: bool = False, may_wait: bool = False) -> None:
        """Write a line; hold it back where it may wait, or must since there is no room."""
        with self._lock:
            self._usable()
            segment = begun or self._current()
            if last and begun is not None:
                segment.begun -= 1
            self._stir()
            if may_wait or self._failure is not None:
                return self._hold(segment, line)
            try:
                segment.write(line)
            except OSError as failure:
                self._failed(failure)
                return self._hold(segment, line)
        if self._each:
            segment.sync()

    def _hold(self, segment: Segment, line: bytes) -> None:
        if len(segment.held) < MOST_HELD:
            segment.held.append(line)
        else:
            self.lost += 1

    def _failed(self, failure: OSError) -> None:
        self.failures += 1
        self._failure = failure
        self._stir()

    def _stir(self) -> None:
        """Wake the thread that tends the files if it rests: once in a while, not once a line."""
        if self._resting:
            self._resting = False
            self._wake.release()

    def _tend(self) -> None:
        """In a thread of its own: write what was held, put it on the disk, close files that are over.

        Only this thread says what went wrong: under gevent, logging could switch while a lock is held.
        """
        said, synced = True, time.monotonic()
        while True:
            if self._resting:
                self._wake.acquire()
            self._wake.acquire(True, HOLD_S if self.writable else RETRY_S)  # nobody releases it now: a sleep
            with self._syncing:
                with self._lock:
                    if self._closed:
                        return
                    self._write_held()
                    over = [segment for segment in self._retired if not segment.begun and not segment.held]
                    self._retired = [segment for segment in self._retired if segment not in over]
                    unsafe = self._sync_every_s is not None and self._segment.dirty
                    self._resting = self.writable and not unsafe
                for segment in over:
                    self._finish(segment)
                if unsafe and time.monotonic() - synced >= (self._sync_every_s or 0):
                    for segment in (*self._retired, self._segment):
                        self._sync(segment)
                    synced = time.monotonic()
            if said is not self.writable:
                said = self.writable
                if self._failure is None:
                    logger.warning("The journal can be written again")
                else:
                    logger.error("The journal cannot be written: %s", self._failure)

    def _write_held(self) -> None:
        try:
            for segment in (*self._retired, self._segment):
                if segment.held:
                    segment.write()
        except OSError as failure:
            self._failure = failure
        else:
            # Also where nothing was held: the next line is the try.
            self._failure = None

    def _sync(self, segment: Segment) -> None:
        try:
            if segment.dirty:
                segment.sync()
        except OSError as failure:
            self.failures += 1
            logger.error("%s may not be on the disk: %s", segment.path, failure)

    def _finish(self, segment: Segment) -> None:
        if self._settings.fsync != "never":
            self._sync(segment)
        segment.close()
