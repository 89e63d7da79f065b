"""Where Redis is: as the configuration says, or as Sentinels or the nodes of a cluster say; and connections to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

if TYPE_CHECKING:
    from proxy.settings import CountersSettings

#: All keys have this in common, so that they lie in one slot of a cluster: a script may use no others.
TAG = b"{lockgate}:"
#: How long a step of connecting may take; no exchange waits for that.
CONNECT_S = 0.25
#: Less than this is not waited for an operation of a socket: what has arrived is read.
SHORTEST_S = 0.001


class Timed:
    """A socket, whose operations end at `until` on the monotonic clock however often it hears a little; 0: as set."""

    def __init__(self, socket: Any) -> None:
        self.until = 0.0
        self._socket = socket

    def __getattr__(self, name: str) -> Any:
        if self.until:
            self._socket.settimeout(max(SHORTEST_S, self.until - time.monotonic()))
        return getattr(self._socket, name)


class Link(redis.Connection):
    """A connection whose commands have an end. `generation` is for who keeps it."""

    generation = 0
    _timed: Timed

    def ask(self, until: float, command: Sequence[Any]) -> Any:
        """Send a command and return its answer, until `until`; raises `RedisError` and `OSError`."""
        self._timed.until = until
        self.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
        answer = self.read_response()
        self._timed.until = 0.0
        return answer

    @property
    def open(self) -> bool:
        """Whether the server has neither closed it nor said anything that nobody asked for."""
        self._timed.until = 0.0
        try:
            return not self.can_read(0)
        except (redis.RedisError, OSError):
            return False

    def _connect(self) -> Any:
        self._timed = Timed(super()._connect())  # type: ignore[no-untyped-call]
        return self._timed


class SecureLink(Link, redis.SSLConnection):
    """The same with TLS."""


class Place:
    """The Redis that `settings` mean. It is for one thread."""

    def __init__(self, settings: CountersSettings) -> None:
        self._settings = settings
        self._url = settings.url.reveal() if settings.url else "redis://127.0.0.1:6379/0"
        self._options: dict[str, Any] = {
            "socket_timeout": CONNECT_S,
            "socket_connect_timeout": CONNECT_S,
            "socket_keepalive": True,
            # By itself the client tries ten times.
            "retry": Retry(NoBackoff(), 0),
            # Two more round trips a connection, for the server's listing.
            "protocol": 2,
            "driver_info": None,
        }
        secure = self._url.startswith("rediss://")
        if secure and settings.ca_file is not None:
            self._options["ssl_ca_certs"] = str(settings.ca_file)
        self._kind = SecureLink if secure else Link
        own: dict[str, Any] = parse_url(self._url)  # type: ignore[no-untyped-call]
        self._own = {name: value for name, value in own.items() if name != "connection_class"}
        self._address: dict[str, Any] | None = None
        self._sentinels: Any = None
        self._cluster: Any = None

    def connect(self) -> Link:
        """Return a new connection that can be used at once; it may take seconds. Raises what the library raises."""
        if self._address is None:
            self._address = self._found()
        link = self._kind(**{**self._options, **self._own, **self._address})
        link.connect()  # type: ignore[no-untyped-call]
        return link

    def forget(self) -> None:
        """Ask again where it is, next time."""
        self._address = None

    def close(self) -> None:
        """Leave those who were asked."""
        for client in self._sentinels.sentinels if self._sentinels else ():
            client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _found(self) -> dict[str, Any]:
        if self._settings.cluster:
            from redis.cluster import RedisCluster

            if self._cluster is None:
                self._cluster = RedisCluster.from_url(self._url, **self._options)
            else:
                self._cluster.nodes_manager.initialize()
            node = self._cluster.get_node_from_key(TAG)
            return {"host": node.host, "port": node.port}
        if not self._settings.sentinels:
            return {}
        if self._sentinels is None:
            self._sentinels = self._asked()
        # It asks first who answered last, so that those who are dead cost time only once.
        host, port = self._sentinels.discover_master(self._settings.master)
        return {"host": host, "port": port}

    def _asked(self) -> Any:
        from redis.sentinel import Sentinel

        known = self._options | ({"ssl": True} if self._kind is SecureLink else {})
        if self._settings.sentinel_password is not None:
            known["password"] = self._settings.sentinel_password.reveal()
        pairs = (entry.rpartition(":") for entry in self._settings.sentinels)
        hosts = [(host, int(port)) for host, _, port in pairs]
        return Sentinel(hosts, sentinel_kwargs=known)  # type: ignore[no-untyped-call]
