"""How fast the shipper is, and the ledger is read: `python -m bench.ledger [postgresql://…]`, an empty database."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from proxy.exchange import Attempt, Exchange, Identity, Usage
from proxy.records.database import Database, location, upgrade
from proxy.records.history import History, Search
from proxy.records.journal import Journal
from proxy.records.ledger import used
from proxy.records.shipping import Shipper
from proxy.secrets import Secret
from proxy.settings import DatabaseSettings, ServerSettings, Settings

COUNT = 20_000
FILES = 4


def main(urls: list[str]) -> None:
    """Print the figures of SQLite, and of the PostgreSQL databases at the URLs."""
    for url in (None, *urls):
        print("SQLite:" if url is None else "PostgreSQL:")
        with tempfile.TemporaryDirectory() as folder:
            _measure(Path(folder), url)


def _measure(state: Path, url: str | None) -> None:
    database = DatabaseSettings(None if url is None else Secret(url))
    settings = Settings(None, (), ServerSettings("", state), {}, {}, {}, database=database)
    upgrade(settings)
    _journal(state / "journal")
    with closing(Database(location(settings))) as opened:
        shipper = Shipper(opened, state)
        seconds, cpu = _timed(lambda: _all(shipper))
        print(f"  {COUNT / seconds:,.0f} records a second shipped, {cpu / COUNT * 1e6:.0f} µs of CPU a record")
        history = History(lambda: opened, state / "journal")
        mine = Search({"subject": "key17"}, own_paths=False)
        seconds, _ = _timed(lambda: [history.page(mine, 20) for _ in range(50)])
        print(f"  {seconds / 50 * 1000:.2f} ms for a page of a key's own requests")
        with opened.read() as connection:
            since = time.time() - 7 * 86400
            seconds, _ = _timed(lambda: [used(connection, ["team", "model"], since, hourly_s=1e9) for _ in range(20)])
        print(f"  {seconds / 20 * 1000:.2f} ms for the usage of a week by team and model")


def _journal(directory: Path) -> None:
    """Write what COUNT exchanges of 50 keys and 5 models leave, over the last two days, in some files."""
    directory.mkdir(parents=True)
    begun = time.time() - 2 * 86400
    for file in range(FILES):
        journal = Journal(directory, b"k" * 32)
        for number in range(file, COUNT, FILES):
            one = Exchange(f"req_{number:032x}", "POST", "/v1/chat/completions", {"user-agent": "bench"}, "10.0.0.1")
            one.received = begun + number * 2 * 86400 / COUNT
            one.identity = Identity(f"key{number % 50}", "app", f"team{number % 10}")
            one.model = one.target = f"up/model{number % 5}"
            one.attempts, one.usage, one.cost = [Attempt(one.target, 0.0, 200, None, 1.0)], Usage(900, 150), 4000
            one.trace = [("keys", "identified", 12)] * 5
            one.outcome.status, one.outcome.complete, one.outcome.finish_reasons = 200, True, {0: "stop"}
            journal.start(one)
            journal.settle(one)
            journal.end(one)
        journal.close()


def _all(shipper: Shipper) -> None:
    count = shipper.ship()
    assert count == COUNT, f"{count} records were shipped"


def _timed(step: Callable[[], object]) -> tuple[float, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - begun, time.process_time() - cpu


if __name__ == "__main__":
    main(sys.argv[1:])
