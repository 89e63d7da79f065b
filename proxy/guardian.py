"""The guardian: one native thread per worker that knows who has left and what is late.

WSGI tells a waiting application neither that its client has gone nor that an upstream is silent. The guardian watches
the client's socket and a heap of deadlines, and answers both by shutting the upstream's socket down: the blocked
read returns at once, and `Call.why` says what happened. It also writes the heartbeats of a silent stream.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import time
from typing import Any

from proxy.call import CLIENT_GONE, NEVER, Call, ready
from proxy.sockets import native

log = logging.getLogger("lockgate.guardian")


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
            if known is None or not ready(known.socket, select.POLLRDHUP):
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
