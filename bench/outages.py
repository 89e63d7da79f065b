"""What exchanges wait for a Redis that is frozen, then killed: `python -m bench.outages [WORKER] [CONNECTIONS …]`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.servers import (
    CLASSES,
    ROOT,
    Server,
    Unmeasured,
    compile_programs,
    free_port,
    make_key,
    stop,
    wait_until_healthy,
)
from bench.traffic import Traffic, running

WAITED = "lockgate_counters_wait_seconds"
LIMIT_S = 0.06
#: The upstream answers after 20 ms: a worker that is always busy with its own work measures that.
MODEL = "mock-w20"
GATEWAY = """\
chain = ["keys", "limits", "money"]

[server]
bind = "127.0.0.1:{port}"
state = "{folder}/state"
worker = "{worker}"
workers = 1

[ledger]
ship = false

[counters]
store = "redis"
url = "redis://127.0.0.1:{redis}/0"

[plugins.keys]
use = "api_keys"

[plugins.limits]
use = "rate_limit"
requests_per_minute = 100_000_000
tokens_per_minute = 1_000_000_000
concurrent = 10_000

[plugins.money]
use = "budget"
budget = {{ usd = 1_000_000, window = "month" }}
soft = true

[providers.up]
use = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = {{ env = "BENCH_KEY" }}

[models."mock*"]
targets = ["up"]

[prices."up/*"]
input = 1
output = 1
"""


def main(words: list[str]) -> None:
    """Print two lines for each number of connections, on a class of workers (`threads`): without an outage, and with.

    Waits include those for a CPU and for the interpreter: what the first line has too is not Redis'.
    """
    if shutil.which("redis-server") is None:
        raise Unmeasured("redis-server is not installed")
    worker = words.pop(0) if words and words[0] in CLASSES else "threads"
    for count in map(int, words or ("8", "32")):
        for gone in (False, True):
            with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
                told = _measured(Path(folder), worker, count, gone)
            print(f"{worker}, {count} connections, Redis {'gone' if gone else 'there'}: {told}", flush=True)


def _measured(folder: Path, worker: str, connections: int, gone: bool) -> str:
    """Have a gateway count in Redis; `gone`: while that is frozen for 3 seconds, and later killed."""
    compile_programs(folder)
    ports = {"port": free_port(), "redis": free_port(), "upstream": free_port()}
    traffic = Traffic(MODEL, 10_000_000, connections, limit_s=8.0)
    with (
        _process("redis-server", "--port", ports["redis"], "--save", "", "--dir", folder) as redis,
        _process(folder / "upstream", ports["upstream"]),
        _gateway(folder, worker, ports) as server,
        running(folder / "load", server, traffic) as load,
    ):
        if gone:
            time.sleep(2.0)
            redis.send_signal(signal.SIGSTOP)
            time.sleep(3.0)
            redis.send_signal(signal.SIGCONT)
            time.sleep(1.5)
            redis.send_signal(signal.SIGKILL)
        printed, _ = load.communicate()
        log = (folder / "log").read_text(errors="replace")
        if gone and (log.count("Redis cannot be used") < 2 or "they can be used again" not in log):
            raise Unmeasured(f"there were not two outages:{server.tail()}")
        # What counts every exchange in a file follows it at once; the journal's end lines do within a second.
        time.sleep(1.0)
    return _told(folder, json.loads(printed))


def _told(folder: Path, load: dict[str, Any]) -> str:
    from proxy.metrics.scrape import Scrape

    files = (folder / "state" / "journal").glob("2*.jsonl")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    traces = [line["trace"] for line in lines if line["kind"] == "end"]
    takes = [sum(us for name, _, us in trace if name in ("limits", "money")) / 1e6 for trace in traces]
    latency, failed = load["latency_ms"], load["failed"]
    failures = failed["status"] + failed["cut"] + failed["connect"]
    told = (
        f"{load['ok']} exchanges, {failures} failed, latency {latency['p50']:.0f} ms, max {latency['max']:.0f} ms; "
        f"both plugins before the call, with all they do: max {max(takes) * 1e3:.1f} ms, "
        f"{sum(took > LIMIT_S for took in takes)} over 60 ms"
    )
    total = Scrape(folder / "state" / "metrics").totals()[0].get(WAITED)
    if total is None:
        return told
    counts = total.rows[()]
    bounds = [*total.definition["buckets"], float("inf")]
    over = sum(count for bound, count in zip(bounds, counts, strict=False) if bound > LIMIT_S)
    longest = max(bound for bound, count in zip(bounds, counts, strict=False) if count)
    waited = sum(count for bound, count in zip(bounds, counts, strict=False) if bound > 0.01)
    return (
        f"{told}; waits for Redis, settling too: {waited:.0f} over 10 ms, none over {longest * 1e3:.0f} ms, "
        f"{over:.0f} over 60 ms"
    )


@contextmanager
def _gateway(folder: Path, worker: str, ports: dict[str, int]) -> Iterator[Server]:
    config = folder / "lockgate.toml"
    config.write_text(GATEWAY.format(folder=folder, worker=worker, **ports))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    environment |= {"PYTHONPATH": str(ROOT), "LOCKGATE_CONFIG": str(config), "BENCH_KEY": "sk-upstream"}
    key = make_key(folder, environment)
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    server = Server("gateway", process, ports["port"], key, folder)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(process)


@contextmanager
def _process(*command: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
