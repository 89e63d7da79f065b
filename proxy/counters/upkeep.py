"""What goes on beside the exchanges: slots that are held are renewed, and a store that is out of reach is tried."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from proxy.counters.buckets import Claim, Slots
from proxy.counters.embedded import Memory, Store, Unavailable

log = logging.getLogger("lockgate.counters")

#: How often a store that is out of reach is tried, by a thread of its own: no request waits for that.
PROBE_S = 0.25
#: How often held slots are renewed: three times in the default term.
RENEW_S = 3.0
#: So many failures with no exchange that was settled between them are an outage: one late answer is none.
FAILURES = 3


class Upkeep:
    """A worker's store and, while that is out of reach, the counts of its own instead, with slots that are held.

    A store on another machine is tried at once, so that no exchange makes its first connection or finds it gone.
    """

    def __init__(self, store: Store, divided: int, metrics: Any) -> None:
        self.store = store
        self.divided = divided
        self._local = Memory()
        self._lock = threading.Lock()
        self._held: dict[bytes, Claim] = {}
        self._down: Unavailable | None = None
        self._failing = 0  # in a row
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._gauge = metrics and metrics.gauge("lockgate_counters_down", "1 while the counters are out of reach.")
        self._failures = metrics and metrics.counter("lockgate_counters_failures", "Failures of the counters' store.")
        if store.wait_s:
            try:
                store.probe()
            except Unavailable as failure:
                self._lost(failure)

    @property
    def down(self) -> bool:
        """Whether the store is out of reach."""
        return self._down is not None

    def close(self) -> None:
        """Let go of the store."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.store.close()

    def _hold(self, claim: Claim) -> None:
        with self._lock:
            self._held[claim.id] = claim
        self._follow()

    def _failed(self, failure: Unavailable) -> Unavailable:
        """Note that an exchange could not use the store, and find out whether it is lost."""
        with self._lock:
            self._failing += 1
        if self._failing >= FAILURES or not failure.divide:
            self._lost(failure)
        elif self._failures:
            self._failures.inc()
        return failure

    def _lost(self, failure: Unavailable) -> None:
        """Note that the store is out of reach; of an outage the log tells once."""
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
                self._lost(failure)
            except Exception:
                log.exception("counters: renewing failed")

    def _back(self) -> None:
        with self._lock:
            self._down, self._failing = None, 0
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
