"""One client's connection: what comes in over it, and the answer that goes out."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import Unreader

HEAD_BYTES = 128 << 10
"""The largest request head; nginx's default is 32 KiB."""

DRAIN_BYTES = 64 << 10
"""How much of a body that the application left unread is read to keep the connection."""


class Stalled(TimeoutError):
    """The client stopped sending in the middle of its request; raised by `wsgi.input` too."""


class Inlet(Unreader):  # type: ignore[misc]
    """What a client sends. Heads are read without waiting, bodies with the socket's own time-out.

    `wsgi.input` raises `Stalled` when the client stops sending and ConnectionResetError when it leaves before the end
    of its body; gunicorn's own reader returns the shorter body as if it were whole.
    """

    def __init__(self, peer: socket.socket) -> None:
        super().__init__()
        self.peer = peer  # under gunicorn's name `sock` the parser would set its time-out again for each request
        self.flags = 0
        self.proceed = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next bytes of a body; an expected 100 Continue is sent when the body is asked for, not before."""
        if self.proceed:
            self.proceed = False
            self.peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            data = self.peer.recv(min(max(size_hint or 0, 8192), 1 << 20), self.flags)
        except BlockingIOError:
            raise Stalled(errno.ETIMEDOUT, "the client stopped sending") from None
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the client left before the end of its request")
        return data

    def has_head(self) -> bool:
        """Take what has come and tell whether it has a whole request head, or one that the parser will refuse."""
        while b"\r\n\r\n" not in (held := self.buf.getvalue()):
            if len(held) > HEAD_BYTES:
                raise LimitRequestHeaders("request head") if b"\r\n" in held else LimitRequestLine(len(held))
            if held.count(b"\n") != held.count(b"\r\n"):
                return True
            try:
                data = self.peer.recv(16384, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "the client left")
            self.buf.seek(0, os.SEEK_END)
            self.buf.write(data)
        return True


class Answer(wsgi.Response):  # type: ignore[misc]
    """Gunicorn's response, with its headers sent in one piece with the first bytes of the body.

    `last` is asked then whether the connection is to be closed after this answer.
    """

    def __init__(self, req: Request, sock: socket.socket, cfg: Any, last: Callable[[], bool]) -> None:
        super().__init__(req, sock, cfg)
        self.last = last
        self.head = b""
        self.headers_sent: bool = False
        self.whole = False

    def send_headers(self) -> None:
        if not self.headers_sent:
            if self.last():
                self.force_close()
            lines = self.default_headers()
            lines += [f"{name}: {value}\r\n" for name, value in self.headers]
            self.head = ("".join(lines) + "\r\n").encode("latin-1")
            self.headers_sent = True

    def write(self, arg: bytes) -> None:
        super().write(arg)
        if self.head:
            self._send(b"")

    def close(self) -> None:
        self.send_headers()
        if self.head or self.chunked:
            self._send(b"0\r\n\r\n" if self.chunked else b"")
        if self.response_length is not None and self.sent < self.response_length and not self._omits_body:
            raise ValueError("the application sent less than its Content-Length")
        self.whole = True

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        head, self.head = self.head, b""
        try:
            self.sock.sendall(head + data)
        except BlockingIOError:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the client stopped reading") from None


class Connection:
    """A client's connection. `deadline` is when it is given up while it rests; `begun` that a request has begun."""

    __slots__ = ("begun", "client", "deadline", "fd", "inlet", "known", "parser", "server", "sock")

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.client = client
        self.server = server
        self.deadline = deadline
        self.begun = True
        self.known = False
        self.inlet = Inlet(sock)
        self.parser = RequestParser(cfg, (), client)
        self.parser.unreader = self.inlet

    def settle(self) -> bool:
        """Discard the rest of a body, as far as it has come; tell whether the next request starts here."""
        if self.inlet.proceed:
            return False
        self.inlet.flags = socket.MSG_DONTWAIT
        try:
            return bool(self.parser.finish_body(max_bytes=DRAIN_BYTES))
        except Exception:  # whatever is wrong with the rest of the body: the connection cannot be used again
            return False
        finally:
            self.inlet.flags = 0

    def is_quiet(self) -> bool:
        """Tell whether the client has sent all of its request and nothing after it, so that closing resets nothing."""
        try:
            return self.settle() and not self.inlet.buf.getvalue() and not self.sock.recv(1, socket.MSG_DONTWAIT)
        except OSError:
            return True
