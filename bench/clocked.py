"""An upstream whose events say when they were sent, and which says when its clients left: one process, one thread.

Run as `python -m bench.clocked PORT`. A model called `clock-iMS-nN` is answered by N events, one each MS milliseconds,
each with the monotonic clock in it; any other by nothing at all. Each connection that its client ends is told on a line
of standard output: the model, and the clock when the request came and when the client went.
"""

from __future__ import annotations

import heapq
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    '[{"index":0,"delta":{"content":"%.9f"},"logprobs":null,"finish_reason":%s}]}\n\n'
)


def chunk(text: str) -> bytes:
    """Return an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(text), text.encode())


@dataclass(slots=True, eq=False)
class Client:
    """One connection and what it is still owed."""

    sock: socket.socket
    seen: bytes = b""
    model: str = ""
    came: float = 0.0
    left: int = 0
    interval_s: float = 0.0
    gone: bool = False


def serve(port: int) -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    due: list[tuple[float, int, Client]] = []
    while True:
        wait_s = max(0.0, due[0][0] - time.monotonic()) if due else None
        for key, _ in selector.select(wait_s):
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, Client(sock))
            else:
                read(key.data, selector, due)
        while due and due[0][0] <= time.monotonic():
            when, _, client = heapq.heappop(due)
            if not client.gone:
                send(client, when, due)


def read(client: Client, selector: selectors.BaseSelector, due: list[tuple[float, int, Client]]) -> None:
    """Take a request, or note that the client has gone."""
    try:
        part = client.sock.recv(65536)
    except ConnectionResetError:
        part = b""
    if not part:
        client.gone = True
        selector.unregister(client.sock)
        client.sock.close()
        print(client.model, client.came, time.monotonic(), flush=True)
        return
    client.seen += part
    found = re.search(rb'"model": ?"([^"]*)"', client.seen)
    if found and client.seen.rstrip().endswith(b"}"):
        client.seen, client.model, client.came = b"", found[1].decode(), time.monotonic()
        said = re.fullmatch(r"clock-i(\d+)-n(\d+)", client.model)
        if said:
            client.interval_s, client.left = int(said[1]) / 1000, int(said[2])
            client.sock.sendall(HEAD)
            heapq.heappush(due, (time.monotonic(), id(client), client))


def send(client: Client, when: float, due: list[tuple[float, int, Client]]) -> None:
    """Send the next event, and at the end what ends a stream."""
    client.left -= 1
    out = chunk(EVENT % (time.monotonic(), "null" if client.left else '"stop"'))
    if client.left:
        heapq.heappush(due, (when + client.interval_s, id(client), client))
    else:
        out += chunk("data: [DONE]\n\n") + b"0\r\n\r\n"
    try:
        client.sock.sendall(out)
    except OSError:
        pass  # its end will be read


if __name__ == "__main__":
    serve(int(sys.argv[1]))
