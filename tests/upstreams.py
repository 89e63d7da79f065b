"""A real upstream on loopback that a test scripts byte by byte, and that remembers who asked what and when they left.

A script takes a `Request` and returns or yields what happens next: `bytes` are sent as they are, a `Gate` holds the
connection until the test opens it or the client leaves, `FIN` and `RST` end the connection. After a script the
connection stays open for the next request. `Upstream(a, b)` runs `a` for the first request and `b` for all others.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from proxy.testing import completion, stream

PATIENCE_S = 20.0


class Gate:
    """Holds scripts back until `open()`; one gate may hold many."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)

    def open(self) -> None:
        """Let everybody through, now and later."""
        os.eventfd_write(self.fd, 1)

    @property
    def opened(self) -> bool:
        """Whether it is open."""
        return bool(select.select([self.fd], [], [], 0)[0])

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True)
class End:
    """Ends the connection from the upstream's side; an instance is what a script yields."""

    how: str


FIN = End("fin")
RST = End("rst")
Step = bytes | Gate | End
Script = Callable[["Request"], Iterable[Step] | Step]
Greeting = Callable[["Connection"], Iterable[Step] | Step]


@dataclass(eq=False)
class Connection:
    """One connection. It ended by the "client" or "upstream", with "fin", "rst" or "tls", at a `time.monotonic`."""

    number: int
    opened_at: float
    sent: int = 0
    received: int = 0
    requests: list[Request] = field(default_factory=list)
    ended_by: str | None = None
    how: str | None = None
    ended_at: float | None = None


@dataclass(eq=False)
class Request:
    """One request as it came. `headers` has lower-case names and the last value; `fields` has all, in order."""

    method: str
    path: str
    fields: list[tuple[str, str]]
    body: bytes
    connection: Connection

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """Listens from its making until `stop()` or the end of its `with` block."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, greeting: Greeting | None = None) -> None:
        """`greeting` is run when a connection is taken, before anything is read from it."""
        self.scripts = list(scripts) or [plain]
        self.tls = tls
        self.greeting = greeting
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.changed = threading.Condition()
        self._sockets: dict[int, socket.socket] = {}
        self._stopped = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http{'s' if tls else ''}://{self.address}/v1"
        self._threads = [threading.Thread(target=self._accept, name="upstream", daemon=True)]
        self._threads[0].start()

    def wait_for(self, predicate: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Wait until `predicate()` is true and return its value; it is asked again whenever something happened."""
        with self.changed:
            value = self.changed.wait_for(predicate, timeout_s)
        assert value, f"the upstream saw only {self.requests} on {self.connections}"
        return value

    def wait_request(self, number: int = 1) -> Request:
        """Wait for the first (second, …) request and return it."""
        self.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    def wait_end(self, number: int = 1) -> Connection:
        """Wait until the first (second, …) connection has ended and return it."""
        self.wait_for(lambda: len(self.connections) >= number and self.connections[number - 1].ended_by)
        return self.connections[number - 1]

    def stop(self) -> None:
        """Cut every connection and join every thread."""
        with self.changed:
            self._stopped = True
            # shutdown, because closing a socket does not wake the thread that is blocked in it.
            for taken in [self._listener, *self._sockets.values()]:
                with contextlib.suppress(OSError):
                    taken.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                if self._stopped:
                    client.close()
                    return
                connection = Connection(len(self.connections) + 1, time.monotonic())
                self._sockets[connection.number] = client
                self.connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection, client), daemon=True))
                self._threads[-1].start()
                self.changed.notify_all()

    def _serve(self, connection: Connection, client: socket.socket) -> None:
        try:
            if self.greeting:
                self._run(connection, client, self.greeting(connection))
            if self.tls:
                client = self.tls.wrap_socket(client, server_side=True)
                with self.changed:
                    self._sockets[connection.number] = client
            buffer = bytearray()
            while True:
                request = _read(connection, client, buffer)
                with self.changed:
                    connection.requests.append(request)
                    self.requests.append(request)
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                    self.changed.notify_all()
                self._run(connection, client, script(request))
        except _Ended as end:
            self._end(connection, client, *end.args)
        except ssl.SSLError:
            self._end(connection, client, "client", "tls")
        except OSError:
            self._end(connection, client, "client", "rst")
        except BaseException:
            self._end(connection, client, "upstream", "rst")
            raise

    def _run(self, connection: Connection, client: socket.socket, steps: Iterable[Step] | Step) -> None:
        for step in [steps] if isinstance(steps, (bytes, Gate, End)) else steps:
            if isinstance(step, End):
                raise _Ended("upstream", step.how)
            if isinstance(step, Gate):
                _hold(client, step)
                continue
            client.sendall(step)
            with self.changed:
                connection.sent += len(step)
                self.changed.notify_all()

    def _end(self, connection: Connection, client: socket.socket, by: str, how: str) -> None:
        at = time.monotonic()
        if by == "upstream" and how == "rst":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self.changed:
            by = "upstream" if self._stopped else by
            client.close()
            del self._sockets[connection.number]
            connection.ended_by, connection.how, connection.ended_at = by, how, at
            self.changed.notify_all()


class _Ended(Exception):
    """By whom, and how."""


def _hold(client: socket.socket, gate: Gate) -> None:
    """Wait for the gate, or for the client to leave."""
    poll = select.poll()
    poll.register(gate.fd, select.POLLIN)
    poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    if client.fileno() in dict(poll.poll()):
        raise _Ended("client", "rst" if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else "fin")


def _read(connection: Connection, client: socket.socket, buffer: bytearray) -> Request:
    def more() -> None:
        data = client.recv(65536)
        if not data:
            raise _Ended("client", "fin")
        connection.received += len(data)
        buffer.extend(data)

    def take(until: bytes) -> bytes:
        while (end := buffer.find(until)) < 0:
            more()
        return cut(end + len(until))

    def cut(size: int) -> bytes:
        while len(buffer) < size:
            more()
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    line, *lines = take(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    request = Request(method, path, fields, b"", connection)
    if request.headers.get("transfer-encoding") == "chunked":
        while size := int(take(b"\r\n"), 16):
            request.body += cut(size + 2)[:-2]
        cut(2)
    else:
        request.body = cut(int(request.headers.get("content-length", 0)))
    return request


def plain(request: Request) -> bytes:
    """Answer like a plain OpenAI upstream: "Hello", streamed if the request says so."""
    return stream_answer() if request.body and request.json.get("stream") else json_answer(completion())


def head(status: int = 200, **headers: str | int) -> bytes:
    """Return a status line and headers, ready for a body; `content_type=…` becomes `content-type: …`."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def json_answer(body: Any, status: int = 200, **headers: str | int) -> bytes:
    """Return a whole JSON answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(status, **{"content_type": "application/json", "content_length": len(raw), **headers}) + raw


def sse(events: Iterable[dict[str, Any] | bytes], done: bool = True, end: bytes = b"\n") -> bytes:
    """Return events as they go over the wire; `end` is the line ending."""
    datas = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return b"".join(b"data: " + data + 2 * end for data in datas + [b"[DONE]"] * done)


def chunked(*parts: bytes, last: bool = True) -> bytes:
    """Return parts as HTTP chunks, one each, with the terminating chunk unless `last` is false."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n" * last


def stream_answer(
    body: bytes | Iterable[dict[str, Any]] | None = None, last: bool = True, **headers: str | int
) -> bytes:
    """Return a whole streamed answer: `body` is SSE bytes or events, by default those of "Hello"."""
    raw = body if isinstance(body, bytes) else sse(stream() if body is None else body)
    return streaming(**headers) + chunked(raw, last=last)


def streaming(**headers: str | int) -> bytes:
    """Return the headers of a streamed answer."""
    return head(200, **{"content_type": "text/event-stream", "transfer_encoding": "chunked", **headers})


def bytewise(data: bytes) -> Iterator[bytes]:
    """Yield one byte at a time."""
    return (data[at : at + 1] for at in range(len(data)))


def gzipped(body: bytes, **headers: str | int) -> bytes:
    """Return a whole answer with a gzip body; of `bytes(10**8)` it is a bomb of 97 kB."""
    raw = gzip.compress(body)
    return head(200, **{"content_encoding": "gzip", "content_length": len(raw), **headers}) + raw
