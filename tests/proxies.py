"""A real egress proxy on loopback: it forwards, tunnels, refuses, drops and hangs, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Asked:
    """One request's head as it came to the proxy. `headers` has lower-case names."""

    method: str
    target: str
    headers: dict[str, str]


class Proxy:
    """Listens from its making until the end of its `with` block.

    `auth` is the `Proxy-Authorization` that it demands. `then` is what it does with who may pass: "tunnel" (and forward
    plain HTTP), "drop" after its 200, "hang", "refuse" with a 403. Names ending in `.test` are of this machine.
    """

    def __init__(self, auth: str | None = None, then: str = "tunnel") -> None:
        self.auth = auth
        self.then = then
        self.asked: list[Asked] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._stopped = True
            for sock in [self._listener, *self._open]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if not self._keep(client):
                return
            while (head := _head(client)) is not None:
                line, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = line.split(" ")
                fields = (line.partition(":") for line in lines)
                asked = Asked(method, target, {name.lower(): value.strip() for name, _, value in fields})
                self.asked.append(asked)
                if self.auth is not None and asked.headers.get("proxy-authorization") != self.auth:
                    client.sendall(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
                    return
                if self.then == "hang":
                    client.recv(1)
                    return
                if self.then == "refuse":
                    client.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
                    return
                if method != "CONNECT":
                    self._forward(client, asked)
                    return
                client.sendall(b"HTTP/1.1 200 Tunnel\r\n\r\n")
                if self.then == "tunnel":
                    self._tunnel(client, target)
                return

    def _forward(self, client: socket.socket, asked: Asked) -> None:
        parts = urlsplit(asked.target)
        headers = {name: value for name, value in asked.headers.items() if not name.startswith("proxy-")}
        lines = [f"{asked.method} {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self._tunnel(client, parts.netloc, "\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _tunnel(self, client: socket.socket, target: str, first: bytes = b"") -> None:
        host, _, port = target.rpartition(":")
        with socket.create_connection(("127.0.0.1" if host.endswith(".test") else host, int(port))) as server:
            if not self._keep(server):
                return
            server.sendall(first)
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (server if source is client else client).sendall(data)

    def _keep(self, sock: socket.socket) -> bool:
        with self._lock:
            self._open.append(sock)
            return not self._stopped


def _head(client: socket.socket) -> bytes | None:
    """Read up to the empty line and no further: what follows is the other end's."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            return None
        head += byte
    return head[:-4]
