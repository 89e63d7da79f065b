"""One exchange as the guardian sees it: its client, its upstream, and what is due when."""

from __future__ import annotations

import _socket
import contextlib
import logging
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.sockets import GuardedSocket, native

if TYPE_CHECKING:
    from proxy.guardian import Guardian

log = logging.getLogger("lockgate.guardian")

CLIENT_GONE = "client_gone"
NEVER = float("inf")


class Call:
    """One exchange as the guardian sees it; made by `Guardian.watch`, ended by `close`.

    `touched` is when the upstream last sent something and `sent` when the client was last sent something (monotonic
    seconds): idle deadlines are measured from the one, heartbeats from the other. The request thread brackets each wait
    for the upstream with `wait()` and `woke()`, gives the socket it will wait on to `attach`, and takes it back with
    `detach` before the connection may serve another exchange. `why` is `None`, or `client_gone`, or the name of the
    deadline that passed: `connect`, `first_byte`, `idle`, `total`.
    """

    __slots__ = (
        "_beat_every", "_guardian", "_limit", "_lock", "_scheduled", "_total_at", "_upstream", "_waiting",
        "client", "closed", "fd", "first_byte_s", "heartbeat", "phase", "sent", "touched", "why",
    )  # fmt: skip

    def __init__(self, guardian: Guardian, client: Any, lock: Any, beat_every: float) -> None:
        self.why: str | None = None
        self.client = client
        self.fd = -1
        self.closed = False
        self.heartbeat: Callable[[], None] | None = None
        self._guardian = guardian
        self._lock = lock
        self._upstream: GuardedSocket | None = None
        self._waiting = False
        self.phase = "total"
        self.first_byte_s = NEVER
        self._limit = NEVER
        self._total_at = NEVER
        self.sent = self.touched = time.monotonic()
        self._beat_every = beat_every
        self._scheduled = NEVER

    def arm(self, phase: str, seconds: float, total: float | None = None) -> None:
        """Begin a phase that may be silent for `seconds`; the first `total` is the budget of all phases together."""
        now = time.monotonic()
        self.touched = now
        self.phase, self._limit = phase, seconds
        if total is not None and self._total_at == NEVER:
            self._total_at = now + total
        self._guardian.schedule(self, self.next_check())

    def connected(self) -> None:
        """Note that the upstream is connected: from now on `first_byte_s` counts."""
        self.arm("first_byte", self.first_byte_s)

    def again(self) -> bool:
        """Forget a deadline that ended one attempt, so that another may be made; false where none may."""
        with self._lock:
            if self.why in (CLIENT_GONE, "total"):
                return False
            self.why = None
            return True

    def beat(self, heartbeat: Callable[[], None]) -> None:
        """Write heartbeats with `heartbeat` from now on, whenever the upstream is silent for long enough."""
        self.heartbeat = heartbeat
        self._guardian.schedule(self, self.next_check())

    def quiet(self) -> None:
        """Write no more heartbeats. When this returns, none is being written."""
        with self._lock:
            self.heartbeat = None

    def touch(self) -> None:
        """Note that the upstream has sent something: the idle deadline starts anew."""
        self.touched = time.monotonic()

    def wait(self) -> None:
        """Enter a wait for the upstream; heartbeats may be written until `woke`."""
        self._waiting = True

    def woke(self) -> None:
        """Leave the wait. When this returns, no heartbeat is being written."""
        with self._lock:
            self._waiting = False

    def attach(self, sock: GuardedSocket) -> None:
        """Remember the upstream's socket; one that comes too late is shut down at once."""
        with self._lock:
            self._upstream = sock
            if self.why is not None:
                sock.shut()

    def detach(self) -> None:
        """Forget the upstream's socket; after this no event of this exchange can touch it."""
        with self._lock:
            self._upstream = None

    def drop(self) -> None:
        """Shut the upstream's socket down, whose answer nobody will read."""
        with self._lock:
            if self._upstream is not None:
                self._upstream.shut()

    def close(self) -> None:
        """End the watch. Nothing is shut down and nothing is written for this exchange any more."""
        with self._lock:
            self.closed = True
            self._upstream = None
            self.heartbeat = None
        self._guardian.forget(self)

    def next_check(self) -> float:
        """Return when (monotonic seconds) the guardian must look at this call again."""
        due = min(self.touched + self._limit, self._total_at)
        if self.heartbeat is not None:
            due = min(due, self.sent + self._beat_every)
        return due

    def check(self, now: float) -> None:
        """Act on what is due; called by the guardian alone."""
        if now >= self._total_at:
            self.end("total")
        elif now >= self.touched + self._limit:
            self.end(self.phase)
        elif self.heartbeat is not None and now >= self.sent + self._beat_every:
            self._beat(now)

    def end(self, why: str) -> None:
        """Give the exchange up: whatever it waits for upstream returns at once."""
        with self._lock:
            if self.closed or self.why is not None:
                return
            self.why = why
            if self._upstream is not None:
                self._upstream.shut()
            if why == "total" and not self._waiting and self.client is not None:
                # Not in a wait for the upstream, and the client takes nothing: the write to it would last for ever.
                if not ready(self.client, select.POLLOUT):
                    with contextlib.suppress(OSError):
                        _socket.socket.shutdown(getattr(self.client, "_sock", self.client), _socket.SHUT_RDWR)

    def _beat(self, now: float) -> None:
        with self._lock:
            if (
                not self._waiting
                or self.heartbeat is None
                or self.why is not None
                or now < self.sent + self._beat_every
            ):
                return
            self.sent = now
            # A client that does not read would block the guardian: then there is no heartbeat.
            if not ready(self.client, select.POLLOUT):
                return
            try:
                self.heartbeat()
            except Exception as error:
                if not isinstance(error, OSError):
                    log.exception("a heartbeat failed; its exchange ends")
                self.why = CLIENT_GONE
                if self._upstream is not None:
                    self._upstream.shut()


def has_left(client: Any) -> bool:
    """Say whether the client behind a socket has gone; a half-close counts."""
    return client is not None and ready(client, select.POLLRDHUP)


def ready(sock: Any, events: int) -> bool:
    """Tell whether one of these `select.POLL…` events, or its end, has come to a socket; of a closed one it has."""
    poll = native("select", "poll")()
    try:
        poll.register(sock.fileno(), events)
    except (ValueError, OSError):
        return True
    found = poll.poll(0)
    return bool(found) and bool(found[0][1] & (events | select.POLLHUP | select.POLLERR))
