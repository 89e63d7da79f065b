"""The real nginx with the file that is shipped, in front of a real gateway on a unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openai
import trustme
from crowds import until
from gateways import REPOSITORY, Gateway, free_port
from wire import PATIENCE_S, Wire

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONFIG = (REPOSITORY / "deploy" / "nginx.conf").read_text()
SOCKET = "unix:/run/lockgate/lockgate.sock"


class Behind(Gateway):
    """A gateway that listens where nginx finds it, and believes it."""

    def __init__(self, folder: Path, toml: str, *, server: dict[str, Any] | None = None, **options: Any) -> None:
        self.path = str(folder / "lg.sock")
        assert len(self.path) < 100, "the path of a socket is short"
        super().__init__(
            folder, toml, server={"bind": f"unix:{self.path}", "proxied": True, **(server or {})}, **options
        )

    def wire(self) -> Wire:
        """Open a connection of bare bytes to the socket, as nginx does."""
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(PATIENCE_S)
        try:
            plain.connect(self.path)
        except OSError:
            plain.close()
            raise
        return Wired(plain, self.key)


class Wired(Wire):
    """Bare bytes over a socket that is connected."""

    def __init__(self, connected: socket.socket, key: str) -> None:
        self.key = key
        self.socket = connected
        self._buffer = b""


class Nginx:
    """nginx from its making until `stop()`, with `deploy/nginx.conf`: other paths, port and certificate, and `edits`.

    `edits` are what an operator would change: pairs of what is in the file, and what stands there instead.
    """

    def __init__(self, folder: Path, path: str, key: str = "", edits: Iterable[tuple[str, str]] = ()) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.key = key
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(folder / "chain.pem"), append=True)
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        self.trust = ssl.create_default_context(cafile=str(self.ca))
        self.error_log = folder / "error.log"
        self.config = folder / "nginx.conf"
        # Only root may say who nginx is, and tests have folders that are root's alone.
        user = "user root;" if os.geteuid() == 0 else ""
        self.config.write_text(
            edited(
                ("user www-data;", user),
                ("worker_processes auto;", "worker_processes 1;"),
                ("/run/nginx.pid", str(folder / "nginx.pid")),
                ("/var/log/nginx/error.log", str(self.error_log)),
                ("/var/log/nginx/lockgate.log", str(folder / "access.log")),
                ("/var/lib/nginx/body", str(folder / "body")),
                ("/etc/lockgate/tls/chain.pem", str(folder / "chain.pem")),
                ("/etc/lockgate/tls/key.pem", str(folder / "key.pem")),
                ("listen 443 ", f"listen 127.0.0.1:{self.port} "),
                (SOCKET, f"unix:{path}"),
                *edits,
            )
        )
        self._command = [str(NGINX), "-p", str(folder), "-c", str(self.config), "-e", str(self.error_log)]
        self._process = subprocess.Popen([*self._command, "-g", "daemon off;"], stdin=subprocess.DEVNULL)
        try:
            until(self._answers)
        except BaseException:
            self.stop()
            raise

    def wire(self) -> Wire:
        """Open a connection of bare bytes, within TLS."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return Wired(self.trust.wrap_socket(plain, server_hostname="localhost"), self.key)
        except OSError:
            plain.close()
            raise

    def client(self) -> openai.OpenAI:
        """Return the official client, which does not try again; close it after use."""
        http = openai.DefaultHttpxClient(verify=self.trust)
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=PATIENCE_S, http_client=http
        )

    def curl(self, body: str, *options: str) -> subprocess.Popen[bytes]:
        """Start curl on a chat completion; what it prints comes as it arrives."""
        headers = ["-H", f"Authorization: Bearer {self.key}", "-H", "Content-Type: application/json"]
        command = ["curl", "-sSN", "--cacert", str(self.ca), *headers, *options, "-d", body]
        return subprocess.Popen(
            [*command, f"{self.url}/v1/chat/completions"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )

    def workers(self) -> set[int]:
        """Return the worker processes of this moment, those that only finish their streams included."""
        pid = self._process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def reload(self) -> None:
        """Have the file read anew, and wait until new workers take the new connections."""
        old = self.workers()
        subprocess.run([*self._command, "-s", "reload"], check=True)
        until(lambda: self.workers() - old and all(_leaves(pid) for pid in old))

    def said(self) -> str:
        """Return the error log so far."""
        return self.error_log.read_text(errors="replace") if self.error_log.exists() else ""

    def stop(self) -> None:
        """End nginx, and what it has open."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"nginx ended: {self.said()}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)
        with contextlib.suppress(OSError, EOFError), self.wire() as wire:
            return wire.get("/.lockgate/error").status == 404
        return False


def _leaves(pid: int) -> bool:
    """Whether a worker takes no more connections; it says so in its name, which is where `ps` finds it."""
    try:
        return b"shutting down" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def edited(*edits: tuple[str, str]) -> str:
    """Return the shipped file with some texts replaced, each of which must be in it."""
    text = CONFIG
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text
