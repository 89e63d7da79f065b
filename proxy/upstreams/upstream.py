"""One provider's way out, and the answers that are read from it."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from typing import Any

from urllib3 import exceptions as u3

from proxy.call import CLIENT_GONE, Call
from proxy.errors import UpstreamError
from proxy.providers.base import Outgoing
from proxy.settings import Connection, Timeouts
from proxy.upstreams import framing, sending
from proxy.upstreams.adapter import Adapter
from proxy.upstreams.heads import Head, Silent

#: How much is read behind the end of a stream so that its connection can be used again.
DRAIN_BYTES, DRAIN_S = 65536, 0.05

#: What a connection can fail with.
_FAILURES = (u3.HTTPError, OSError)


class Upstream:
    """One provider's way out. Make it after the fork; shared by the threads of a worker."""

    def __init__(self, name: str, connection: Connection, adapter: type[Adapter] = Adapter) -> None:
        self.name = name
        self._adapter = adapter(connection)
        self._max_bytes = connection.max_answer_bytes
        self._replays = connection.replay_stale

    def send(self, call: Call, outgoing: Outgoing, timeouts: Timeouts) -> Answer:
        """Send one request and return when the status and headers of its answer are there.

        Raises `UpstreamError` with a code of its own for each way in which that can fail.
        """
        call.arm("connect", timeouts.connect, timeouts.total)
        call.first_byte_s = timeouts.first_byte
        call.wait()
        try:
            head, conn = self._sent(call, outgoing, timeouts)
        except _FAILURES as error:
            raise _failure(call, error) from None
        finally:
            call.woke()
        answer = Answer(call, head, conn, timeouts, self._max_bytes)
        if answer.status == 407:
            answer.close()
            raise UpstreamError(502, *_PROXY)
        return answer

    def close(self) -> None:
        """Close the pooled connections."""
        self._adapter.close()

    def _sent(self, call: Call, outgoing: Outgoing, timeouts: Timeouts) -> tuple[Head, Any]:
        try:
            return self._once(call, outgoing, timeouts)
        except Silent as silent:
            if not self._replays or call.why is not None or not silent.reused:
                raise
        # Others may have been closed with it.
        call.arm("connect", timeouts.connect)
        return self._once(call, outgoing, timeouts, new=True)

    def _once(self, call: Call, outgoing: Outgoing, timeouts: Timeouts, new: bool = False) -> tuple[Head, Any]:
        """Send the request over one connection and return the head of the answer, and the connection."""
        origin = self._adapter.origin(outgoing.url)
        conn = self._adapter.lend(call, origin, timeouts.connect, new)
        try:
            # A server may answer before it has read all, and close: what it said can still be read.
            # The request has no name here: it would be kept for as long as the answer is awaited.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                conn.sock.sendall(sending.request(outgoing, origin))
            return conn.inlet.head(), conn
        except BaseException:
            conn.close()
            raise


class Answer:
    """What an upstream answers: `status`, `headers`, and a body that is read as it arrives."""

    def __init__(self, call: Call, head: Head, conn: Any, timeouts: Timeouts, max_bytes: int) -> None:
        self.status = head.status
        #: By lower-case name.
        self.headers = head.headers
        self._call = call
        self._conn = conn
        self._timeouts = timeouts
        self._max_bytes = self._left = max_bytes
        self._begun = False
        self._body = framing.body(head, conn)

    @property
    def ended(self) -> bool:
        """Whether all of the body has been read."""
        return self._body.ended

    @property
    def size_bytes(self) -> int:
        """How much of the body has been read."""
        return self._max_bytes - self._left

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON, and so no stream."""
        return self.headers.get("content-type", "").startswith("application/json")

    def read(self) -> bytes:
        """Return the next bytes of the body as soon as there are any, `b""` at its end.

        Raises `UpstreamError` where the body is cut, late or larger than the provider's `max_answer_bytes`.
        """
        call = self._call
        call.wait()
        try:
            chunk = self._body.read()
        except _FAILURES as error:
            raise _failure(call, error) from None
        finally:
            call.woke()
        if call.why is not None:
            raise given_up(call)
        if self._begun:
            call.touched = time.monotonic()
        self._left -= len(chunk)
        if self._left < 0:
            raise UpstreamError(
                502, "upstream_answer_too_large", "The upstream's answer is larger than the gateway allows."
            )
        return chunk

    def begin(self) -> None:
        """Note that the first event has come: from now on silence is measured by the idle deadline."""
        self._begun = True
        self._call.arm("idle", self._timeouts.idle)

    def read_all(self, limit: int | None = None) -> bytes:
        """Return the rest of the body; of a body over `limit` bytes, what came before that."""
        parts = []
        size = 0
        while limit is None or size < limit:
            chunk = self.read()
            if not chunk:
                break
            if not self._begun:
                self.begin()
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts)

    def drain(self) -> None:
        """Read what little may follow the end of a stream, so that the connection can be used again."""
        if self.ended:
            return
        self._call.arm("drain", DRAIN_S)
        read = 0
        try:
            while read < DRAIN_BYTES and (chunk := self.read()):
                read += len(chunk)
        except UpstreamError:
            pass

    def close(self) -> None:
        """Give the connection up where the body was not read to its end."""
        if not self.ended:
            self._call.drop()
        self._call.detach()
        if not self.ended:
            self._conn.close()


def given_up(call: Call) -> UpstreamError:
    """Return what a call that the guardian ended means."""
    if call.why == CLIENT_GONE:
        return UpstreamError(499, CLIENT_GONE, "The client has gone.", fallback=False)
    return _late(str(call.why))


def _late(phase: str) -> UpstreamError:
    if phase == "connect":
        return UpstreamError(
            504, "upstream_connect_timeout", "The upstream could not be connected in time.", same_target=True
        )
    return UpstreamError(504, "upstream_timeout", "The upstream did not answer in time.", fallback=phase != "total")


_PROXY = ("upstream_proxy_error", "The egress proxy refused or failed to reach the upstream.")
_TLS = ("upstream_tls_error", "The TLS connection to the upstream failed.")

#: The causes of a failed connection that have a code of their own, most telling first.
_CAUSES: tuple[tuple[type[BaseException], str, str], ...] = (
    (u3.ProxyError, *_PROXY),
    (u3.NameResolutionError, "upstream_dns_error", "The upstream's name could not be resolved."),
    (u3.NewConnectionError, "upstream_unreachable", "The upstream could not be reached."),
    (u3.SSLError, *_TLS),
    (ssl.SSLError, *_TLS),
)

#: What may be gone a moment later, unlike a refusal or a wrong certificate.
_PASSING = (u3.NewConnectionError, ConnectionError, ssl.SSLEOFError)


def _failure(call: Call, error: BaseException) -> UpstreamError:
    """Return what the failure of a connection means, told by the types of its causes and never by its text."""
    if call.why is not None:
        return given_up(call)
    causes = list(_causes(error))
    # Before the connection stands, no byte of the request can have been sent.
    again = call.phase == "connect" and any(isinstance(cause, _PASSING) for cause in causes)
    for kind, code, message in _CAUSES:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(502, code, message, same_target=again)
    if any(isinstance(cause, (u3.TimeoutError, TimeoutError)) for cause in causes):
        return _late(call.phase)
    return UpstreamError(502, "upstream_connection_lost", "The connection to the upstream was lost.", same_target=again)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that led to it, as urllib3 wraps them."""
    causes = [error]
    for cause in causes:
        yield cause
        nested = (getattr(cause, "reason", None), cause.__context__, *cause.args)
        causes += [inner for inner in nested if isinstance(inner, BaseException) and inner not in causes]
