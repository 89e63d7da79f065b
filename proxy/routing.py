"""Which of a model's targets is asked, in which order, and when one is left alone for a while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import UpstreamError
from proxy.settings import Retry, Timeouts
from proxy.upstreams.upstream import Upstream


class Breaker:
    """Leaves a target alone that has failed too often in a row; passive, one per target and worker.

    After `failures` in a row it opens for `open_s` seconds; then a single exchange may probe the target, and its end
    closes the breaker or opens it again. `failures` 0 never opens.
    """

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._opened: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() >= self._opened + self._open_s else "open"

    def admits(self) -> bool:
        """Return whether an exchange may be sent; one that is must be followed by `note` or `leave`."""
        if self._opened is None:
            return True
        with self._lock:
            if self.state != "half-open" or self._probing:
                return self._opened is None
            self._probing = True
            return True

    def note(self, failed: bool) -> None:
        """Count how an exchange went."""
        if not failed and self._failed == 0 and self._opened is None:
            return
        with self._lock:
            self._probing = False
            if not failed:
                self._failed, self._opened = 0, None
                return
            self._failed += 1
            if self._limit and self._failed >= self._limit:
                self._opened = self._clock()

    def leave(self) -> None:
        """Note that an exchange ended without telling anything about the target, as when its client left."""
        if self._probing:
            with self._lock:
                self._probing = False

    def wait_s(self) -> float:
        """Return for how many more seconds the breaker is open."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self._open_s - self._clock())


@dataclass(slots=True, eq=False)
class Target:
    """One place where a model's exchanges can go.

    `model` is the upstream's name for it (`None`: as the client said); `weight` is `None` for a mere fallback.
    """

    label: str
    provider: Any
    upstream: Upstream
    model: str | None
    timeouts: Timeouts
    breaker: Breaker
    weight: float | None = None


class Route:
    """The way of one exchange through its model's targets; iterate it, and report each failure with `failed`.

    It yields the target to try and the seconds to wait before. Each target is tried once, in order, one drawn by weight
    first; then those again, with backoff, that were sent no byte or said 429 or 503.
    """

    def __init__(self, targets: Sequence[Target], retry: Retry, draw: Callable[[], float] = random.random) -> None:
        self._targets = targets
        self._retry = retry
        self._draw = draw
        self._again: list[tuple[Target, float]] = []

    def __iter__(self) -> Iterator[tuple[Target, float]]:
        left = self._retry.attempts
        for target in self._order():
            if left and target.breaker.admits():
                left -= 1
                yield target, 0.0
        for count in range(left):
            if not self._again:
                return
            target, asked_s = self._again.pop(0)
            # Full jitter: what fails together must not come back together.
            backoff_s = self._draw() * min(self._retry.backoff * 2**count, self._retry.longest_wait)
            if asked_s <= self._retry.longest_wait and target.breaker.admits():
                yield target, max(asked_s, backoff_s)

    def failed(self, target: Target, error: UpstreamError) -> None:
        """Note why a target did not answer; it may be tried again where that is safe."""
        if error.same_target:
            self._again.append((target, float(error.headers.get("retry-after", 0))))

    def _order(self) -> list[Target]:
        drawn = [target for target in self._targets if target.weight]
        if len(self._targets) == 1 or not drawn:
            return list(self._targets)
        point = self._draw() * sum(target.weight or 0.0 for target in drawn)
        first = drawn[-1]
        for target in drawn:
            point -= target.weight or 0.0
            if point < 0:
                first = target
                break
        return [first, *(target for target in self._targets if target is not first)]


def counts_against(error: UpstreamError) -> bool:
    """Return whether a failure speaks against the target itself: not a limit, a conflict or a wrong request.

    Nor does what another target could not do better, such as an answer that is too large: else one caller could have
    a target taken from all.
    """
    return error.status >= 500 and error.fallback


def all_open(targets: Sequence[Target]) -> UpstreamError:
    """Return what a client is told when every target is being left alone."""
    wait_s = min(target.breaker.wait_s() for target in targets)
    headers = {"retry-after": str(max(1, int(wait_s + 0.999))), "x-should-retry": "true"}
    return UpstreamError(
        503, "server_is_overloaded", "No upstream for this model answers at the moment.", headers=headers
    )
