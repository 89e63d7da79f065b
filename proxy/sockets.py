"""Upstream sockets that the guardian may shut down while another thread reads, writes, wraps or closes them."""

from __future__ import annotations

import _socket
import contextlib
import importlib
import os
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol


class GuardedSocket(Protocol):
    """A socket with `shut`, which is safe at any time and from any thread."""

    def shut(self) -> None:
        """Shut both directions of the transport down; a blocked read or connect returns at once."""


def native(module: str, name: str) -> Any:
    """Return `module.name` as it was before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched(module):
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


class _Guarded:
    """Keeps the descriptor open while it is being shut down: a closed number may already be another exchange's."""

    _guard: Any

    def shut(self) -> None:
        with self._guard:
            if self.fileno() != -1:  # type: ignore[attr-defined]
                with contextlib.suppress(OSError):
                    # Under gevent the real socket is in `_sock`; of a TLS socket only the transport is shut.
                    real: Any = getattr(self, "_sock", self)
                    # The close that follows is a reset: a peer whose window is full would not hear of any other for
                    # a minute.
                    _socket.socket.setsockopt(real, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    _socket.socket.shutdown(real, socket.SHUT_RDWR)

    def _real_close(self, *args: Any, **kwargs: Any) -> None:
        with self._guard:
            super()._real_close(*args, **kwargs)  # type: ignore[misc]


# Made at first use, not at import: gevent must have patched `socket` and `ssl` by then, if it is going to.
@lru_cache(maxsize=1)
def _classes() -> tuple[type, type]:
    new_lock = native("_thread", "allocate_lock")

    class Plain(_Guarded, socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._guard = new_lock()
            super().__init__(*args, **kwargs)

        def settimeout(self, value: float | None) -> None:
            if value != self.gettimeout():  # a system call is saved
                super().settimeout(value)

    class Tls(_Guarded, ssl.SSLSocket):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            self = super().__new__(cls)  # without arguments: gevent's class has no `__new__` that takes them
            self._guard = new_lock()
            return self

        def do_handshake(self, *args: Any, **kwargs: Any) -> None:
            # The plain socket has handed its descriptor to this one: from here on this one must be shut down.
            announce: Callable[[Any], None] | None = getattr(self.context, "announce", None)
            if announce is not None:
                announce(self)
            super().do_handshake(*args, **kwargs)

    return Plain, Tls


def connect(
    host: str, port: int, options: Any, timeout_s: float | None, announce: Callable[[GuardedSocket], None]
) -> Any:
    """Connect to the first address of `host` that accepts, within `timeout_s` each; `None` waits as long as it takes.

    Each socket is announced before it waits; `announce` raises an `OSError` where that is not wanted any more.
    Raises `socket.gaierror` where the name has no address, else the last address's `OSError`.
    """
    error: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = _classes()[0](family, kind, protocol)
        try:
            for option in options or ():
                sock.setsockopt(*option)
            sock.settimeout(timeout_s)
            announce(sock)
            sock.connect(address)
            return sock
        except OSError as failed:
            error = failed
            sock.close()
    raise error or OSError(f"no address for {host}")


def pair() -> tuple[Any, Any]:
    """Return a connected pair of sockets, the first of them guarded: something to wait on that can be shut."""
    left, right = socket.socketpair()
    return _classes()[0](left.family, left.type, left.proto, fileno=left.detach()), right


def tls_context(
    ca_file: Any, client_cert: Any, client_key: Any, announce: Callable[[GuardedSocket], None]
) -> ssl.SSLContext:
    """Return a client context that verifies: against `ca_file` alone where one is given, else as the system does.

    Raises `OSError` (`ssl.SSLError` included) where a file can't be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if ca_file is None and not context.get_ca_certs() and not _has_folder_of_authorities():
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    if client_cert is not None:
        # A password callback: without one OpenSSL would ask on the terminal and hang.
        context.load_cert_chain(client_cert, client_key, password=lambda: b"")
    context.sslsocket_class = _classes()[1]
    context.announce = announce  # type: ignore[attr-defined]
    return context


def _has_folder_of_authorities() -> bool:
    # OpenSSL reads from the system's folder what it needs when it needs it; `get_ca_certs` does not list that.
    folder = ssl.get_default_verify_paths().capath
    return folder is not None and bool(os.listdir(folder))
