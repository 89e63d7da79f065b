"""Answers given at the door, before any application: parse errors and a full gateway, as OpenAI error objects."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from http import HTTPStatus

import orjson
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import Request

from proxy.connection import Answer, Connection, Stalled
from proxy.errors import error_body

LINGER_S = 2.0
"""How long a client that was answered may go on sending before its connection is closed."""

LINGERING = 256
"""How many such connections a worker keeps at once."""


def refusal(status: int, code: str, message: str, type: str = "invalid_request_error", headers: str = "") -> bytes:
    """Return a whole HTTP response that closes the connection; `headers` are extra lines, each with its CRLF."""
    body = orjson.dumps(error_body(message, type, None, code))
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{headers}Connection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


FULL = refusal(
    503,
    "server_is_overloaded",
    "The gateway is full: every place for a request is taken. Try again shortly.",
    "service_unavailable_error",
    "Retry-After: 1\r\n",
)
FAILED = refusal(500, "internal_error", "The gateway failed to answer this request.", "server_error")
SLOW = refusal(408, "request_timeout", "The request did not arrive in time.")

# The first match counts: an application's bad response header is derived from the parser's errors, but is a 500.
EXPLAINED: tuple[tuple[type[Exception], bytes], ...] = (
    (InvalidResponseHeader, FAILED),
    (InvalidResponseHeaderName, FAILED),
    (LimitRequestLine, refusal(414, "uri_too_long", "The request line is too long.")),
    (LimitRequestHeaders, refusal(431, "request_header_fields_too_large", "The headers are too many or too large.")),
    (UnsupportedTransferCoding, refusal(501, "unsupported_transfer_coding", "The transfer coding is not supported.")),
    (ExpectationFailed, refusal(417, "expectation_failed", "The only supported expectation is 100-continue.")),
    (ParseException, refusal(400, "bad_request", "The request is not valid HTTP/1.1.")),
    (Stalled, SLOW),
)


def explain(error: BaseException) -> bytes:
    """Return the whole HTTP response that goes with an exception of gunicorn's parser; anything else is a 500."""
    return next((answer for kind, answer in EXPLAINED if isinstance(error, kind)), FAILED)


def check_head(request: Request) -> None:
    """Refuse what gunicorn accepts: HTTP/1.1 without Host (RFC 9112 §3.2), and a body in a coding besides chunked.

    Raises `InvalidHeader` or `UnsupportedTransferCoding`.
    """
    hosts = 0
    for name, value in request.headers:
        hosts += name == "HOST"
        if name == "TRANSFER-ENCODING" and value.strip().lower() != "chunked":
            raise UnsupportedTransferCoding(value)
    if not hosts and request.version >= (1, 1):
        raise InvalidHeader("HOST", req=request)


def reset(sock: socket.socket) -> None:
    """Make the next `close` a reset, for a body that ends by closing: there only a reset tells a cut from an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Doorman:
    """Sleeps for the worker's main thread, and sees off clients that were answered while they were still sending.

    Closing a socket with unread data resets it, and the client may lose the answer; so the connection is shut down for
    writing, what still comes is thrown away, and it is closed when the client does so. Nothing here blocks on a client.
    """

    def __init__(self, bell: int, queue: int) -> None:
        """`bell` is a pipe that wakes the main thread, `queue` the epoll that has ready connections."""
        self.bell = bell
        self.queue = queue
        self.watches = False
        self.lingering: dict[int, tuple[socket.socket, float]] = {}
        self.waste = bytearray(65536)
        self.epoll = select.epoll()
        self.epoll.register(bell, select.EPOLLIN)
        self.epoll.register(queue, 0)

    def see_off(self, sock: socket.socket, answer: bytes = b"") -> None:
        """Send a short answer, then close once the client has stopped sending. Any thread may call this."""
        try:
            sock.setblocking(False)
            if answer:
                sock.send(answer)
            sock.shutdown(socket.SHUT_WR)
            if len(self.lingering) < LINGERING:
                # Only the main thread closes from here on: another could close under its feet.
                self.lingering[sock.fileno()] = (sock, time.monotonic() + LINGER_S)
                self.epoll.register(sock.fileno(), select.EPOLLIN)
                return
        except OSError:
            self.lingering.pop(sock.fileno(), None)
        sock.close()

    def finish(self, conn: Connection) -> None:
        """Close a connection without a reset, which could take the end of the answer with it."""
        if conn.is_quiet():
            conn.sock.close()
        else:
            self.see_off(conn.sock)

    def cut(self, conn: Connection, resp: Answer | None) -> None:
        """Close a connection in the middle of its answer, so that the client cannot take it for the end."""
        if resp is not None and not (resp.whole or resp.chunked or resp.response_length is not None):
            reset(conn.sock)
            conn.sock.close()
        else:
            self.finish(conn)

    def wait(self, timeout_s: float, watch: bool) -> None:
        """Sleep until the bell rings or, with `watch`, until something lies in the queue; see clients off meanwhile."""
        if watch != self.watches:
            self.epoll.modify(self.queue, select.EPOLLIN if watch else 0)
            self.watches = watch
        for fd, _ in self.epoll.poll(timeout_s):
            if fd in self.lingering:
                self._throw_away(fd)
            elif fd == self.bell:
                os.read(self.bell, 4096)
        now = time.monotonic()
        for fd in list(self.lingering):
            if self.lingering[fd][1] <= now:
                self._close(fd)

    def _throw_away(self, fd: int) -> None:
        try:
            if self.lingering[fd][0].recv_into(self.waste):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(fd)

    def _close(self, fd: int) -> None:
        self.lingering.pop(fd)[0].close()
