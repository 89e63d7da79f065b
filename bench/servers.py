"""Compiles the C programs, and starts and ends the upstream, the gateway and the bare relay on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {"threads": "proxy.worker.ThreadWorker", "gevent": "proxy.worker_gevent.GeventWorker"}
"""Both relays' worker class for each value of `[server] worker`."""

IDLE_S = 600
"""Longer than any silence in a scenario."""

BARE = """\
bind = "127.0.0.1:{port}"
worker_class = "{worker}"
worker_tmp_dir = "/dev/shm"
workers = 1
threads = {threads}
worker_connections = {connections}
keepalive = 75
control_socket_disable = True
wsgi_app = "bench.bare:create_app()"
"""

GATEWAY = """\
chain = ["keys"]

[server]
bind = "127.0.0.1:{port}"
state = "{state}"
worker = "{worker}"
workers = 1
threads = {threads}

[ledger]
ship = false  # another process, whose cost for each record `bench/ledger.py` tells

[plugins.keys]
use = "api_keys"

[providers.up]
use = "openai"
base_url = "{upstream}"
api_key = {{ env = "BENCH_KEY" }}
breaker = {{ failures = 0 }}
pool_size = {threads}
timeouts = {{ idle = {idle}, total = {idle} }}

[models."mock*"]
targets = ["up"]

[models."clock*"]
targets = ["up"]

[models.late]
targets = ["up"]
timeouts = {{ first_byte = 0.2 }}
"""


class Unmeasured(Exception):
    """A scenario could not be measured; the text says why."""


@dataclass(slots=True)
class Server:
    """A gunicorn that was started here. `started` is on the monotonic clock."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    key: str
    folder: Path
    started: float = field(default_factory=time.monotonic)

    def tail(self) -> str:
        """Return the end of its log, for an error message."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()[-20:]
        return "".join(f"\n    {line}" for line in lines)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def compile_programs(folder: Path) -> None:
    """Compile `upstream` and `load` into `folder`; raises `Unmeasured` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unmeasured("there is no C compiler: install one called cc, gcc or clang (Debian: gcc, libc6-dev)")
    for name in "upstream", "load":
        source = Path(__file__).with_name(f"{name}.c")
        subprocess.run([compiler, "-O2", "-o", folder / name, source, "-lm"], check=True)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process that was started here and the children in its group."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own, so the group is its own too
        process.wait()


class Lab:
    """A temporary folder with the compiled programs, a running upstream, and a gateway's state with one key.

    With `control` the gateway's place is taken by a second bare relay: what then differs is the machine's noise.
    """

    def __init__(self, folder: Path, control: bool) -> None:
        self.folder = folder
        self.control = control
        self.key = ""
        self.starts = 0
        compile_programs(folder)
        self.load = folder / "load"
        self.port = free_port()
        self.upstream = subprocess.Popen([folder / "upstream", str(self.port)], start_new_session=True)

    def close(self) -> None:
        """End the upstream."""
        stop(self.upstream)

    @contextmanager
    def server(
        self, side: str, worker: str, threads: int = 100, ready: bool = True, port: int | None = None
    ) -> Iterator[Server]:
        """Run the `gateway` or the `bare` relay for the length of a block; `ready`: once it serves.

        `port` is that of another upstream than the lab's own.
        """
        self.starts += 1
        folder = self.folder / f"{self.starts}-{side}"
        folder.mkdir()
        behind, port = port or self.port, free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        environment |= {
            "PYTHONPATH": str(ROOT),
            "LOCKGATE_CONFIG": str(folder / "lockgate.toml"),
            "BENCH_KEY": "sk-upstream",
            "BENCH_UPSTREAM": f"http://127.0.0.1:{behind}/v1",
            "BENCH_POOL": str(threads),
        }
        if side == "gateway" and not self.control:
            settings = ROOT / "gunicorn.conf.py"
            state = self.folder / "state"
            upstream = environment["BENCH_UPSTREAM"]
            (folder / "lockgate.toml").write_text(
                GATEWAY.format(port=port, state=state, worker=worker, threads=threads, upstream=upstream, idle=IDLE_S)
            )
            self.key = self.key or make_key(folder, environment)
        else:
            settings = folder / "bare.conf.py"
            kind = CLASSES[worker]
            settings.write_text(BARE.format(port=port, worker=kind, threads=threads, connections=threads + 100))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", str(settings)],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(side, process, port, self.key or "none", folder)
        try:
            if ready:
                wait_until_healthy(server)
            yield server
        finally:
            stop(process)


NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 127.0.0.1:{front};
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@contextmanager
def nginx(server: Server) -> Iterator[int]:
    """Run nginx before a server, with the shipped file's way of relaying, and yield its port."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Unmeasured("there is no nginx: install it (Debian: nginx)")
    front, config = free_port(), server.folder / "nginx.conf"
    config.write_text(NGINX.format(folder=server.folder, front=front, port=server.port))
    command = [program, "-c", str(config), "-e", str(server.folder / "nginx.log")]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_until_healthy(Server("nginx", process, front, server.key, server.folder))
        yield front
    finally:
        stop(process)


def make_key(folder: Path, environment: dict[str, str]) -> str:
    """Return a new API key, made as an operator makes one."""
    lockgate = "from proxy.cli import main; main()"  # the command itself is there only once Lockgate is installed
    command = [sys.executable, "-c", lockgate, "keys", "create", "--name", "bench", "--json"]
    made = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    if made.returncode:
        raise Unmeasured(f"no key could be made: {made.stdout}{made.stderr}")
    key: str = json.loads(made.stdout)["key"]
    return key


def wait_until_healthy(server: Server, limit_s: float = 30.0) -> None:
    """Wait until `/healthz` answers 200."""
    while server.process.poll() is None and time.monotonic() - server.started < limit_s:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
    raise Unmeasured(f"{server.name}: does not serve{server.tail()}")
