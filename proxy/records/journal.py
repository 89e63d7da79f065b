"""The journal: what happened to each exchange, written before anybody is told, so that no crash can lose it."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from proxy import forks
from proxy.exchange import Exchange
from proxy.records import entries
from proxy.records.index import Index
from proxy.records.rotation import Rotation
from proxy.records.segment import Segment, give_back
from proxy.settings import JournalSettings
from proxy.sockets import native

logger = logging.getLogger("lockgate.journal")

#: How long an end line may wait for another one to be written with, and between two tries where there is no room.
HOLD_S = 0.05
RETRY_S = 0.2
#: Lines that wait in memory for room in one file, of up to 4 kB each.
MOST_HELD = 10_000


class Journal:
    """One worker's own files of chained JSON lines in `directory`; make it after the fork.

    An exchange has a `start` line before its upstream is called, a `settle` line before the last of its answer is
    handed over, and an `end` line, all in one file; one that is refused earlier has an `end` line alone, with what
    `start` would say. Lines hold no prompts, answers, credentials or names of people. Written lines survive the death
    of the process; when they survive that of the machine is said by `settings.fsync`. An end line that only completes
    a settled exchange may wait in memory for 50 ms: a record can be made without it (`proxy.records.reading`).

    An exchange begins where there is room for all of its lines. Where there is none `start` raises `OSError`, or with
    `when_full = "continue"` goes on without; so does `settle`, where the room was not there after all; end lines wait
    in memory. `failures` counts what could not be written when it should have been, `lost` the lines that never will
    be, and `writable` says how the last try went. It tries again by itself.
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
        self._failures = self.lost = 0
        self._may_go_on = settings.when_full == "continue"
        self._fsync = settings.fsync
        self._each = settings.fsync == "each"
        self._sync_every_s = settings.fsync / 1000 if isinstance(settings.fsync, int) else None
        self._clock = clock
        self._process = forks.process
        new_lock = native("_thread", "allocate_lock")
        # `_lock` guards everything; `_syncing` keeps files open while they are put on the disk without it.
        self._lock, self._syncing, self._wake = new_lock(), new_lock(), new_lock()
        self._wake.acquire()
        self._resting = True
        self._closed = False
        self._failure: OSError | None = None
        give_back(directory)
        index = Index(directory, key, clock=clock)
        index.recover()
        self._files = Rotation(index, settings.max_file_bytes, clock())
        native("_thread", "start_new_thread")(self._tend, ())

    @property
    def path(self) -> Path:
        """The file that new exchanges go to."""
        return self._files.current.path

    @property
    def failures(self) -> int:
        """How often something was not written when it should have been."""
        return self._failures + self._files.failures

    @property
    def writable(self) -> bool:
        """Whether there was room at the last try."""
        return self._failure is None

    def start(self, exchange: Exchange) -> None:
        """Write who is about to have which target called; raises `OSError` where it must not be called."""
        line = entries.start(exchange)
        self._usable()
        with self._lock:
            segment = self._files.at(self._clock())
            try:
                if self._failure is not None:
                    raise OSError(*self._failure.args)
                seq = segment.write(line)
            except OSError as failure:
                return self._missed(failure)
            segment.begun += 1
            self._stir()
        exchange.stash[self] = [segment, seq, False]
        if self._each:
            self._sync_now(segment)

    def settle(self, exchange: Exchange) -> None:
        """Write what the answer cost; raises `OSError` where it must not be handed over: the end line will say it."""
        begun = exchange.stash.get(self)
        if begun is None:  # the end line will say everything
            return
        segment, seq, _ = begun
        line = entries.settle(exchange, seq, self._clock())
        self._usable()
        with self._lock:
            self._stir()
            try:
                segment.write_begun(line)
            except OSError as failure:
                return self._missed(failure)
        begun[2] = True
        if self._each:
            self._sync_now(segment)

    def end(self, exchange: Exchange) -> None:
        """Write how the exchange ended."""
        segment, seq, settled = exchange.stash.pop(self, (None, None, False))
        begun = segment is not None
        line = entries.end(exchange, seq, settled, self._clock())
        self._usable()
        with self._lock:
            self._stir()
            if begun:
                segment.begun -= 1
                waits = settled and not self._each and self._failure is None
            else:
                segment = self._files.at(self._clock())
                waits = self._failure is not None
            if waits:
                return self._hold(segment, line)
            try:
                segment.write_begun(line) if begun else segment.write(line)
            except OSError as failure:
                self._failed(failure)
                return self._hold(segment, line)
        if self._each:
            self._sync_now(segment)

    def close(self) -> None:
        """Give the files up: whatever is called later raises `OSError`."""
        with self._syncing, self._lock:
            if self._closed or self._process is not forks.process:
                return
            self._closed = True
            self._stir()
            for segment in self._files:
                self._finish(segment)

    def _usable(self) -> None:
        if self._process is not forks.process:
            raise RuntimeError("the journal was opened by another process: open it after the fork")
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))

    def _hold(self, segment: Segment, line: bytes) -> None:
        if len(segment.held) < MOST_HELD:
            segment.held.append(line)
        else:
            self.lost += 1

    def _failed(self, failure: OSError) -> None:
        self._failures += 1
        self._failure = failure
        self._stir()

    def _missed(self, failure: OSError) -> None:
        """Raise what kept a line from being written, unless exchanges may go on without."""
        self._failed(failure)
        if not self._may_go_on:
            raise failure

    def _stir(self) -> None:
        """Wake the thread that tends the files if it rests: once in a while, not once a line."""
        if self._resting:
            self._resting = False
            self._wake.release()

    def _tend(self) -> None:
        """In a thread of its own: write what was held, put it on the disk, close files that are over.

        Only this thread says what went wrong: under gevent, logging could switch while a lock is held.
        """
        rests, said, synced = True, True, time.monotonic()
        while True:
            if rests:
                self._wake.acquire()
            self._wake.acquire(True, HOLD_S if self.writable else RETRY_S)  # nobody releases it now: a sleep
            with self._syncing:
                with self._lock:
                    if self._closed:
                        return
                    self._write_held()
                    over = self._files.over()
                    unsafe = self._sync_every_s is not None and self._files.current.dirty
                    rests = self._resting = self.writable and not unsafe
                for segment in over:
                    self._finish(segment)
                if unsafe and time.monotonic() - synced >= (self._sync_every_s or 0):
                    for segment in self._files:
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
            for segment in self._files:
                if segment.held:
                    segment.write()
            self._files.current.reserve(1)
        except OSError as failure:
            self._failure = failure
        else:
            # Where room cannot be set aside, and nothing was held, the next line is the try.
            self._failure = None

    def _sync(self, segment: Segment) -> None:
        try:
            if segment.dirty:
                segment.sync()
        except OSError as failure:
            self._failures += 1
            logger.error("%s may not be on the disk: %s", segment.path, failure)

    def _sync_now(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as failure:
            with self._lock:
                self._missed(failure)

    def _finish(self, segment: Segment) -> None:
        if self._fsync != "never":
            self._sync(segment)
        segment.close()
