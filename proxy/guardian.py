"""The guardian: one native thread per worker that knows who has left and what is late.

WSGI tells a waiting application neither that its client has gone nor that an upstream is silent. The guardian watches
the client's socket and a heap of deadlines, and answers both by shutting the upstream's socket down: the blocked
read returns at once, and `Call.why` says what happened. It also writes the heartbeats of a silent stream.
"""

from __future__ import annotations

import _socket
import contextlib
import heapq
import itertools
import logging
import os
import select
import time
from collections.abc import Callable
from typing import Any

from proxy.sockets import GuardedSocket, native

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
                if not _ready(self.client, select.POLLOUT):
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
            if not _ready(self.client, select.POLLOUT):
                return
            try:
                self.heartbeat()
            except Exception as error:
                if not isinstance(error, OSError):
                    log.exception("a heartbeat failed; its exchange ends")
                self.why = CLIENT_GONE
                if self._upstream is not None:
                    self._upstream.shut()


class _Client:
    """A client's connection, known for as long as it is open: `call` is its exchange of the moment."""

    __slots__ = ("call", "gone", "socket")

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.call: Call | None = None
        self.gone = False


class Guardian:
    """Watches the calls of one worker. Make it after the fork; `stop` ends its thread."""

    def __init__(self, heartbeat_s: float = 15.0) -> None:
        self.heartbeat_s = heartbeat_s
        self._new_lock = native("_thread", "allocate_lock")
        self._lock = self._new_lock()
        self._epoll = native("select", "epoll")()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._heap: list[tuple[float, int, Call]] = []
        self._count = itertools.count()
        self._over = 0
        self._asleep_until = NEVER
        self._stopped = False
        self._done = self._new_lock()
        self._done.acquire()
        native("_thread", "start_new_thread")(self._run, ())

    def watch(self, client: Any) -> Call:
        """Watch the client behind `client`, a socket (or `None`: nobody to lose), until the call is closed."""
        call = Call(self, client, self._new_lock(), self.heartbeat_s)
        if client is not None:
            with self._lock:
                call.fd = fd = client.fileno()
                known = self._clients.get(fd)
                if known is None or known.socket is not client:
                    self._register(fd)
                    known = self._clients[fd] = _Client(client)
                known.call = call
            if known.gone:
                call.end(CLIENT_GONE)
        return call

    def _register(self, fd: int) -> None:
        # Once for all exchanges of a connection: it is told once, and the kernel forgets it when it is closed.
        # A half-close counts as gone: no client of this API sends one and still wants its answer.
        events = select.EPOLLRDHUP | select.EPOLLET
        try:
            self._epoll.register(fd, events)
        except FileExistsError:  # by another object for the same connection
            self._epoll.modify(fd, events)

    def forget(self, call: Call) -> None:
        """Stop watching the client of `call`."""
        with self._lock:
            known = self._clients.get(call.fd)
            if known is not None and known.call is call:
                known.call = None
            # Most calls are over long before they are due; they go when they are the greater part.
            self._over += 1
            if self._over > 100 and self._over > len(self._heap) // 2:
                self._heap = [entry for entry in self._heap if not entry[2].closed]
                heapq.heapify(self._heap)
                self._over = 0

    def schedule(self, call: Call, when: float) -> None:
        """Look at `call` at `when` (monotonic seconds) at the latest."""
        if when >= call._scheduled:
            return
        with self._lock:
            if when >= call._scheduled:
                return
            call._scheduled = when
            heapq.heappush(self._heap, (when, next(self._count), call))
            wake = when < self._asleep_until
            if wake:
                self._asleep_until = when
        if wake:
            os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """End the guardian's thread and wait for it."""
        self._stopped = True
        os.eventfd_write(self._wakeup, 1)
        self._done.acquire()
        self._epoll.close()
        os.close(self._wakeup)

    def _run(self) -> None:
        try:
            while not self._stopped:
                with self._lock:
                    self._asleep_until = when = self._heap[0][0] if self._heap else NEVER
                timeout = -1 if when == NEVER else max(0.0, when - time.monotonic())
                for fd, _ in self._epoll.poll(timeout):
                    if fd == self._wakeup:
                        os.eventfd_read(self._wakeup)
                    else:
                        self._client_event(fd)
                self._check_due(time.monotonic())
        except BaseException:
            # Without the guardian no deadline holds: better no worker than a deaf one.
            log.critical("the guardian died; the worker ends", exc_info=True)
            os._exit(70)
        finally:
            self._done.release()

    def _client_event(self, fd: int) -> None:
        with self._lock:
            known = self._clients.get(fd)
            # The event may be of an earlier connection whose descriptor has come back: ask the socket itself.
            if known is None or not _ready(known.socket, select.POLLRDHUP):
                return
            known.gone = True
            call = known.call
        if call is not None:
            call.end(CLIENT_GONE)

    def _check_due(self, now: float) -> None:
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > now:
                    return
                when, _, call = heapq.heappop(self._heap)
                if call.closed or when != call._scheduled:
                    continue
                call._scheduled = NEVER
            call.check(now)
            if not call.closed and call.why is None:
                self.schedule(call, call.next_check())


def has_left(client: Any) -> bool:
    """Say whether the client behind a socket has gone; a half-close counts."""
    return client is not None and _ready(client, select.POLLRDHUP)


def _ready(sock: Any, events: int) -> bool:
    poll = native("select", "poll")()
    try:
        poll.register(sock.fileno(), events)
    except (ValueError, OSError):
        return True
    found = poll.poll(0)
    return bool(found) and bool(found[0][1] & (events | select.POLLHUP | select.POLLERR))
