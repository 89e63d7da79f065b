"""Addresses to listen on: `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`."""

from __future__ import annotations

import ipaddress

#: The longest path of a socket that Linux takes, in bytes (sun_path of sockaddr_un, with its final NUL).
LONGEST_SOCKET_PATH = 107


def parse(bind: str) -> tuple[str, int] | str:
    """Return host and port, or the path of a unix socket.

    Raises `ValueError`, with a text for the operator, for anything that cannot be listened on.
    """
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:")
        if not path or "\0" in path or len(path.encode()) > LONGEST_SOCKET_PATH:
            raise ValueError(f'must be "unix:/PATH" with a path of at most {LONGEST_SOCKET_PATH} bytes')
        return path
    host, colon, port = bind.rpartition(":")
    if not colon or not host:
        raise ValueError('must be "HOST:PORT" or "unix:/PATH", e.g. "127.0.0.1:8080"')
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} is not a port: it must be a number up to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host and "/" not in host:
        raise ValueError(f'an IPv6 address is written in brackets: "[{host}]:{port}"')
    if any(character.isspace() or character in "/@" for character in host):
        raise ValueError(f"{host!r} is not a host")
    return host, int(port)


def is_loopback(address: object) -> bool:
    """Say whether an address, as gunicorn or `parse` gives it, is reached from this machine alone.

    A unix socket is not: whatever may open it, usually nginx, hands on requests of others.
    """
    if not isinstance(address, tuple):
        return False
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return bool(address[0] == "localhost")
