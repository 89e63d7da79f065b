"""What a worker's plugins count with: the store, leases that are kept alive, and what holds while the store is down."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxy.counters.buckets import LARGEST, Bucket, Claim, Rate, Settled, Slots, State, Want, amount
from proxy.counters.embedded import Memory, Store, Unavailable
from proxy.counters.waiting import Waiting
from proxy.errors import ConfigError, Reject
from proxy.guardian import CLIENT_GONE

if TYPE_CHECKING:
    from proxy.settings import Settings

log = logging.getLogger("lockgate.counters")

#: How often a store that is out of reach is tried, by a thread of its own: no request waits for that.
PROBE_S = 0.25
#: How often held slots are renewed: three times in the default term.
RENEW_S = 3.0


class Counters:
    """Counts for the plugins of one worker; make it after the fork. Threads may share it.

    `take` wants amounts of several buckets, all or nothing, and `settle` says afterwards what was really spent.
    Slots are renewed until they are settled. `divided` is by how many workers, on all hosts, a limit is divided
    while the store is out of reach.
    """

    def __init__(self, store: Store, divided: int = 1, threads: int = 100, metrics: Any = None) -> None:
        self.store = store
        self.divided = divided
        self._local = Memory()
        self._lock = threading.Lock()
        self._held: dict[bytes, Claim] = {}
        self._gathered = threading.local()
        self._down: Unavailable | None = None
        # A waiter holds a thread, and the threads are for those who are served.
        self.waiting = Waiting(max(1, threads // 4), max(1, threads // 16))
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._gauge = metrics and metrics.gauge("lockgate_counters_down", "1 while the counters are out of reach.")
        self._failures = metrics and metrics.counter("lockgate_counters_failures", "Failures of the counters' store.")

    @property
    def down(self) -> bool:
        """Whether the store is out of reach."""
        return self._down is not None

    def take(self, wants: Sequence[Want], *, divide: bool = False) -> Claim:
        """Take all that is wanted or nothing; `Claim.granted` tells, and `Claim.refused` what stands in the way.

        Negative amounts count as none. While the store is out of reach, `divide` goes on with this worker's share of
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
            claim = self.take([(bucket, 0) for bucket, _ in wants if type(bucket) is not Slots], divide=divide)
            states = iter(claim.states)
            claim.states = [State(0, 0.0) if type(bucket) is Slots else next(states) for bucket, _ in wants]
            claim.wants, claim.refused, claim.wait_s = wants, names.index(name), wait_s
            return claim

        def check() -> None:
            if left():
                raise Reject(499, CLIENT_GONE, "The client has gone.")

        return self.waiting.take(names, team, longest_s, lambda: self.take(wants, divide=divide), refused, check)

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

    def together(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Run `step` and return what it does; what it settles in this thread is counted at its end, in one step."""
        gathered: list[Settled] = []
        self._gathered.settled = gathered
        try:
            return step(*arguments)
        finally:
            self._gathered.settled = None
            if gathered:
                self._count(gathered)
                if self.waiting.count:
                    self.waiting.stir()

    def close(self) -> None:
        """Let go of the store."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.store.close()

    def _count(self, settled: Sequence[Settled]) -> None:
        if self._down is None:
            try:
                self.store.settle(settled)
            except Unavailable as failure:
                self._failed(failure)

    def _hold(self, claim: Claim) -> None:
        with self._lock:
            self._held[claim.id] = claim
        self._follow()

    def _failed(self, failure: Unavailable) -> Unavailable:
        """Note a failure; of an outage the log tells once."""
        if self._failures:
            self._failures.inc()
        with self._lock:
            first, self._down = self._down is None, failure
        if first:
            shares = f"rate limits are divided by {self.divided}, hard budgets closed"
            log.error("counters: %s; until it is back %s", failure, shares if failure.divide else "all is refused")
            if self._gauge:
                self._gauge.set(1)
            self._wake.set()
            self._follow()
        return failure

    def _follow(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopped.is_set():
                    self._thread = threading.Thread(target=self._run, name="counters", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        """Renew what is held, and find out when a store that is down is back."""
        renewed = time.monotonic()
        while not self._stopped.is_set():
            self._wake.wait(PROBE_S if self.down else max(0.0, renewed + RENEW_S - time.monotonic()))
            self._wake.clear()
            try:
                if self.down:
                    if self._stopped.wait(PROBE_S):
                        return
                    self.store.probe()
                    self._back()
                elif time.monotonic() >= renewed + RENEW_S:
                    renewed = time.monotonic()
                    self._renew()
            except Unavailable as failure:
                self._failed(failure)
            except Exception:
                log.exception("counters: renewing failed")

    def _back(self) -> None:
        with self._lock:
            self._down = None
        log.warning("counters: they can be used again")
        if self._gauge:
            self._gauge.set(0)
        self._renew()

    def _renew(self) -> None:
        with self._lock:
            held = list(self._held.values())
        for local in (False, True):
            leases = [
                (bucket, claim.id)
                for claim in held
                if claim.local is local
                for bucket, _ in claim.wants
                if isinstance(bucket, Slots)
            ]
            if leases:
                store = self._local if local else self.store
                store.renew(leases)
                # One that was released meanwhile has just been taken again.
                for claim in held:
                    if claim.local is local and claim.id not in self._held:
                        store.settle([(claim, [wanted for _, wanted in claim.wants])])


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
    return Redis(connect(settings.counters, settings.server.threads + 10))
