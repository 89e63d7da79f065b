"""Gunicorn's gevent worker with OpenAI error objects at the door, and a 503 where it would let clients wait unseen."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.message import Request
from gunicorn.workers import ggevent

from proxy.doorman import FAILED, FULL, LINGER_S, check_head, explain, reset

SPARE = 64
"""Connections beyond all bounds that are accepted only to be refused."""

STALL_S = 30.0
"""How long a client may neither send the body nor take the answer that it asked for."""

UNREAD_BYTES = 64 << 10
"""How much of a body that the application left unread is read to keep the connection."""


class GeventWorker(ggevent.GeventWorker):  # type: ignore[misc]
    """Serves up to `worker_connections` requests at once, and lets as many further connections rest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = self.cfg.worker_connections
        self.worker_connections = 2 * self.limit + SPARE  # what gunicorn makes its pools of greenlets from
        self.connections = 0
        self.busy = self.turned_away = 0
        self.resting: set[gevent.Greenlet] = set()
        self.leaving = False

    def notify(self) -> None:
        """Tell the master that this worker lives; on leaving, end idle connections, for which gunicorn would wait."""
        super().notify()
        if not self.alive:
            if self.leaving:  # a second after the first call: a client may have been sending
                gevent.killall(list(self.resting), block=False)
            self.leaving = True

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self.connections += 1
        self.resting.add(gevent.getcurrent())
        try:
            if self.connections > 2 * self.limit:
                self.see_off(client, FULL)
                client.close()
            else:
                super().handle(listener, client, addr)
        finally:
            self.connections -= 1
            self.resting.discard(gevent.getcurrent())

    def handle_request(self, listener_name: Any, req: Request, sock: socket.socket, addr: Any) -> None:
        check_head(req)
        if self.busy >= self.limit:
            self.see_off(sock, FULL)
            raise StopIteration
        ends = False
        self.busy += 1
        sock.settimeout(STALL_S)
        self.resting.discard(gevent.getcurrent())
        try:
            super().handle_request(listener_name, req, sock, addr)
            # What the application left unread would be read to its end before the next request.
            body = req.body.reader
            ends = getattr(body, "length", 0) > UNREAD_BYTES or getattr(body, "parser", None) is not None
        except StopIteration:
            ends = True
        except OSError as failure:
            if isinstance(failure, TimeoutError):
                raise ConnectionResetError(errno.ECONNRESET, "the client has stopped reading") from None
            if req.version < (1, 1):
                with suppress(OSError):
                    reset(sock)
            raise
        finally:
            self.busy -= 1
            with suppress(OSError):
                sock.settimeout(None)
            self.resting.add(gevent.getcurrent())
        if ends:
            self.see_off(sock)
            raise StopIteration

    def handle_error(self, req: Request | None, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that cannot be read, or whose application failed before it answered."""
        if isinstance(exc, gevent.GreenletExit):
            return
        answer = explain(exc)
        if answer is FAILED:
            what = f"{req.method} {req.path}" if req else "that could not be read"
            self.log.error("Error handling request %s", what, exc_info=exc)
        else:
            # By its name only: its text has parts of the request, which may be a credential.
            self.log.warning("Invalid request from %s: %s", addr or "a unix socket", type(exc).__name__)
        self.see_off(client, answer)

    def see_off(self, client: socket.socket, answer: bytes = b"") -> None:
        """Answer a client and let it stop sending, for closing a socket with unread data would take the answer too."""
        self.connections -= 1
        self.turned_away += answer is FULL
        try:
            with suppress(OSError), gevent.Timeout(LINGER_S, False):
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        finally:
            self.connections += 1
