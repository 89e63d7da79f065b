"""The way to one client over HTTP: its headers and body, the headers that go back, and the end of the exchange."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from http.client import responses
from typing import Any

from flask import Response

from proxy import sse
from proxy.call import CLIENT_GONE
from proxy.errors import Reject
from proxy.exchange import Exchange
from proxy.pipeline import JSON, SSE, Run

log = logging.getLogger("lockgate")

START_RESPONSE = "lockgate.start_response"
#: Response headers that are the gateway's alone.
OWN = ("content-length", "content-type", "transfer-encoding", "connection", "x-request-id")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")


class Headers(Mapping[str, str]):
    """The request's headers by lower-case name, read from the WSGI environment without copying it."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        key = name.upper().replace("-", "_")
        value: str = self._environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key]
        return value

    def __iter__(self) -> Iterator[str]:
        for key in self._environ:
            if key.startswith("HTTP_"):
                yield key[5:].lower().replace("_", "-")
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield key.lower().replace("_", "-")

    def __len__(self) -> int:
        return sum(1 for _ in self)


class HttpClient:
    """The way back to one client: reads the body, sends the headers late, and owns the end of the exchange."""

    def __init__(self, environ: dict[str, Any], exchange: Exchange) -> None:
        self.socket = environ.get("gunicorn.socket")
        self.committed = False
        self.length: int | None = None
        self.query: str = environ.get("QUERY_STRING", "")
        self._environ = environ
        self._exchange = exchange
        self._write: Any = None

    def read(self, limit: int, hold: Callable[[int], None]) -> bytes:
        """Return the body; raise `Reject` where it is too large or its headers say that it is not plain JSON."""
        environ = self._environ
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != JSON:
            raise Reject(415, "unsupported_media_type", f"The request needs the header `Content-Type: {JSON}`.")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Reject(415, "unsupported_content_encoding", "The request's body must not be compressed.")
        too_large = Reject(413, "request_too_large", f"The request's body is larger than {limit} bytes.")
        stated = environ.get("CONTENT_LENGTH")
        body = environ["wsgi.input"]
        if stated:
            size = int(stated)
            if size > limit:
                raise too_large
        parts = []
        got = 0
        # No more than one byte over the limit: the rest may never come. What counts is what has come, not what is said.
        while part := _take(body, min(65536, (size if stated else limit + 1) - got)):
            got += len(part)
            if got > limit:
                raise too_large
            hold(len(part))
            parts.append(part)
        if stated and got < size:
            raise Reject(400, "incomplete_body", "The request's body is shorter than its Content-Length.")
        return b"".join(parts)

    def heartbeat(self) -> None:
        """Send a comment; the first one sends the headers with it, and from then on failures are events."""
        if not self.committed:
            self.committed = True
            self._exchange.outcome.status = 200
            self._write = self._start(self._environ[START_RESPONSE])
        self._write(sse.comment(b"ping"))

    def send(self, start_response: Any, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Send the headers, unless a heartbeat has, and return the body."""
        if not self.committed:
            self.committed = True
            self._write = self._start(start_response)
        return chunks

    def _start(self, start_response: Any) -> Any:
        exchange = self._exchange
        status = exchange.outcome.status
        headers = []
        for name, value in exchange.response_headers.items():
            if name.lower() not in OWN and HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(str(value)):
                headers.append((name, str(value)))
            else:
                log.warning("exchange %s: a plugin's response header %r cannot be sent", exchange.id, name[:100])
        if self.length is not None:
            headers.append(("content-length", str(self.length)))
        if exchange.stream and status == 200:
            headers += [("content-type", SSE), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
        else:
            headers += [("content-type", JSON)]
        headers.append(("x-request-id", exchange.id))
        return start_response(f"{status} {responses.get(status, 'Error')}", headers)


def _take(body: Any, size: int) -> bytes:
    """Read from the body; what goes wrong in it is the client's doing, whatever the server raises."""
    try:
        part: bytes = body.read(size)
        return part
    except ConnectionError:
        raise Reject(499, CLIENT_GONE, "The client has gone.") from None
    except TimeoutError:
        raise Reject(408, "request_timeout", "The request's body did not come in time.") from None
    except Exception as error:
        log.info("a request's body could not be read: %s", type(error).__name__)
        raise Reject(400, "incomplete_body", "The request's body is cut or not well formed.") from None


class Sent(Response):
    """A response whose headers are sent when its body begins, and whose end is the end of its exchange."""

    def __init__(self, run: Run, chunks: Iterator[bytes]) -> None:
        # Not Response's own __init__: Flask asks only for the type, and the headers come later.
        self._run: Any = run
        self._chunks = chunks

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Send the headers and return the body: an iterable whose `close` ends the exchange."""
        try:
            return _Parts(self._run.client.send(start_response, self._chunks), self._run)
        except BaseException:
            self._run.exchange.outcome.code = "internal_error"
            self._run.close()
            raise


class _Parts:
    __slots__ = ("_chunks", "_run")

    def __init__(self, chunks: Iterator[bytes], run: Run) -> None:
        self._chunks = chunks
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        # The generator itself, so that nothing of ours stands between it and the server's loop.
        return self._chunks

    def close(self) -> None:
        try:
            self._chunks.close()  # type: ignore[attr-defined]
        finally:
            self._run.close()
