"""The sockets to the upstreams: one adapter per provider and worker, and the answers read from it."""

from __future__ import annotations

import contextvars
import ipaddress
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions as u3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

from proxy import sockets
from proxy.errors import UpstreamError
from proxy.guardian import CLIENT_GONE, Call
from proxy.providers.base import Outgoing
from proxy.settings import Connection, Timeouts

# A context variable and not a thread-local: right for threads and for greenlets, whatever was patched when.
_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)

#: A pooled connection idle for longer is dropped before use: most servers close theirs after 60 s or more.
IDLE_S = 30.0
#: How much is read behind the end of a stream so that its connection can be used again.
DRAIN_BYTES, DRAIN_S = 65536, 0.05


def _announce(sock: sockets.GuardedSocket) -> None:
    call = _current.get()
    if call is not None:
        call.attach(sock)


class _Guarded:
    """A connection whose sockets are known to the guardian from before they connect."""

    idle_since = 0.0
    call: Call | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.call is not None:
            self.call.connected()

    def _new_conn(self) -> Any:
        try:
            host, port, options = self._dns_host, self.port, self.socket_options  # type: ignore[attr-defined]
            return sockets.connect(host, port, options, _announce)
        except socket.gaierror as error:
            raise u3.NameResolutionError(self.host, self, error) from error  # type: ignore[attr-defined,arg-type]
        except OSError as error:
            raise u3.NewConnectionError(self, "connect failed") from error  # type: ignore[arg-type]


class _HTTPConnection(_Guarded, HTTPConnection):
    pass


class _HTTPSConnection(_Guarded, HTTPSConnection):
    pass


class _Lent:
    """A pool that tells the guardian which connection serves which call."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        conn.call = call = _current.get()
        if conn.sock is not None:
            if time.monotonic() - conn.idle_since > IDLE_S:
                conn.close()
            elif call is not None:
                call.attach(conn.sock)
                call.connected()
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            if conn.call is not None:
                conn.call.detach()
                conn.call = None
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


class _HTTPPool(_Lent, HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_Lent, HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Adapter(HTTPAdapter):
    """requests' adapter with one TLS context, one proxy and guarded connections.

    `requests` alone would parse the CA bundle again for each new connection: 17.6 ms against 1.2 ms.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._no_proxy = connection.no_proxy
        self._pools: dict[str, Any] = {}
        self._context: Any = None
        super().__init__(pool_connections=16, pool_maxsize=connection.pool_size)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """Make the pool manager; `requests` calls it."""
        proxy = self._connection.proxy
        common: dict[str, Any] = {"num_pools": connections, "maxsize": maxsize, "block": block}
        self.poolmanager = PoolManager(**common)
        self._proxied = (
            ProxyManager(proxy, proxy_headers=self.proxy_headers(proxy), **common) if proxy is not None else None
        )
        for manager in (self.poolmanager, self._proxied):
            if manager is not None:
                manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for the request's origin; the TLS settings are the adapter's own."""
        origin = _origin(str(request.url))
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = self._pool(origin)
        return pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the pool's TLS context alone."""

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return the request target: absolute for plain HTTP through a proxy."""
        url = str(request.url)
        if self._proxied is not None and url.startswith("http:") and not self._bypasses(url):
            return url
        return request.path_url

    def _pool(self, origin: str) -> Any:
        parts = urlsplit(origin)
        manager = self.poolmanager if self._proxied is None or self._bypasses(origin) else self._proxied
        extra = {}
        if parts.scheme == "https":
            if self._context is None:
                own = self._connection
                self._context = sockets.tls_context(own.ca_file, own.client_cert, own.client_key, _announce)
            extra = {"ssl_context": self._context}
        return manager.connection_from_host(parts.hostname, port=parts.port, scheme=parts.scheme, pool_kwargs=extra)

    def _bypasses(self, url: str) -> bool:
        return any(_matches(urlsplit(url).hostname or "", rule) for rule in self._no_proxy)


def _origin(url: str) -> str:
    end = url.find("/", 8)
    return url if end == -1 else url[:end]


def _matches(host: str, rule: str) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name = rule.lstrip(".").lower()
        return host.lower() == name or host.lower().endswith("." + name)


class Upstream:
    """One provider's way out. Make it after the fork; shared by the threads of a worker."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._adapter = Adapter(connection)
        self._max_bytes = connection.max_answer_bytes

    def send(self, call: Call, outgoing: Outgoing, timeouts: Timeouts) -> Answer:
        """Send one request and return when the status and headers of its answer are there.

        Raises `UpstreamError` with a code of its own for each way in which that can fail.
        """
        request = PreparedRequest()
        request.method, request.url, request.body = outgoing.method, outgoing.url, outgoing.body
        request.headers = CaseInsensitiveDict(
            {
                "User-Agent": "lockgate",
                # A stream that is compressed is a stream that is buffered somewhere.
                "Accept-Encoding": "identity",
                **outgoing.headers,
                "Content-Length": str(len(outgoing.body)),
            }
        )
        request.hooks = {}
        call.arm("connect", timeouts.connect, timeouts.total)
        call.first_byte_s = timeouts.first_byte
        token = _current.set(call)
        call.wait()
        try:
            response = self._adapter.send(request, stream=True, timeout=None)
        except (RequestException, u3.HTTPError, OSError) as error:
            raise _failure(call, error) from None
        finally:
            call.woke()
            _current.reset(token)
        return Answer(call, response.raw, timeouts, self._max_bytes)

    def close(self) -> None:
        """Close the pooled connections."""
        self._adapter.close()


class Answer:
    """What an upstream answers: `status`, `headers` (lower-case names), and a body that is read as it arrives."""

    def __init__(self, call: Call, raw: Any, timeouts: Timeouts, max_bytes: int) -> None:
        self.status: int = raw.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in raw.headers.items()}
        self._call = call
        self._raw = raw
        self._timeouts = timeouts
        self._left = max_bytes
        self._begun = False
        self.ended = False

    def read(self) -> bytes:
        """Return the next bytes of the body as soon as there are any, `b""` at its end.

        Raises `UpstreamError` where the body is cut, late or larger than the provider's `max_answer_bytes`.
        """
        call = self._call
        call.wait()
        try:
            # read1: the only reader that is immediate on chunked, close-delimited and gzip bodies alike.
            chunk: bytes = self._raw.read1(65536, decode_content=True)
        except (u3.HTTPError, OSError) as error:
            raise _failure(call, error) from None
        finally:
            call.woke()
        if call.why is not None:
            raise given_up(call)
        if self._begun:
            call.touch()
        if not chunk:
            self.ended = True
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
        self._call.detach()
        if not self.ended:
            self._raw.close()


def given_up(call: Call) -> UpstreamError:
    """Return what a call that the guardian ended means."""
    if call.why == CLIENT_GONE:
        return UpstreamError(499, CLIENT_GONE, "The client has gone.", fallback=False)
    if call.why == "connect":
        return UpstreamError(
            504, "upstream_connect_timeout", "The upstream could not be connected in time.", same_target=True
        )
    return UpstreamError(504, "upstream_timeout", "The upstream did not answer in time.", fallback=call.why != "total")


#: The causes of a failed connection that have a code of their own, most telling first.
_CAUSES: tuple[tuple[type[BaseException], str, str], ...] = (
    (u3.ProxyError, "upstream_proxy_error", "The egress proxy refused or failed to reach the upstream."),
    (u3.NameResolutionError, "upstream_dns_error", "The upstream's name could not be resolved."),
    (u3.SSLError, "upstream_tls_error", "The TLS connection to the upstream failed."),
    (u3.NewConnectionError, "upstream_unreachable", "The upstream could not be reached."),
)


def _failure(call: Call, error: BaseException) -> UpstreamError:
    """Return what the failure of a connection means, told by the types of its causes and never by its text."""
    if call.why is not None:
        return given_up(call)
    causes: list[BaseException] = [error]
    for cause in causes:
        nested = (getattr(cause, "reason", None), cause.__context__, *cause.args)
        causes += [inner for inner in nested if isinstance(inner, BaseException) and inner not in causes]
    for kind, code, message in _CAUSES:
        if any(isinstance(cause, kind) for cause in causes):
            return UpstreamError(502, code, message, same_target=call.phase == "connect")
    return UpstreamError(502, "upstream_connection_lost", "The connection to the upstream was lost.")
