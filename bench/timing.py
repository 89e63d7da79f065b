"""How late things are: events behind the relay, upstreams that are let go, deadlines, and requests across a reload."""

from __future__ import annotations

import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from statistics import quantiles

from bench.figures import SIDES, Figure, Samples
from bench.servers import ROOT, Lab, Server, Unmeasured, free_port, nginx, stop
from bench.traffic import Traffic, ask, result, running

STREAMS, EVENTS, INTERVAL_MS = 200, 50, 100
LATENCY_MS = 10.0
CLOSE_MS = 50.0
OVERSHOOT_MS = 20.0
LATE_S = 0.2
"""The deadline of the model `late` (see `servers.GATEWAY`)."""


class Clock:
    """The clocked upstream in a process of its own."""

    def __init__(self, lab: Lab) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.clocked", str(self.port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise Unmeasured("the clocked upstream does not listen")

    def ended(self, model: str) -> tuple[float, float]:
        """Wait for the end of the next connection that asked for `model`; return when it asked and when it went."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            name, came, went = line.rsplit(" ", 2)
            if name == model:
                return float(came), float(went)
        raise Unmeasured("the clocked upstream has ended")


@contextmanager
def clocked(lab: Lab, side: str, worker: str, threads: int = 260) -> Iterator[tuple[Clock, Server]]:
    """Run a relay in front of a clocked upstream."""
    clock = Clock(lab)
    try:
        with lab.server(side, worker, threads, port=clock.port) as server:
            yield clock, server
    finally:
        stop(clock.process)


def latencies_ms(server: Server, streams: int) -> list[float]:
    """Open streams and return how old each event was when it came; those of the first second do not count."""
    selector = selectors.DefaultSelector()
    found: list[float] = []
    with ExitStack() as stack:
        request = ask(server, f"clock-i{INTERVAL_MS}-n{EVENTS}", stream=True)
        for _ in range(streams):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            sock.sendall(request)
            selector.register(sock, selectors.EVENT_READ, [])
            time.sleep(INTERVAL_MS / 1000 / streams)  # spread over the interval
        steady, open_ = time.monotonic() + 1.0, streams
        while open_:
            for key, _ in selector.select(10):
                part = key.fileobj.recv(65536)  # type: ignore[union-attr]
                now = time.monotonic()
                sent = [float(text) for text in re.findall(rb'"content":"([\d.]+)"', part)]
                found += [(now - at) * 1000 for at in sent if at > steady]
                if not part or part.endswith(b"0\r\n\r\n"):
                    selector.unregister(key.fileobj)
                    open_ -= 1
    return found


def event_latency(lab: Lab, worker: str, rounds: int) -> list[Figure]:
    """200 streams of 10 events a second each: how much later an event is with the client than the upstream sent it."""
    samples = Samples()
    for _ in range(min(rounds, 4)):
        for side in SIDES:
            with clocked(lab, side, worker) as (_, server):
                cuts = quantiles(latencies_ms(server, STREAMS), n=100)
            samples.add(side, {"p50": cuts[49], "p99": cuts[98]})
    return [
        samples.figure("event latency, 200 streams of 10/s, p50", "ms", "p50"),
        samples.figure("event latency, 200 streams of 10/s, p99", "ms", "p99", LATENCY_MS, "gateway"),
    ]


def letting_go(lab: Lab, worker: str, rounds: int) -> list[Figure]:
    """How long after the client left the upstream is let go, and how long after its deadline; the gateway alone."""
    samples = Samples()
    with clocked(lab, "gateway", worker) as (clock, server), nginx(server) as front:
        for _ in range(max(20, rounds)):
            values = {}
            for way, port in ("close", server.port), ("nginx", front):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                    sock.sendall(ask(server, "mock-silent", stream=True))
                    time.sleep(0.05)
                    left = time.monotonic()
                _, went = clock.ended("mock-silent")
                values[way] = (went - left) * 1000
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
                sock.sendall(ask(server, "late", stream=True))
                came, late = clock.ended("late")
            values["overshoot"] = (late - came - LATE_S) * 1000
            for side in SIDES:  # there is nothing to compare it with: a bare relay does neither
                samples.add(side, values if side == "gateway" else dict.fromkeys(values, 0.0))
    return [
        samples.figure("upstream closed after its client left", "ms", "close", CLOSE_MS, "gateway"),
        samples.figure("upstream closed after its client left nginx", "ms", "nginx", CLOSE_MS, "gateway"),
        samples.figure("upstream closed after its deadline", "ms", "overshoot", OVERSHOOT_MS, "gateway"),
    ]


def reload_under_load(lab: Lab, worker: str, rounds: int) -> list[Figure]:
    """Three SIGHUPs while 16 connections are busy: every request must go well; how long the slowest took."""
    samples = Samples()
    traffic = Traffic("mock", 6000)
    for side in SIDES:
        with lab.server(side, worker) as server, running(lab.load, server, traffic) as process:
            for _ in range(3):
                time.sleep(1.0)
                server.process.send_signal(signal.SIGHUP)
            figures = result(process, traffic, server)
        samples.add(side, {"max": figures["latency_ms"]["max"], "p99": figures["latency_ms"]["p99"]})
    return [
        samples.figure("JSON request across three reloads, p99", "ms", "p99"),
        samples.figure("JSON request across three reloads, slowest", "ms", "max"),
    ]
