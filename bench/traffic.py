"""The requests of the benchmark: the load program's runs, single answers, and streams that are held open."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from bench.servers import Server, Unmeasured

PATH = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json"}
TURNS = [
    {"role": "system", "content": "You help an engineering team. Answer briefly, and say where you know it from."},
    {"role": "user", "content": "Which of our three build servers was slowest last week, and what do we check first?"},
    {"role": "assistant", "content": "The second: its disk was the bottleneck. Look at the artefact cache first."},
    {"role": "user", "content": "Thank you. Write a short note about it to the team, friendly, with one next step."},
]


@dataclass(frozen=True, slots=True)
class Traffic:
    """`model` tells the upstream how to answer (upstream.c); `requests` are shared by `connections`."""

    model: str
    requests: int
    connections: int = 16
    stream: bool = False
    limit_s: float = 120.0


def body(model: str, stream: bool) -> bytes:
    """Return a chat request of a short conversation, about 700 bytes."""
    request: dict[str, Any] = {"model": model, "messages": TURNS, "temperature": 0.2, "max_tokens": 400}
    if stream:
        # Asked for by the client, so that both relays are sent the same events.
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(request).encode()


@contextmanager
def running(load: Path, server: Server, traffic: Traffic) -> Iterator[subprocess.Popen[str]]:
    """Run the load program for the length of a block; `result` reads what it printed."""
    file = server.folder / "request.json"
    file.write_bytes(body(traffic.model, traffic.stream))
    numbers = (traffic.connections, traffic.requests, traffic.limit_s)
    command = [str(load), str(server.port), PATH, *map(str, numbers), str(file), f"Authorization: Bearer {server.key}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def result(process: subprocess.Popen[str], traffic: Traffic, server: Server) -> dict[str, Any]:
    """Wait for a run to end and return its figures; raises `Unmeasured` unless every request went well."""
    printed, _ = process.communicate(timeout=traffic.limit_s + 10)
    figures: dict[str, Any] = json.loads(printed or "{}")
    if figures.get("ok") != traffic.requests:
        raise Unmeasured(f"{server.name}: {traffic.model}: not all requests went well: {printed}{server.tail()}")
    return figures


def send(load: Path, server: Server, traffic: Traffic) -> dict[str, Any]:
    """Send all requests and return the load program's figures."""
    with running(load, server, traffic) as process:
        return result(process, traffic, server)


def answers(server: Server) -> bool:
    """Tell whether a chat request is answered with 200."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("POST", PATH, body("mock", False), {**HEADERS, "Authorization": f"Bearer {server.key}"})
        response = connection.getresponse()
        return bool(response.read()) and response.status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def wait_for_answer(server: Server, limit_s: float = 30.0) -> float:
    """Return the seconds from the start of the server's process to its first answered chat request."""
    while not answers(server):
        if server.process.poll() is not None or time.monotonic() - server.started > limit_s:
            raise Unmeasured(f"{server.name}: no answer in {limit_s} s{server.tail()}")
        time.sleep(0.005)
    return time.monotonic() - server.started


def ask(server: Server, model: str, stream: bool) -> bytes:
    """Return a chat request as it goes over the wire."""
    payload = body(model, stream)
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


class HeldStreams:
    """Streams that have had their first event and then stay silent; closed with the `ExitStack` they were made in."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self.stack = stack
        self.count = 0
        self.request = ask(server, "mock-n2-i3600000000", stream=True)  # the second event would come after an hour

    def open(self, total: int) -> None:
        """Open streams, one after the other, until `total` are open."""
        while self.count < total:
            sock = self.stack.enter_context(socket.create_connection(("127.0.0.1", self.server.port), timeout=10))
            sock.sendall(self.request)
            seen = b""
            while b"data: {" not in seen:
                part = sock.recv(65536)
                seen += part
                if not part or b'{"error"' in seen:
                    answer = seen[-300:].decode(errors="replace")
                    raise Unmeasured(f"{self.server.name}: stream {self.count + 1}: {answer}{self.server.tail()}")
            self.count += 1
