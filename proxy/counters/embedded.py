"""The stores that count in this process's memory or in memory that it shares: the steps that both have in common."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from proxy.counters import arithmetic
from proxy.counters.buckets import Claim, Settled, Slots, Status, Window

#: How many records a sweep looks at, half a millisecond, and how many seconds or claims lie between two.
SWEEP, SWEEP_EVERY_S, SWEEP_EVERY = 500, 1.0, 1000


class Unavailable(Exception):
    """The store cannot be used; the text says why and what to do.

    `divide` says that a worker may go on with its share of the limits, because the store itself has not been lost.
    """

    def __init__(self, why: str, *, divide: bool = False) -> None:
        super().__init__(why)
        self.divide = divide


class Store(Protocol):
    """What every store does, in one step that is done whole or not at all. Each raises `Unavailable`.

    One on another machine may have to be waited for: `wait_s` is how long an exchange does that, 0 for any other.
    """

    @property
    def wait_s(self) -> float:
        """The longest wait, in seconds."""

    def take(self, claim: Claim) -> None:
        """Take what the claim wants; note in it what the buckets hold, or which refuses and for how long."""

    def settle(self, settled: Sequence[Settled]) -> None:
        """Count what was spent instead of what was taken, and release the slots."""

    def renew(self, leases: Sequence[tuple[Slots, bytes]]) -> None:
        """Let slots be held for another term; one that ran out is taken again, beyond the limit if need be."""

    def restore(self, entries: Sequence[tuple[Window, float, int]]) -> None:
        """Raise each window's count, of the time given, to at least the amount given."""

    def read(self, part: str = "") -> list[Status]:
        """Return the buckets that have `part` in their names."""

    def reset(self, names: Sequence[str]) -> int:
        """Forget buckets, by the names that `read` gives them; return how many there were."""

    def probe(self) -> None:
        """Find out whether the store can be used."""

    def close(self) -> None:
        """Let go of it."""


class Embedded:
    """A store on a map of bytes. `steady` is in seconds from a clock that nobody sets, `wall` since 1970."""

    wait_s = 0.0

    def __init__(self, steady: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._steady = steady
        self._wall = wall
        self._swept, self._claims = steady(), 0
        self._full = ""  # why nothing more can be taken

    def take(self, claim: Claim) -> None:
        """See `Store`."""
        if self._full:
            raise Unavailable(self._full)
        steady = self._steady()
        self._do(arithmetic.take, claim, int(steady * 1000), self._wall())
        self._claims += 1
        if steady - self._swept > SWEEP_EVERY_S or self._claims >= SWEEP_EVERY:
            self._swept, self._claims = steady, 0
            self.sweep(SWEEP)

    def settle(self, settled: Sequence[Settled]) -> None:
        """See `Store`."""
        self._do(arithmetic.settle, settled, int(self._steady() * 1000))

    def renew(self, leases: Sequence[tuple[Slots, bytes]]) -> None:
        """See `Store`."""
        self._do(arithmetic.renew, leases, self._now_ms())

    def restore(self, entries: Sequence[tuple[Window, float, int]]) -> None:
        """See `Store`."""
        self._do(_restore, entries)

    def read(self, part: str = "") -> list[Status]:
        """See `Store`."""
        now_ms = self._now_ms()
        found = [arithmetic.status(key, value, now_ms) for key, value in self._items()]
        return [status for status in found if status is not None and part in status.name]

    def reset(self, names: Sequence[str]) -> int:
        """See `Store`."""
        return int(self._do(_reset, names))

    def sweep(self, count: int | None = None) -> None:
        """Remove what tells nothing any more among the next `count` records, or among all."""
        self._do(self._sweep, count)

    def _sweep(self, records: Any, count: int | None) -> None:
        now_ms, wall = self._now_ms(), self._wall()
        for key, value in self._next(records, count):
            if arithmetic.is_over(key, value, now_ms, wall):
                records.delete(key)

    def _now_ms(self) -> int:
        return int(self._steady() * 1000)

    def _do(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Run a step in a transaction that is alone in writing; its first argument are the records."""
        raise NotImplementedError

    def _items(self) -> list[tuple[bytes, bytes]]:
        """Return all records."""
        raise NotImplementedError

    def _next(self, records: Any, count: int | None) -> list[tuple[bytes, bytes]]:
        """Return the records after those of the last call, from the beginning again after the end."""
        raise NotImplementedError


def _restore(records: arithmetic.Records, entries: Sequence[tuple[Window, float, int]]) -> None:
    for bucket, at, used in entries:
        arithmetic.restore(records, bucket, at, used)


def _reset(records: arithmetic.Records, names: Sequence[str]) -> int:
    keys = (kind + name.encode("utf-8", "surrogateescape") for name in names for kind in (b"r", b"w", b"s"))
    return sum(bool(records.delete(key)) for key in keys)


class _Map(dict[bytes, bytes]):
    put = dict.__setitem__

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None


class Memory(Embedded):
    """Counts for this process alone."""

    def __init__(self, steady: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        super().__init__(steady, wall)
        self._records = _Map()
        self._lock = threading.Lock()

    def probe(self) -> None:
        """See `Store`."""

    def close(self) -> None:
        """See `Store`."""

    def _do(self, step: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            return step(self._records, *arguments)

    def _items(self) -> list[tuple[bytes, bytes]]:
        with self._lock:
            return list(self._records.items())

    def _next(self, records: _Map, count: int | None) -> list[tuple[bytes, bytes]]:
        # All of them: it holds what one worker saw while the store was out of reach.
        return list(records.items())
