"""Connections to upstreams: pooled, guarded, through the configured proxy, with one TLS context for all."""

from __future__ import annotations

import contextvars
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import urldefragauth
from urllib3 import exceptions as u3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

from proxy import sockets
from proxy.guardian import Call
from proxy.settings import Connection
from proxy.upstreams.framing import Response, Silent

# A context variable and not a thread-local: right for threads and for greenlets, whatever was patched when.
_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)

#: A pooled connection idle for longer is dropped before use: most servers close theirs after 60 s or more.
IDLE_S = 30.0
#: How much later than the guardian a socket's own time-out is: a shutdown just before `connect` is lost.
GRACE_S = 1.0
#: How many origins one adapter keeps connections to.
POOLS = 16


def _announce(sock: sockets.GuardedSocket) -> None:
    call = _current.get()
    if call is not None:
        call.attach(sock)
        if call.why is not None:
            # A socket that is not connected yet does not remember that it was shut down.
            raise ConnectionAbortedError("the call was given up")


class _Guarded:
    """A connection whose sockets are known to the guardian from before they connect."""

    response_class: Any = Response
    idle_since = 0.0
    reused = False
    call: Call | None = None
    _parts: list[bytes] | None = None

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (ConnectionError, ssl.SSLEOFError) as error:
            if self._tunnel_host is None:  # type: ignore[attr-defined]
                raise
            raise u3.ProxyError("the tunnel was cut", error) from error
        if self.call is not None:
            self.sock.settimeout(None)  # type: ignore[attr-defined]
            self.call.connected()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send head and body of a guarded call at once: `http.client` makes two packets of them."""
        if self.call is None:
            super().request(*args, **kwargs)  # type: ignore[misc]
            return
        parts: list[bytes] = []
        self._parts = parts
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._parts = None
        self.send(b"".join(parts))

    def putheader(self, header: Any, *values: Any) -> None:
        # What `http.client` checks by two patterns for each header, one test tells: nothing in it ends the line.
        # Its own `Host` is bytes where the port is the scheme's, or the target is absolute.
        if self._parts is not None and len(values) == 1 and isinstance(values[0], str):
            line = f"{header}: {values[0]}"
            if line.isascii() and line.isprintable():
                self._buffer.append(line.encode())  # type: ignore[attr-defined]
                return
        super().putheader(header, *values)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._parts is not None:
            self._parts.append(data)
        else:
            super().send(data)  # type: ignore[misc]

    @property
    def timeout(self) -> float | None:
        # A call's deadlines are the guardian's, once there is a connection: setting a socket's costs system calls.
        return None if self.call is not None and self.sock is not None else self._timeout  # type: ignore[attr-defined]

    @timeout.setter
    def timeout(self, timeout_s: float | None) -> None:
        self._timeout = timeout_s

    def getresponse(self) -> Any:
        try:
            return super().getresponse()  # type: ignore[misc]
        except Silent as error:
            error.reused = self.reused
            raise

    def _tunnel(self) -> None:
        try:
            super()._tunnel()  # type: ignore[misc]
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise u3.ProxyError("the tunnel was refused", error) from error

    def _new_conn(self) -> Any:
        conn: Any = self
        try:
            return sockets.connect(conn._dns_host, conn.port, conn.socket_options, conn.timeout, _announce)
        except (socket.gaierror, UnicodeError) as error:
            raise u3.NameResolutionError(conn.host, conn, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise u3.ConnectTimeoutError(conn, "connect timed out") from error
        except OSError as error:
            raise u3.NewConnectionError(conn, "connect failed") from error


class _HTTPConnection(_Guarded, HTTPConnection):
    pass


class _HTTPSConnection(_Guarded, HTTPSConnection):
    pass


class _Lent:
    """A pool that tells the guardian which connection serves which call."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        conn.call = call = _current.get()
        conn.reused = False
        if conn.sock is not None:
            # Bytes that TLS has decrypted already do not make the socket readable: urllib3 overlooks them.
            pending = getattr(conn.sock, "pending", None)
            if time.monotonic() - conn.idle_since > IDLE_S or (pending is not None and pending()):
                conn.close()
            else:
                conn.reused = True
                if call is not None:
                    # TLS within a proxy's TLS is no socket, but has one.
                    call.attach(getattr(conn.sock, "socket", conn.sock))
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
    """requests' adapter with one TLS context, one proxy and guarded connections; for any session, or for `guarded`.

    `requests` alone would parse the CA bundle again for each new connection: 17.6 ms against 1.2 ms.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context: ssl.SSLContext | None = None
        self._inherited: Any = None
        super().__init__(pool_connections=POOLS, pool_maxsize=connection.pool_size)

    def guarded(self, call: Call, request: PreparedRequest, connect_s: float) -> Any:
        """Send a request under the eyes of the call's guardian and return urllib3's response, its body unread.

        Raises what `send` raises.
        """
        token = _current.set(call)
        try:
            return self.send(request, stream=True, timeout=(connect_s + GRACE_S, None))
        finally:
            _current.reset(token)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """Make the pool managers; `requests` calls it."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pools: dict[str, Any] = {}
        self._proxied: ProxyManager | None = None
        common: dict[str, Any] = {"num_pools": connections, "maxsize": maxsize, "block": block}
        self.poolmanager = PoolManager(**common)
        proxy = self._connection.proxy
        if proxy is not None:
            context = self._tls() if proxy.startswith("https:") else None
            headers = self.proxy_headers(proxy)
            self._proxied = ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=context, **common)
        for manager in (self.poolmanager, self._proxied):
            if manager is not None:
                manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def build_response(self, req: PreparedRequest, resp: Any) -> Any:
        """Return a guarded call's response as it is; a session's gets requests' cookies and wrapping."""
        return super().build_response(req, resp) if _current.get() is None else resp

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for the request's origin; the TLS settings are the adapter's own."""
        if self._pid != os.getpid():
            # A fork: the connections and whatever locks were held belong to the parent, and stay untouched for that.
            self._inherited = (self._inherited, self._pools, self.poolmanager, self._proxied)
            self.init_poolmanager(POOLS, self._connection.pool_size)
        origin = _origin(str(request.url))
        return self._pools.get(origin) or self._pool(origin)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the pool's TLS context alone."""

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return the request target: absolute for plain HTTP through a proxy."""
        if self._proxied is not None and str(request.url).startswith("http:"):
            if self.get_connection_with_tls_context(request, None).proxy is not None:
                return str(urldefragauth(str(request.url)))
        return request.path_url

    def close(self) -> None:
        """Close the pooled connections."""
        for pool in list(self._pools.values()):
            pool.close()
        self._pools.clear()
        self.poolmanager.clear()
        if self._proxied is not None:
            self._proxied.clear()

    def _pool(self, origin: str) -> Any:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        manager = (
            self.poolmanager if self._proxied is None or bypasses(host, self._connection.no_proxy) else self._proxied
        )
        with self._lock:
            extra = {"ssl_context": self._tls()} if parts.scheme == "https" else {}
            if len(self._pools) >= POOLS:
                self._pools.clear()
            pool = manager.connection_from_host(host, port=parts.port, scheme=parts.scheme, pool_kwargs=extra)
            self._pools[origin] = pool
        return pool

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            own = self._connection
            try:
                self._context = sockets.tls_context(own.ca_file, own.client_cert, own.client_key, _announce)
            except OSError as error:
                raise u3.SSLError(error) from error
        return self._context


def _origin(url: str) -> str:
    end = url.find("/", 8)
    return url if end == -1 else url[:end]


def bypasses(host: str, rules: Iterable[str]) -> bool:
    """Return whether a host is reached without the proxy: by name, domain, address, network, or `*`."""
    return any(_matches(host.rstrip(".").lower(), rule.strip("[]").lower()) for rule in rules)


def _matches(host: str, rule: str) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name = rule.removeprefix("*").lstrip(".")
        return host == name or host.endswith("." + name)
