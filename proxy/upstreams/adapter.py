"""Connections to upstreams: pooled, guarded, through the configured proxy, with one TLS context for all."""

from __future__ import annotations

import contextvars
import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.utils import urldefragauth
from urllib3 import exceptions as u3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager
from urllib3.util.url import parse_url

from proxy import forks, sockets
from proxy.call import Call
from proxy.settings import Connection
from proxy.upstreams.bypass import bypasses
from proxy.upstreams.heads import Inlet

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
    """A connection whose sockets are known to the guardian from before they connect. `call` is what it serves."""

    idle_since = 0.0
    call: Call | None = None
    inlet: Inlet
    pool: Any

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (ConnectionError, ssl.SSLEOFError) as error:
            if self._tunnel_host is None:  # type: ignore[attr-defined]
                raise
            raise u3.ProxyError("the tunnel was cut", error) from error

    def release(self) -> None:
        """Take the connection back from its call, whose answer has been read to its end."""
        if self.call is not None:
            self.call.detach()
            self.call = None
        self.pool._put_conn(self)

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


def _holds(sock: Any) -> bool:
    """Tell whether TLS has taken bytes off a socket that nobody has read: urllib3 asks the socket alone."""
    pending = getattr(sock, "pending", None)
    if pending is not None:
        return bool(pending())
    # TLS within a proxy's TLS is no socket, but has one.
    outer = getattr(sock, "socket", None)
    return outer is not None and bool(sock.sslobj.pending() or sock.incoming.pending or outer.pending())


class _Fresh:
    """A pool that hands out no connection that was idle for long, or has received what nobody asked for."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        if conn.sock is not None and (time.monotonic() - conn.idle_since > IDLE_S or _holds(conn.sock)):
            conn.close()
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


class _HTTPPool(_Fresh, HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_Fresh, HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: the pool of its connections, and what they say of it.

    `host` is the value of their `Host`. To a proxy that does not tunnel they say `absolute` before their path, and
    `headers` (lines) for the proxy itself.
    """

    pool: Any
    host: str
    tunnelled: bool = False
    absolute: str = ""
    headers: tuple[str, ...] = ()


class Adapter(HTTPAdapter):
    """requests' adapter with one TLS context, one proxy and guarded connections; for any session, or for `lend`.

    `requests` alone would parse the CA bundle again for each new connection: 17.6 ms against 1.2 ms.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context: ssl.SSLContext | None = None
        self._inherited: Any = None
        super().__init__(pool_connections=POOLS, pool_maxsize=connection.pool_size)

    def origin(self, url: str) -> Origin:
        """Return what requests to a URL need to know of its scheme, host and port."""
        if self._process is not forks.process:
            # A fork: the connections and whatever locks were held belong to the parent, and stay untouched for that.
            self._inherited = (self._inherited, self._origins, self.poolmanager, self._proxied)
            self.init_poolmanager(POOLS, self._connection.pool_size)
        end = url.find("/", 8)
        base = url if end == -1 else url[:end]
        return self._origins.get(base) or self._new_origin(base)

    def lend(self, call: Call, origin: Origin, connect_s: float, new: bool = False) -> Any:
        """Return a connection for one request of `call`, its socket known to the guardian; `new`: not a pooled one.

        Whoever reads the answer to its end gives it back with `release`, and closes it otherwise. Raises urllib3's
        `HTTPError` and `OSError`.
        """
        conn = origin.pool._new_conn() if new else origin.pool._get_conn()
        conn.call = call
        if conn.sock is None:
            self._connect(conn, origin, connect_s)
        else:
            conn.inlet.reused = True
            # TLS within a proxy's TLS is no socket, but has one.
            call.attach(getattr(conn.sock, "socket", conn.sock))
        call.connected()
        return conn

    def _connect(self, conn: Any, origin: Origin, connect_s: float) -> None:
        conn.pool = origin.pool
        conn.timeout = connect_s + GRACE_S
        token = _current.set(conn.call)
        try:
            if origin.tunnelled:
                origin.pool._prepare_proxy(conn)
            else:
                conn.connect()
            # From now on the guardian's deadlines are the call's only ones.
            conn.sock.settimeout(None)
        except (OSError, u3.HTTPError) as error:
            short_of_proxy = conn.proxy is not None and not conn.has_connected_to_proxy
            conn.close()
            if short_of_proxy:
                raise u3.ProxyError("the proxy was not reached", error) from error
            raise
        finally:
            _current.reset(token)
        conn.inlet = Inlet(conn.sock)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        """Make the pool managers; `requests` calls it."""
        self._process = forks.process
        self._lock = threading.Lock()
        self._origins: dict[str, Origin] = {}
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

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for the request's origin; the TLS settings are the adapter's own."""
        return self.origin(str(request.url)).pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the pool's TLS context alone."""

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return the request target: absolute for plain HTTP through a proxy."""
        url = str(request.url)
        return str(urldefragauth(url)) if self.origin(url).absolute else request.path_url

    def close(self) -> None:
        """Close the pooled connections."""
        for origin in list(self._origins.values()):
            origin.pool.close()
        self._origins.clear()
        self.poolmanager.clear()
        if self._proxied is not None:
            self._proxied.clear()

    def _new_origin(self, base: str) -> Origin:
        parts = parse_url(base)
        scheme, host, port = parts.scheme or "", parts.host or "", parts.port
        bare = host.strip("[]")
        proxied = self._proxied is not None and not bypasses(bare, self._connection.no_proxy)
        manager: Any = self._proxied if proxied else self.poolmanager
        with self._lock:
            extra = {"ssl_context": self._tls()} if scheme == "https" else {}
            if len(self._origins) >= POOLS:
                self._origins.clear()
            pool = manager.connection_from_host(bare, port=port, scheme=scheme, pool_kwargs=extra)
            usual = (_HTTPSConnection if scheme == "https" else _HTTPConnection).default_port
            said = host.rstrip(".")  # which is for DNS alone
            if port not in (None, usual):
                said = f"{said}:{port}"
            if not proxied:
                origin = Origin(pool, said)
            elif scheme == "https":
                origin = Origin(pool, said, tunnelled=True)
            else:
                own = tuple(f"{name}: {value}" for name, value in manager.proxy_headers.items())
                origin = Origin(pool, said, absolute=f"{scheme}://{said}", headers=own)
            self._origins[base] = origin
        return origin

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            own = self._connection
            try:
                self._context = sockets.tls_context(own.ca_file, own.client_cert, own.client_key, _announce)
            except OSError as error:
                raise u3.SSLError(error) from error
        return self._context
