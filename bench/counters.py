"""What limits and budgets cost: in LMDB, in Redis, and when 8 processes count in the same buckets.

`outages.py` tells what a Redis costs that is gone.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from proxy.counters import Counters, Rate, Store, Want, Window

PROCESSES, EACH = 8, 3000
#: None of them ever refuses: what is measured is counting.
BUCKETS: list[Want] = [
    (Rate("limits/requests/key=7fa2", 10**9), 1),
    (Rate("limits/tokens/key=7fa2", 10**9), 900),
    (Window("budget/budget/team=search", 10**15, "month"), 2500),
]


def figures(best_us: Callable[..., float]) -> Iterable[str]:
    """Yield lines about both stores; Redis is left out where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _of("LMDB", _lmdb(Path(folder)), best_us)
        yield _chained(Path(folder) / "chain", best_us)
    if shutil.which("redis-server") is None:
        yield "Redis: redis-server is not installed"
        return
    with _redis() as make:
        yield from _of("Redis", make, best_us)


def _of(name: str, make: Callable[[], Store], best_us: Callable[..., float]) -> Iterator[str]:
    with closing(Counters(make())) as counters:

        def step() -> None:
            counters.settle(counters.take(BUCKETS), 1, 120, 1800)

        step()
        took = []
        for _ in range(2000):
            begun = time.perf_counter()
            step()
            took.append(time.perf_counter() - begun)
        cpu, wall = best_us(step), statistics.median(took) * 1e6
        yield f"{name}: three buckets taken and settled {cpu:.1f} µs of CPU, {wall:.1f} µs of time"
    yield f"{name}, {PROCESSES} processes at once: " + _contended(make)


def _contended(make: Callable[[], Store]) -> str:
    """Have processes take and settle as fast as they can."""
    pipes, begun = [], time.monotonic()
    for _ in range(PROCESSES):
        reading, writing = os.pipe()
        if os.fork() == 0:
            with closing(Counters(make())) as counters:
                took = []
                for _ in range(EACH):
                    at = time.perf_counter()
                    claim = counters.take(BUCKETS)
                    took.append(time.perf_counter() - at)
                    counters.settle(claim, 1, 120, 1800)
            took.sort()
            cpu = time.process_time() / EACH
            os.write(writing, f"{took[EACH // 2]} {took[EACH * 99 // 100]} {cpu}".encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    answers = []
    for reading in pipes:
        with open(reading) as pipe:
            answers.append([float(word) * 1e6 for word in pipe.read().split()])
    for _ in pipes:
        os.wait()
    rate = PROCESSES * EACH / (time.monotonic() - begun)
    half, late, cpu = (statistics.median(column) for column in zip(*answers, strict=True))
    return f"a take {half:.0f} µs, p99 {late:.0f} µs; {rate:,.0f} exchanges a second, {cpu:.0f} µs of CPU each"


def _chained(state: Path, best_us: Callable[..., float]) -> str:
    """Run both plugins as the chain does."""
    from plugins.budget import Budget
    from plugins.rate_limit import RateLimit
    from proxy import Exchange, Identity
    from proxy.counters.lmdb import Lmdb
    from proxy.exchange import Attempt, Usage
    from proxy.metrics.exchanges import Metrics
    from proxy.testing import configured

    state.mkdir()
    limits = configured(RateLimit, requests_per_minute=10**9, tokens_per_minute=10**9)
    budget = configured(Budget, budget={"usd": 10**9, "window": "month"})
    model = SimpleNamespace(settings=SimpleNamespace(pattern="gpt-*"))
    with closing(Counters(Lmdb(state))) as counters, closing(Metrics(state / "metrics")) as metrics:
        gateway: Any = SimpleNamespace(counters=counters, metrics=metrics, plugins={"limits": limits, "budget": budget})
        gateway.model, gateway.teams = lambda name: model, SimpleNamespace(get=lambda name: None)
        gateway.settings = SimpleNamespace(estimates=SimpleNamespace(completion_tokens=4096))
        for plugin in (limits, budget):
            plugin.on_start(gateway)
        exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "10.1.2.3")
        exchange.identity, exchange.model, exchange.body = Identity("7fa2", team="search"), "gpt-5", {"max_tokens": 100}
        exchange.prompt_estimate, exchange.cost_estimate, exchange.cost = 800, 2500, 1800
        exchange.attempts, exchange.usage = [Attempt("openai/gpt-5", 0.0)], Usage(700, 90)

        def complete(exchange: Exchange) -> None:
            limits.on_complete(exchange)
            budget.on_complete(exchange)

        def step() -> None:
            limits.on_request(exchange)
            budget.on_request(exchange)
            counters.together(complete, exchange)

        # In short rounds, of which some are undisturbed on a machine that has other work.
        cost = best_us(step, 100, 700)
        return f"LMDB: both plugins with three buckets together, an exchange {cost:.1f} µs of CPU"


def _lmdb(folder: Path) -> Callable[[], Store]:
    from proxy.counters.lmdb import Lmdb

    return lambda: Lmdb(folder)


@contextmanager
def _redis() -> Iterator[Callable[[], Store]]:
    from proxy.counters.redis import Redis, connect
    from proxy.secrets import Secret
    from proxy.settings import CountersSettings

    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(["redis-server", *arguments, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            settings = CountersSettings(store="redis", url=Secret(f"redis://127.0.0.1:{port}/0"))
            yield lambda: Redis(connect(settings, 20))
        finally:
            server.kill()
            server.wait()
