"""Where clients wait for a free thread: new ones at the listeners, known ones between two requests, in one epoll."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from proxy.connection import Connection

TAKE = select.EPOLLIN | select.EPOLLONESHOT


class Lobby:
    """The listeners and the connections that rest. Whatever is ready is had by one thread, until it is armed again.

    `epoll` is what threads wait on, `parked` the connections that rest, by descriptor: who takes one out holds `lock`.
    `sockets` and `cfg` are gunicorn's; `head_s` is the time for a request head, `receive_s` and `send_s` for each read
    and write.
    """

    def __init__(self, sockets: list[Any], cfg: Any, log: Any, head_s: float, receive_s: float, send_s: float) -> None:
        self.epoll = select.epoll()
        self.lock = threading.Lock()
        self.parked: dict[int, Connection] = {}
        self.listeners = {listener.fileno(): (listener.sock, listener.getsockname()) for listener in sockets}
        self.idle_until = float("inf")
        self._cfg = cfg
        self._log = log
        self._head_s = head_s
        # By the kernel: a time-out set in Python costs a poll for each read and write.
        self._timeouts = tuple(
            (option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
            for option, seconds in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s))
        )

    def open(self) -> None:
        """Let the threads have what comes to the listeners."""
        for fd, (listener, _) in self.listeners.items():
            listener.setblocking(False)
            self.epoll.register(fd, TAKE)

    def close(self, linger_s: float) -> None:
        """Close the listeners; connections may rest for `linger_s` seconds more."""
        listeners, self.listeners = self.listeners, {}
        for fd, (listener, _) in listeners.items():
            self.epoll.unregister(fd)
            listener.close()
        self.idle_until = time.monotonic() + linger_s

    def accept(self, fd: int) -> Connection | None:
        """Accept one connection; None if another worker was quicker, or `fd` is no listener (any more)."""
        listener, server = self.listeners.get(fd, (None, None))
        if listener is None:
            return None
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError:
            if self.listeners:
                self._log.exception("Cannot accept a connection")
                time.sleep(0.1)  # most likely out of file descriptors, and the listener stays ready
            return None
        for option, timeout in self._timeouts:
            sock.setsockopt(socket.SOL_SOCKET, option, timeout)
        return Connection(self._cfg, sock, client, server, time.monotonic() + self._head_s)

    def arm(self, fd: int) -> None:
        """Let the next free thread have `fd` again, if it still is a listener or a resting connection."""
        if fd in self.listeners or fd in self.parked:
            with suppress(OSError):  # it was closed at this moment
                self.epoll.modify(fd, TAKE)

    def park(self, conn: Connection) -> None:
        """Let a connection rest until its client sends something; of too many the one that rests longest is closed."""
        if not conn.begun:
            conn.begun = bool(conn.inlet.buf.getvalue())
            conn.deadline = time.monotonic() + (self._head_s if conn.begun else self._cfg.keepalive)
        oldest = None
        # Under the lock, so that the connection cannot be closed, and its number used again, before it is armed.
        with self.lock:
            if len(self.parked) >= self._cfg.worker_connections:
                oldest = next(iter(self.parked.values()))
            self.parked[conn.fd] = conn
            (self.epoll.modify if conn.known else self.epoll.register)(conn.fd, TAKE)
            conn.known = True
        if oldest is not None and self.claim(oldest):
            oldest.sock.close()

    def claim(self, conn: Connection) -> bool:
        """Take a connection that rests away from the threads; False if one of them has it by now."""
        with self.lock:
            if self.parked.get(conn.fd) is not conn:
                return False
            del self.parked[conn.fd]
        self.epoll.unregister(conn.fd)
        return True

    def overdue(self, now: float) -> Iterator[Connection]:
        """Take away the connections that have rested too long."""
        for conn in list(self.parked.values()):
            if min(conn.deadline, self.idle_until) <= now and self.claim(conn):
                yield conn
