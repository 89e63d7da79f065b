"""What a worker's plugins count with: the store, and what holds while that is out of reach."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from proxy.call import CLIENT_GONE
from proxy.counters.buckets import LARGEST, Bucket, Claim, Rate, Settled, Slots, State, Want, amount
from proxy.counters.embedded import Store, Unavailable
from proxy.counters.patience import Patience
from proxy.counters.upkeep import Upkeep
from proxy.counters.waiting import Waiting
from proxy.errors import ConfigError, Reject

if TYPE_CHECKING:
    from proxy.exchange import Exchange
    from proxy.settings import Settings

#: Upper bounds in seconds for what exchanges wait, fine where nothing should be.
WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.045, 0.05, 0.055, 0.06, 0.1, 0.25)

Answer = TypeVar("Answer")


class Counters(Upkeep):
    """Counts for the plugins of one worker; make it after the fork. Threads may share it.

    `take` wants amounts of several buckets, all or nothing, and `settle` says afterwards what was really spent.
    Slots are renewed until they are settled. `divided` is by how many workers, on all hosts, a limit is divided
    while the store is out of reach.
    """

    def __init__(self, store: Store, divided: int = 1, threads: int = 100, metrics: Any = None) -> None:
        super().__init__(store, divided, metrics)
        self._gathered = threading.local()
        # A waiter holds a thread, and the threads are for those who are served.
        self.waiting = Waiting(max(1, threads // 4), max(1, threads // 16))
        self._waited = metrics and metrics.histogram(
            "lockgate_counters_wait_seconds",
            "How long exchanges waited for the counters on another machine.",
            (),
            WAITS,
        )

    def take(self, wants: Sequence[Want], exchange: Exchange | None = None, *, divide: bool = False) -> Claim:
        """Take all that is wanted or nothing; `Claim.granted` tells, and `Claim.refused` what stands in the way.

        All that is taken for one `exchange`, and settled, waits no longer than `store.wait_s`. Negative
        amounts count as none. While the store is out of reach, `divide` goes on with this worker's share of
        each limit; without it, or where the store itself is damaged or full, `Reject` (503) is raised.
        """
        slots = absurd = False
        for bucket, wanted in wants:
            if type(bucket) is Slots:
                slots = True
            if not 0 <= wanted <= LARGEST:
                absurd = True
        if absurd:
            wants = [(bucket, amount(wanted)) for bucket, wanted in wants]
        claim = Claim(os.urandom(16) if slots else b"", wants, [])
        if self.store.wait_s:
            claim.patience = self._patience(exchange)
        down = self._down
        if down is None:
            try:
                self.store.take(claim)
            except Unavailable as failure:
                down = self._failed(failure)
        if down is not None:
            if not (divide and down.divide):
                raise Reject(
                    503,
                    "counters_unavailable",
                    "The gateway cannot count requests at the moment.",
                    headers={"retry-after": "5"},
                )
            claim.wants = [(share(bucket, self.divided), wanted) for bucket, wanted in claim.wants]
            claim.states, claim.places = [], []
            claim.local = True
            self._local.take(claim)
        if slots and claim.refused is None:
            self._hold(claim)
        return claim

    def take_in_line(
        self,
        wants: Sequence[Want],
        team: str,
        longest_s: float,
        exchange: Exchange | None = None,
        *,
        divide: bool = False,
        left: Callable[[], bool] = lambda: False,
    ) -> Claim:
        """Take as `take` does, waiting up to `longest_s` seconds for it, in a line that is fair among teams.

        A quarter of the worker's threads may wait, a sixteenth for one team; others are refused at once. `left` says
        whether the one who waits has gone, which raises `Reject`.
        """
        names = tuple(bucket.name for bucket, _ in wants)

        def refused(name: str, wait_s: float) -> Claim:
            """Make the claim of one who was not let to the buckets: it takes nothing, and tells what they hold."""
            free = [(bucket, 0) for bucket, _ in wants if type(bucket) is not Slots]
            claim = self.take(free, exchange, divide=divide)
            states = iter(claim.states)
            claim.states = [State(0, 0.0) if type(bucket) is Slots else next(states) for bucket, _ in wants]
            claim.wants, claim.refused, claim.wait_s = wants, names.index(name), wait_s
            return claim

        def check() -> None:
            if left():
                raise Reject(499, CLIENT_GONE, "The client has gone.")

        def attempt() -> Claim:
            patience = self._patience(exchange)
            before_s = patience.spent_s
            claim = self.take(wants, exchange, divide=divide)
            if claim.refused is not None and not claim.local:
                # It waits for room, not for the store: who asks a hundred times has not waited for a hundred answers.
                patience.spent_s = before_s
            return claim

        return self.waiting.take(names, team, longest_s, attempt, refused, check)

    def settle(self, claim: Claim, *spent: int) -> None:
        """Count what was spent, want by want, instead of what was taken, and release the slots; once, and never raises.

        Where the store is out of reach what was taken remains spent, and slots come back when their term is over.
        """
        with self._lock:
            if claim.settled or claim.refused is not None:
                return
            claim.settled = True
            if claim.id:
                self._held.pop(claim.id, None)
        settled = claim, [value if 0 <= value <= LARGEST else amount(value) for value in spent]
        if claim.local:
            self._local.settle((settled,))
        elif (gathered := getattr(self._gathered, "settled", None)) is not None:
            gathered.append(settled)
            return
        else:
            self._count((settled,))
        if self.waiting.count:
            self.waiting.stir()

    def together(self, step: Callable[[Exchange], Answer], exchange: Exchange) -> Answer:
        """Run the last step of an exchange; what it settles in this thread is counted at its end, all at once."""
        gathered: list[Settled] = []
        self._gathered.settled = gathered
        try:
            return step(exchange)
        finally:
            self._gathered.settled = None
            if gathered:
                self._count(gathered)
                if self.waiting.count:
                    self.waiting.stir()
            if self.store.wait_s and self._waited and (patience := exchange.stash.pop(self, None)) is not None:
                self._waited.observe(patience.spent_s)

    def _patience(self, exchange: Exchange | None) -> Patience:
        if exchange is None:
            return Patience(self.store.wait_s)
        found: Patience = exchange.stash.setdefault(self, Patience(self.store.wait_s))
        return found

    def _count(self, settled: Sequence[Settled]) -> None:
        if self._down is None:
            try:
                self.store.settle(settled)
                # Not before the last step: a store for which only that is too late would never be out of reach.
                self._failing = 0
            except Unavailable as failure:
                self._failed(failure)


def share(bucket: Bucket, parts: int) -> Bucket:
    """Return the bucket with one of so many parts of its limit, at least one."""
    if isinstance(bucket, Rate):
        return replace(bucket, limit=max(1, bucket.limit // parts), burst=max(1, bucket.burst // parts))
    return replace(bucket, limit=max(1, bucket.limit // parts))


def open_store(settings: Settings) -> Store:
    """Return the store that `[counters]` names; it is opened at first use."""
    if settings.counters.store == "lmdb":
        from proxy.counters.lmdb import Lmdb

        return Lmdb(settings.server.state, settings.counters.size_mib << 20)
    try:
        from proxy.counters.redis import Redis, connect
    except ModuleNotFoundError:
        raise ConfigError(["counters.store: Redis needs an extra: pip install 'lockgate[redis]'"]) from None
    return Redis(connect(settings.counters, settings.server.threads + 10), wait_s=settings.counters.wait_ms / 1000)
