"""Fetching what callers name by URL: from allowed hosts at public addresses, so many bytes, in so much time."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.exceptions import NewConnectionError

from proxy.errors import Reject, UpstreamError
from proxy.providers.base import Outgoing
from proxy.settings import Timeouts
from proxy.upstreams import adapter
from proxy.upstreams.adapter import Adapter
from proxy.upstreams.bypass import bypasses
from proxy.upstreams.upstream import Upstream

if TYPE_CHECKING:
    from proxy.gateway import Gateway

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_PORTS = {"http": 80, "https": 443}
#: IPv6 networks whose addresses hold an IPv4 address, and where: NAT64 (RFC 6052), 6to4 (RFC 3056). `ipaddress` takes
#: them for public whatever is inside.
_EMBEDDING = ((ipaddress.IPv6Network("64:ff9b::/96"), 0), (ipaddress.IPv6Network("2002::/16"), 80))
#: What else it takes for public and is not: NAT64 of one's own (RFC 8215), Teredo, IETF protocol assignments.
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "2001::/32", "192.0.0.0/24")))


def public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet: not private, local, reserved or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped
        for network, shift in _EMBEDDING:
            if ip in network:
                inner = ipaddress.IPv4Address((int(ip) >> shift) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


class Fetcher:
    """Fetches from hosts that the operator allows, through the configured egress; redirects are not followed.

    `hosts` are names, `*.domains` or `*`, with a port where it is not the scheme's own. Every address of a name must be
    public, or in one of `networks`; it is the checked address that is connected to. Where an egress proxy is used, the
    proxy looks names up, and has the last word. Shared by threads; make it in `on_start`.
    """

    def __init__(
        self, gateway: Gateway, hosts: Sequence[str], networks: Sequence[str], max_bytes: int, timeout_s: float
    ) -> None:
        self._guardian = gateway.guardian
        self._hosts = [host.lower() for host in hosts]
        self._most = max_bytes
        self._timeouts = Timeouts(connect=timeout_s, first_byte=timeout_s, idle=timeout_s, total=timeout_s)
        # Whoever answers is not shown the gateway's own certificate.
        connection = replace(gateway.settings.egress, client_cert=None, client_key=None, max_answer_bytes=max_bytes + 1)
        self._upstream = Upstream("fetch", connection, _checking(networks))

    def fetch(self, urls: Iterable[tuple[str, str]]) -> list[bytes]:
        """Return what stands at each of the URLs, within the bytes and the time that there are for all together.

        Each URL comes with its place in the request. Raises `Reject` (400 `invalid_image_url`) that names the place.
        """
        call = self._guardian.watch(None)
        found: list[bytes] = []
        left = self._most
        with closing(call):
            for url, path in urls:
                outgoing = Outgoing(self._checked(url, path), b"", {"Accept": "image/*"}, "GET")
                try:
                    with closing(self._upstream.send(call, outgoing, self._timeouts)) as answer:
                        status = answer.status
                        data = answer.read_all(left + 1) if status == 200 else b""
                except UpstreamError as error:
                    raise refused(path, f"The image could not be fetched ({error.code}).") from None
                if status != 200:
                    raise refused(path, f"The image could not be fetched (status {status}).")
                left -= len(data)
                if left < 0:
                    raise refused(path, "The images of the request are too large.")
                found.append(data)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._upstream.close()

    def _checked(self, url: str, path: str) -> str:
        """Return a URL put together again from its checked parts; raise `Reject` for one that is not allowed."""
        try:
            if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]{1,4096}", url):
                raise ValueError
            parts = urlsplit(url)
            host, usual = (parts.hostname or "").rstrip("."), _PORTS[parts.scheme]
            port = parts.port or usual
            if not _HOST.fullmatch(host) or "@" in parts.netloc:
                raise ValueError
        except (ValueError, KeyError):
            raise refused(path, "This is no URL that an image can be fetched from.") from None
        if not any(_allows(entry, host, port, usual) for entry in self._hosts):
            raise refused(path, f"Images are not fetched from '{host}' here; send the data as a 'data:' URL.")
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.scheme}://{host}:{port}{parts.path or '/'}{query}"


def refused(path: str, message: str) -> Reject:
    """Return what an image is answered with that is not fetched; `path` is its place in the request."""
    return Reject(400, "invalid_image_url", message, param=path)


def _allows(entry: str, host: str, port: int, usual: int) -> bool:
    name, _, own = entry.partition(":")
    if port != int(own or usual):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


def _checking(networks: Sequence[str]) -> type[Adapter]:
    """Return the adapter whose connections go to public addresses, or into these networks, and nowhere else."""

    class Checked:
        def _new_conn(self) -> Any:
            conn: Any = self
            name = conn._dns_host
            # What is connected to is what was checked: a second look-up might find another address.
            conn._dns_host = _address(conn, name, networks)
            try:
                return super()._new_conn()  # type: ignore[misc]
            finally:
                conn._dns_host = name

    class Plain(Checked, adapter._HTTPConnection):
        pass

    class Tls(Checked, adapter._HTTPSConnection):
        pass

    class PlainPool(adapter._HTTPPool):
        ConnectionCls = Plain

    class TlsPool(adapter._HTTPSPool):
        ConnectionCls = Tls

    class Checking(Adapter):
        def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
            super().init_poolmanager(connections, maxsize, block, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    return Checking


def _address(conn: Any, name: str, networks: Sequence[str]) -> str:
    """Return the first address of a name; raise where one of them is not to be connected to, or there is none."""
    try:
        found = socket.getaddrinfo(name, conn.port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise NewConnectionError(conn, "the name has no address") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(public(each) or bypasses(each, networks) for each in addresses):
        raise NewConnectionError(conn, "the address is not public")
    return addresses[0]
