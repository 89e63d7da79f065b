"""A worker's connections to Redis, made by a thread of their own: nobody else waits for a name or a handshake."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from redis import RedisError
from redis.exceptions import NoScriptError

from proxy.counters.embedded import Unavailable
from proxy.counters.places import Link, Place

#: How long a connection may have rested before it is looked whether the server has closed it.
REST_S = 1.0
#: How long closing waits for a connection that is being made.
CLOSE_S = 1.0


class Connections:
    """At most `most` connections to `place`; none is made before it is needed. Threads may share it.

    They are made one at a time, for those who wait: whichever is free first, a new or a used one, serves them.
    """

    def __init__(self, place: Place, most: int) -> None:
        self._place = place
        self._most = most
        self._idle: deque[tuple[Link, float]] = deque()
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._wanted = threading.Condition(self._lock)
        self._waiting = self._open = self._generation = self._failures = 0
        self._why = ""
        self._closed = False
        self._thread: threading.Thread | None = None

    def call(self, until: float, *command: Any) -> Any:
        """Send a command and return its answer, all until a moment of the monotonic clock; nothing is tried again.

        Raises `Unavailable` and `NoScriptError`.
        """
        link = self._get(until)
        try:
            answer = link.ask(until, command)
        except NoScriptError:
            self._put(link)
            raise
        except BaseException as failure:
            self._drop(link)
            if not isinstance(failure, (RedisError, OSError)):
                raise
            raise Unavailable(_told(failure), divide=True) from failure
        self._put(link)
        return answer

    def renew(self) -> None:
        """Close what rests, and what is in use when it comes back; for the next one the place is looked for again."""
        with self._lock:
            self._generation += 1
            resting = [link for link, _ in self._idle]
            self._idle.clear()
        for link in resting:
            self._drop(link)

    def close(self) -> None:
        """Close what rests now, and what is in use or being made when it comes here."""
        with self._lock:
            self._closed = True
            self._wanted.notify_all()
        self.renew()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _get(self, until: float) -> Link:
        while True:
            with self._lock:
                if not self._idle:
                    return self._await(until)
                # The one that was used last: the others may rest, or go.
                link, since = self._idle.pop()
            if time.monotonic() < since + REST_S or link.open:
                return link
            self._drop(link)

    def _await(self, until: float) -> Link:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="redis", daemon=True)
            self._thread.start()
        failures = self._failures
        self._waiting += 1
        try:
            self._wanted.notify()
            while not self._idle:
                if self._failures > failures:
                    raise Unavailable(self._why, divide=True)
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise Unavailable("Redis cannot be used (no connection in time)", divide=True)
                self._freed.wait(left_s)
            return self._idle.pop()[0]
        finally:
            if self._failures == failures:
                self._waiting -= 1

    def _put(self, link: Link) -> None:
        with self._lock:
            if link.generation == self._generation and not self._closed:
                self._idle.append((link, time.monotonic()))
                if self._waiting:
                    self._freed.notify()
                return
        self._drop(link)

    def _drop(self, link: Link) -> None:
        link.disconnect()  # type: ignore[no-untyped-call]
        with self._lock:
            self._open -= 1
            self._wanted.notify()

    def _run(self) -> None:
        """Make connections for those who wait."""
        generation = 0
        while True:
            with self._lock:
                while not self._closed and not (self._waiting > len(self._idle) and self._open < self._most):
                    self._wanted.wait()
                if self._closed:
                    break
                self._open += 1
                if generation != self._generation:
                    generation = self._generation
                    self._place.forget()
            try:
                link = self._place.connect()
            except Exception as failure:
                self._place.forget()
                with self._lock:
                    # All who wait for it have failed with it.
                    self._open, self._waiting, self._failures = self._open - 1, 0, self._failures + 1
                    self._why = _told(failure)
                    self._freed.notify_all()
            else:
                link.generation = generation
                self._put(link)
        self._place.close()


def _told(failure: BaseException) -> str:
    # The name of the error and no more: its text may hold the URL, and so the password.
    return f"Redis cannot be used ({type(failure).__name__})"
