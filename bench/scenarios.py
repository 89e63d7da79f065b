"""What is measured: one function per scenario, each of which takes gateway and bare relay by turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from bench import timing
from bench.figures import SIDES, Figure, Samples
from bench.processes import Meter, memory_kib, switches
from bench.servers import Lab, Server
from bench.traffic import HeldStreams, Traffic, result, running, send, wait_for_answer

#: Goals over the bare relay, in µs of CPU: what keys and journal may cost, and an event that passes unparsed.
REQUEST_US = 100.0
EVENT_US = 3.0
STREAM_KIB = 64.0
START_S = 1.0
#: What still counts as flat: 70 bytes a request, less than one object that is kept.
GROWTH_MIB = 1.0

STREAMS, INTERVAL_S = 50, 0.02

SAME = 2
"""Rounds that one pair of processes is measured for."""


@dataclass(slots=True)
class Run:
    """How to measure: `rounds` by turns, on one worker class; `quick` takes a quarter of the requests."""

    lab: Lab
    worker: str
    rounds: int
    quick: bool

    def count(self, full: int) -> int:
        """Return how many requests a full or a quick run takes."""
        return full // 4 if self.quick else full

    def by_turns(self, measure: Callable[[Server], dict[str, float]], warm_up: Traffic) -> Samples:
        """Measure both servers `rounds` times, each side first in turn; every `SAME` rounds both are started anew.

        Two processes of the same program differ steadily for as long as they live, which no number of rounds shows.
        """
        samples = Samples()
        for first in range(0, self.rounds, SAME):
            with ExitStack() as stack:
                servers = {side: stack.enter_context(self.lab.server(side, self.worker)) for side in SIDES}
                for server in servers.values():
                    send(self.lab.load, server, warm_up)
                for turn in range(first, min(first + SAME, self.rounds)):
                    for side in SIDES if turn % 2 else SIDES[::-1]:
                        samples.add(side, measure(servers[side]))
        return samples

    def cost(self, traffic: Traffic) -> Samples:
        """Return CPU (`cpu`, µs), waits (`waits`, a count) and latency (`p50`, `p90`, `p99`, ms) of a request."""

        def measure(server: Server) -> dict[str, float]:
            waited, meter = switches(server.process.pid), Meter(server.process.pid)
            figures = send(self.lab.load, server, traffic)
            used_s, waits = meter.used_s(), switches(server.process.pid) - waited
            return {
                "cpu": used_s / traffic.requests * 1e6,
                "waits": waits / traffic.requests,
                **figures["latency_ms"],
            }

        return self.by_turns(measure, Traffic(traffic.model, 300, traffic.connections, traffic.stream))


def json_request(run: Run) -> list[Figure]:
    """A whole answer, 16 connections that are always busy."""
    samples = run.cost(Traffic("mock", run.count(1600)))
    return [
        samples.figure("CPU per JSON request", "µs", "cpu", REQUEST_US),
        samples.figure("context switches per JSON request", "", "waits"),
        *(samples.figure(f"JSON request, 16 busy connections, {p}", "ms", p) for p in ("p50", "p90", "p99")),
    ]


def latency(run: Run) -> list[Figure]:
    """A whole answer on one connection: what the relay adds when nothing else happens."""
    samples = run.cost(Traffic("mock", run.count(1000), connections=1))
    return [
        samples.figure("CPU per JSON request, one connection", "µs", "cpu", REQUEST_US),
        *(samples.figure(f"JSON request, one connection, {p}", "ms", p) for p in ("p50", "p90", "p99")),
    ]


def burst(run: Run) -> list[Figure]:
    """A stream of 64 events that the upstream writes at once, 16 connections."""
    samples = run.cost(Traffic("mock-n64-i0", run.count(480), stream=True))
    return [
        samples.figure("CPU per 64-event burst", "µs", "cpu", REQUEST_US + 64 * EVENT_US),
        samples.figure("context switches per 64-event burst", "", "waits"),
        *(samples.figure(f"64-event burst, 16 busy connections, {p}", "ms", p) for p in ("p50", "p99")),
    ]


def events(run: Run) -> list[Figure]:
    """50 streams of one event each 20 ms, measured while all are running, so that opening them does not count."""
    window_s = 1.0 if run.quick else 3.0
    length = round((window_s + 2.5) / INTERVAL_S)
    traffic = Traffic(f"mock-n{length}-i{INTERVAL_S * 1e6:.0f}", STREAMS, STREAMS, stream=True)

    def measure(server: Server) -> dict[str, float]:
        with running(run.lab.load, server, traffic) as process:
            time.sleep(1.5)
            meter, began = Meter(server.process.pid), time.monotonic()
            time.sleep(window_s)
            used_s, took_s = meter.used_s(), time.monotonic() - began
            gaps = result(process, traffic, server)["gap_ms"]
        return {"cpu": used_s / (STREAMS * took_s / INTERVAL_S) * 1e6, "p50": gaps["p50"], "max": gaps["max"]}

    samples = run.by_turns(measure, Traffic("mock-n64-i0", 100, stream=True))
    return [
        samples.figure("CPU per timed event", "µs", "cpu", EVENT_US),
        samples.figure("largest gap in a stream (20 ms sent), median stream", "ms", "p50"),
        samples.figure("largest gap in a stream (20 ms sent), worst stream", "ms", "max"),
    ]


def idle(run: Run) -> list[Figure]:
    """500 and 1,000 streams that have had one event and are silent: memory of each."""
    samples = Samples()
    for side in SIDES * min(run.rounds, 1 if run.quick else 2):
        with run.lab.server(side, run.worker, threads=1100) as server, ExitStack() as stack:
            send(run.lab.load, server, Traffic("mock-n64-i0", 300, stream=True))
            before = memory_kib(server.process.pid)
            streams = HeldStreams(server, stack)
            found = {"before": before["PSS"] / 1024}
            for count in 500, 1000:
                streams.open(count)
                time.sleep(0.5)  # first events are through; what threads leave behind is given back
                now = memory_kib(server.process.pid)
                found |= {f"{kind} {count}": (now[kind] - before[kind]) / count for kind in now}
            samples.add(side, found)
    return [
        samples.figure("memory before any stream, PSS", "MiB", "before"),
        *(
            samples.figure(f"idle stream, {count} open, {kind}", "KiB", f"{kind} {count}", STREAM_KIB, "gateway")
            for count in (500, 1000)
            for kind in ("PSS_ANON", "RSS")
        ),
    ]


def startup(run: Run) -> list[Figure]:
    """From the start of the process to the first answered chat request."""
    samples = Samples()
    for turn in range(min(run.rounds, 5) + 1):
        for side in SIDES:
            with run.lab.server(side, run.worker, ready=False) as server:
                seconds = wait_for_answer(server)
            if turn:  # the first start compiles and fills the page cache
                samples.add(side, {"start": seconds})
    return [samples.figure("process start to first answer", "s", "start", START_S, "gateway")]


def memory(run: Run) -> list[Figure]:
    """Resident memory after 5,000 and after 20,000 requests."""
    samples = Samples()
    for side in SIDES:
        with run.lab.server(side, run.worker) as server:
            send(run.lab.load, server, Traffic("mock", run.count(5000)))
            early = memory_kib(server.process.pid)["RSS"] / 1024
            send(run.lab.load, server, Traffic("mock", run.count(15000)))
            late = memory_kib(server.process.pid)["RSS"] / 1024
        samples.add(side, {"early": early, "late": late, "growth": late - early})
    first, last = run.count(5000), run.count(20000)
    return [
        samples.figure(f"RSS after {first:,} requests", "MiB", "early"),
        samples.figure(f"RSS after {last:,} requests", "MiB", "late"),
        samples.figure(f"growth from {first:,} to {last:,} requests", "MiB", "growth", GROWTH_MIB, "gateway"),
    ]


SCENARIOS: dict[str, Callable[[Run], list[Figure]]] = {
    "json": json_request,
    "latency": latency,
    "burst": burst,
    "events": events,
    "idle": idle,
    "startup": startup,
    "memory": memory,
    "lateness": lambda run: timing.event_latency(run.lab, run.worker, run.rounds),
    "letting-go": lambda run: timing.letting_go(run.lab, run.worker, run.rounds),
    "reload": lambda run: timing.reload_under_load(run.lab, run.worker, run.rounds),
}
