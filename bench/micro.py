"""What single steps cost in one process, without a gateway: `python -m bench.micro [NAME …]`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

PEPPER = b"p" * 32


def best_us(step: Callable[[], object], repeats: int = 2000, rounds: int = 7) -> float:
    """Return microseconds of CPU of one call, of the fastest of some rounds: other work on the machine only adds."""
    fastest = float("inf")
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(repeats):
            step()
        fastest = min(fastest, time.thread_time() - begun)
    return fastest / repeats * 1e6


def keys() -> Iterable[str]:
    """What a lookup of a key costs with 10, 1,000 and 100,000 of them, and what 100,000 cost to read and to hold."""
    for count in (10, 1_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            # In a process of its own: memory that another count has left behind would be used again unseen.
            command = [sys.executable, "-m", "bench.micro", "--keys", folder, str(count)]
            yield subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _keys(folder: Path, count: int) -> str:
    from proxy.access.keys import Key, add_all, change, digest, new_key, next_version
    from proxy.records.database import Database, location, migrate
    from proxy.records.snapshot import Snapshot
    from proxy.settings import ServerSettings, Settings

    settings = Settings(None, (), ServerSettings("127.0.0.1:0", folder / "state"), {}, {}, {})
    made = [new_key() for _ in range(count)]
    if os.fork() == 0:  # so that what making the rows takes is not taken for what reading them takes
        migrate(settings)
        with closing(Database(location(settings))) as database, database.write() as connection:
            version = next_version(connection)
            grants, limits = {"models": ["gpt-*"], "capabilities": ["tools"]}, {"requests_per_minute": 600}
            rows = [
                Key(
                    id,
                    digest(PEPPER, text),
                    f"app {at}",
                    f"team {at % 50}",
                    "jo",
                    None,
                    grants,
                    limits,
                    1.0,
                    None,
                    None,
                    version,
                )
                for at, (id, text) in enumerate(made)
            ]
            add_all(connection, PEPPER, rows)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    with closing(Database(location(settings))) as database:
        snapshot = Snapshot(database, PEPPER)
        before, begun = _resident_mib(), time.thread_time()
        snapshot.refresh()
        read_ms, held = (time.thread_time() - begun) * 1e3, _resident_mib() - before
        hot = made[count // 2][1]
        found, unknown = best_us(lambda: snapshot.find(hot)), best_us(lambda: snapshot.find("lg_unknown"))
        idle = best_us(snapshot.refresh, 50)
        followed = float("inf")
        for at in range(10):
            with database.write() as connection:
                change(connection, made[0][0], note=f"change {at}")
            begun = time.thread_time()
            snapshot.refresh()
            followed = min(followed, time.thread_time() - begun)
    return (
        f"{count:>7} keys: lookup {found:.1f} µs, of an unknown key {unknown:.1f} µs; read in {read_ms:.0f} ms of CPU, "
        f"{held:.0f} MiB; a look for changes {idle:.0f} µs, one change {followed * 1e6:.0f} µs"
    )


def estimates() -> Iterable[str]:
    """What the estimate of a prompt's tokens costs for 10 kB of text, and what a relayed chunk's part in one costs."""
    from proxy.costs.estimates import prompt_tokens
    from proxy.costs.usage import Relayed

    samples = Path(__file__).resolve().parent.parent / "tests" / "samples"
    for path in sorted(samples.glob("*.txt")):
        text = path.read_text()
        text *= 10_000 // len(text.encode()) + 1
        messages = [{"role": "user", "content": text[at : at + 2000]} for at in range(0, len(text), 2000)]
        body = {"model": "gpt-4o", "messages": messages}
        cost = best_us(lambda body=body: prompt_tokens(body)) * 10_000 / len(text.encode())  # type: ignore[misc]
        yield f"{path.stem}: {cost:.1f} µs for 10 kB"
    relayed = Relayed()
    event = (
        b'"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" Hello"},"finish_reason":null}]}'
    )
    chunk = b'data: {"id":"chatcmpl-1",' + event + b"\n\n"
    yield f"a chunk that passes: {best_us(lambda: relayed.raw(chunk), 20_000):.2f} µs"


def costs() -> Iterable[str]:
    """What it costs to expect, and to account for, what an exchange costs; and to log it (the writer's time not)."""
    from plugins.request_log import record
    from proxy.costs.accounting import account, expect
    from proxy.costs.prices import Prices
    from proxy.exchange import Attempt, Exchange, Identity, Usage
    from proxy.records.lines import json_line
    from proxy.settings import ProviderSettings, ServerSettings, Settings
    from proxy.sources import Track

    provider = ProviderSettings("openai", "openai", {"base_url": "https://api.openai.com/v1"})
    prices = Prices(Settings(None, (), ServerSettings("", Path("/")), {}, {"openai": provider}, {}))
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {"user-agent": "OpenAI/Python 2.0"}, "10.1.2.3")
    exchange.model, exchange.body, exchange.identity = "gpt-4o", {"max_tokens": 100}, Identity("k1", "app", "search")
    exchange.attempts, exchange.usage = [Attempt("openai/gpt-4o", 0.0)], Usage(1000, 100, cached_tokens=100)
    exchange.trace = [("keys", "identified", 12)] * 5
    track = Track(exchange)

    def settled() -> None:
        exchange.cost = None
        account(exchange, track, prices, whole=True)

    yield f"expected {best_us(lambda: expect(exchange, ['openai/gpt-4o'], prices, 4096)):.1f} µs"
    yield f"accounted for {best_us(settled):.1f} µs"
    yield f"a line of the log made {best_us(lambda: json_line(record(exchange))):.1f} µs"


def metrics() -> Iterable[str]:
    """What it costs to count an exchange, and to scrape 8 workers that have served 20 models."""
    from proxy.exchange import Attempt, Exchange, Usage
    from proxy.metrics.exchanges import Metrics
    from proxy.metrics.scrape import Scrape

    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "10.1.2.3")
    exchange.stream, exchange.usage, exchange.cost = True, Usage(1000, 100, cached_tokens=100), 1234
    exchange.attempts, exchange.findings = [Attempt("openai/gpt-4o", 0.0, 200, None, 0.3)], {"email.request": 2}
    outcome = exchange.outcome
    outcome.status, outcome.first_event_s, outcome.duration_s = 200, 0.3, 2.0
    outcome.gaps, outcome.gaps_s, outcome.longest_gap_s = 60, 1.5, 0.2

    def counted(made: Metrics, model: str) -> None:
        made.begun(exchange)
        made.ended(exchange, model)

    with tempfile.TemporaryDirectory() as folder:
        workers = [Metrics(Path(folder)) for _ in range(8)]
        for made in workers:
            for at in range(20):
                counted(made, f"model-{at}")
        yield f"an exchange {best_us(lambda: counted(workers[0], 'model-0')):.1f} µs"
        scrape = Scrape(Path(folder))
        size_kib = len(scrape.text()) / 1024
        yield f"a scrape {best_us(scrape.text, 3, 3) / 1000:.0f} ms, of {size_kib:.0f} KiB"


def journal() -> Iterable[str]:
    """What the record of an exchange costs, its three lines with their chain and their writes, by `fsync`."""
    from proxy.exchange import Attempt, Exchange, Identity, Usage
    from proxy.records.journal import Journal
    from proxy.settings import JournalSettings

    def recorded(made: Journal) -> None:
        exchange = Exchange("req_0123456789abcdef", "POST", "/v1/chat/completions", headers, "10.1.2.3")
        exchange.identity, exchange.model, exchange.target = identity, "gpt-4o", "openai/gpt-4o"
        made.start(exchange)
        exchange.usage, exchange.cost, exchange.outcome.finish_reasons = usage, 1234, {0: "stop"}
        exchange.attempts, exchange.trace = attempts, trace
        made.settle(exchange)
        made.end(exchange)

    headers, identity = {"user-agent": "OpenAI/Python 2.0"}, Identity("k1", "app", "search")
    usage, attempts = Usage(1000, 100, cached_tokens=100), [Attempt("openai/gpt-4o", 0.0, 200, None, 0.3)]
    trace = [("keys", "identified", 12), ("limits", "passed", 9), ("redact", "filters", 40)]
    for fsync in ("never", 1000):
        with tempfile.TemporaryDirectory() as folder:
            with closing(Journal(Path(folder), PEPPER, JournalSettings(fsync=fsync))) as made:
                yield f"an exchange, fsync = {fsync!r}: {best_us(lambda made=made: recorded(made)):.1f} µs"  # type: ignore[misc]


def counters() -> Iterable[str]:
    """What limits and budgets cost, in LMDB and in Redis."""
    from bench.counters import figures

    return figures(best_us)


def tokens() -> Iterable[str]:
    """What a signed token costs, new and known."""
    from bench.access import tokens

    return tokens(best_us)


def access() -> Iterable[str]:
    """What it costs to hold a request against grants."""
    from bench.access import access

    return access(best_us)


def redaction() -> Iterable[str]:
    """What redaction adds to a prompt, to an event and to the first token."""
    from bench.redaction import redaction

    return redaction(best_us)


def translation() -> Iterable[str]:
    """What an event costs that is translated, beside one that passes as it came."""
    from bench.translation import translation

    return translation(best_us)


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


FIGURES: dict[str, Callable[[], Iterable[str]]] = {
    "keys": keys,
    "estimates": estimates,
    "costs": costs,
    "metrics": metrics,
    "journal": journal,
    "counters": counters,
    "tokens": tokens,
    "access": access,
    "translation": translation,
    "redaction": redaction,
}


def main(names: list[str]) -> None:
    """Print the figures of these names, all of them if there is none."""
    for name in names or FIGURES:
        print(f"{name}:", (FIGURES[name].__doc__ or "").strip())
        for line in FIGURES[name]():
            print("  " + line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keys"]:
        print(_keys(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        main(sys.argv[1:])
