"""Metrics: what is counted of exchanges, bounded and cheap, and right over many workers that come and go."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_reload import hang_up, kill_workers
from wire import PATIENCE_S

from plugins.budget import Budget
from plugins.contents import Contents
from plugins.rate_limit import RateLimit
from plugins.request_log import RequestLog
from plugins.traces import Traces
from proxy import Exchange, Reject, hookimpl, relay, sources
from proxy.admin.lag import Lag
from proxy.metrics import slots
from proxy.metrics.registry import LABEL_SETS, MOST_BUCKETS, Registry
from proxy.metrics.scrape import Scrape
from proxy.metrics.slots import Slot
from proxy.testing import Rig, configured, stream


def scraped(directory: Path) -> dict[str, float]:
    """Return every sample by its name and labels, as in `requests_total{code=,model=*,status=200}`."""
    found = {}
    for family in text_string_to_metric_families(Scrape(directory).text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("lockgate_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def of(rig: Rig) -> dict[str, float]:
    return scraped(rig.gateway.state / "metrics")


def eventually(look: Any, wanted: Any) -> None:
    """Wait until `look()` returns what is wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while look() != wanted:
        assert time.monotonic() < deadline, (look(), wanted)
        time.sleep(0.02)


class Finder:
    name = "finder"

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        exchange.findings["email.request"] = 2
        if exchange.body["messages"][0]["content"] == "stop":
            raise Reject(403, "not_here", "No.")


def test_an_exchange_is_counted_by_what_became_of_it() -> None:
    with Rig(Finder) as rig:
        rig.run()
        rig.run(stream=True)
        rig.run("stop")
        seen = of(rig)
    assert seen["requests_total{code=,model=*,status=200}"] == 2
    assert seen["requests_total{code=not_here,model=*,status=403}"] == 1
    assert seen["requests_in_flight"] == 0
    assert seen["request_seconds_count{model=*,stream=true}"] == 1
    assert seen["first_event_seconds_count{model=*,stream=false}"] == 1, "a refusal has none"
    assert seen["tokens_total{kind=prompt,model=*}"] > 0
    assert seen["upstream_attempts_total{code=,target=upstream}"] == 2
    assert seen["upstream_attempt_seconds_count{target=upstream}"] == 2
    assert seen["findings_total{finding=email.request}"] == 6
    assert seen["breakers{state=closed,target=upstream}"] == 1
    assert seen["threads"] == 100 and seen["workers"] == 1


def test_an_exchange_is_in_flight_until_its_last_byte() -> None:
    with Rig(Finder) as rig:
        running = rig.start(stream=True)
        running.step()
        assert of(rig)["requests_in_flight"] == 1
        running.finish()
        assert of(rig)["requests_in_flight"] == 0


def test_no_word_of_a_caller_or_an_upstream_is_a_label() -> None:
    with Rig(Finder) as rig:
        for number in range(20):
            rig.run({"model": f"canary-{number}", "messages": [{"role": "user", "content": "canary"}]})
        exchange = Exchange("id", "POST", "/canary", {"user-agent": "canary"}, "canary")
        exchange.outcome.status, exchange.outcome.code = 400, "The canary sings."
        rig.gateway.metrics.begun(exchange)
        rig.gateway.metrics.ended(exchange, None)
        assert "canary" not in Scrape(rig.gateway.state / "metrics").text().decode()
        assert of(rig)["requests_total{code=other,model=,status=400}"] == 1


def test_the_gaps_of_a_stream_are_those_between_its_reads() -> None:
    exchange = Exchange("id", "POST", "/", {}, "", body={})
    call = SimpleNamespace(touched=0.0, sent=0.0)
    track = sources.Track(exchange)

    def pieces() -> Any:
        for at, event in zip((1.0, 1.5, 3.5, 3.75), stream("a b"), strict=False):
            call.touched = at
            yield event

    source = sources.Source(pieces())
    out = relay.as_stream(exchange, source, iter(source), track, call, lambda: None, lambda error: error)  # type: ignore
    assert b"[DONE]" in list(out)[-1]
    outcome = exchange.outcome
    assert outcome.gaps == len(stream("a b")) - 1
    assert (outcome.gaps_s, outcome.longest_gap_s) == (2.75 if outcome.gaps == 3 else 2.5, 2.0)


def test_a_breaker_that_opens_is_seen() -> None:
    with Rig(Finder) as rig:
        breaker = rig.gateway.models["*"].targets[0].breaker
        for _ in range(5):
            breaker.note(True)
        eventually(lambda: of(rig)["breakers{state=open,target=upstream}"], 1.0)
        assert of(rig)["breakers{state=closed,target=upstream}"] == 0


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    made = Registry(tmp_path, interval_s=0.02)
    made.start()
    yield made
    made.close()


def test_labels_without_bounds_end_in_other(registry: Registry, tmp_path: Path) -> None:
    counter = registry.counter("seen_total", "Seen.", ["word"])
    for number in range(LABEL_SETS + 50):
        counter.labels(f"word{number}").inc()
    counter.labels("word3").inc()
    seen = {key: value for key, value in scraped(tmp_path).items() if key.startswith("seen_total")}
    assert len(seen) == LABEL_SETS + 1
    assert seen["seen_total{word=other}"] == 50 and seen["seen_total{word=word3}"] == 2


def test_a_histogram_is_cumulative(registry: Registry, tmp_path: Path) -> None:
    sizes = registry.histogram("size_bytes", "Sizes.", buckets=[1, 10])
    for size in (0.5, 1, 7, 100):
        sizes.observe(size)
    seen = scraped(tmp_path)
    assert [seen[f"size_bytes_bucket{{le={bound}}}"] for bound in ("1.0", "10.0", "+Inf")] == [2, 3, 4]
    assert (seen["size_bytes_count"], seen["size_bytes_sum"]) == (4, 108.5)


def test_a_gauge_follows_its_function_and_outlives_its_failure(registry: Registry, tmp_path: Path) -> None:
    held = [1.0]
    registry.gauge("broken", "Fails.").set_function(lambda: held[7])
    registry.gauge("held", "How many.").set_function(lambda: held[0])
    held[0] = 5.0
    eventually(lambda: scraped(tmp_path)["held"], 5.0)
    assert registry.gauge("held", "How many.").value == 5.0


def test_a_counter_adds_up_all_that_it_follows(registry: Registry, tmp_path: Path) -> None:
    counts = [1, 10]
    for at in range(2):
        registry.counter("dropped_total", "Dropped.").set_function(lambda at=at: counts[at])
    counts[0] += 1
    eventually(lambda: scraped(tmp_path)["dropped_total"], 12.0)


def test_a_metric_is_one_wherever_it_is_asked_for(registry: Registry) -> None:
    assert registry.counter("a_total", "A.") is registry.counter("a", "A.")
    with pytest.raises(ValueError, match="another metric called a"):
        registry.gauge("a", "A.")
    with pytest.raises(ValueError, match="another metric called a"):
        registry.counter("a", "A.", ["word"])


def test_a_metric_that_cannot_be_is_refused(registry: Registry) -> None:
    for name, labels in (("Upper", []), ("with space", []), ("fine", ["le"]), ("fine", "word"), ("fine", ["a-b"])):
        with pytest.raises(ValueError, match="names are made of"):
            registry.counter(name, "No.", labels)
    for buckets in ([], [2, 1], [1, 1], range(MOST_BUCKETS + 1)):
        with pytest.raises(ValueError, match="buckets ascend"):
            registry.histogram("sizes", "No.", buckets=buckets)
    counter = registry.counter("labelled", "Labelled.", ["a", "b"])
    with pytest.raises(ValueError, match="has labels"):
        counter.inc()
    with pytest.raises(ValueError, match="has the labels"):
        counter.labels("one")
    with pytest.raises(ValueError, match="only grows"):
        counter.labels("one", "two").inc(-1)


def test_threads_lose_no_count(registry: Registry) -> None:
    counter = registry.counter("hits", "Hits.")

    def hit() -> None:
        for _ in range(2000):
            counter.inc()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=hit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert counter.value == 16_000


def test_what_finds_no_room_spoils_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "VALUES", slots.SPARE + 20)
    registry = Registry(tmp_path)
    first = registry.counter("first", "First.")
    first.inc()
    for number in range(5):
        registry.histogram(f"late{number}", "Late.").observe(1)
    assert first.value == 1
    assert scraped(tmp_path)["first_total"] == 1
    registry.close()


def test_on_a_full_disk_a_worker_counts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    registry = Registry(tmp_path)
    counter = registry.counter("hits", "Hits.")
    counter.inc()
    assert counter.value == 1 and list(tmp_path.iterdir()) == []
    registry.close()


WORKER = """
import sys
from pathlib import Path
from proxy.metrics.registry import Registry
registry = Registry(Path(sys.argv[1]))
registry.counter("hits", "Hits.", ["who"]).labels("me").inc(3)
registry.gauge("held", "Held.").set(7)
print("ready", flush=True)
sys.stdin.read()
"""


def start_worker(directory: Path) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    return worker


def end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def test_a_dead_workers_counts_stay_and_its_gauges_vanish(tmp_path: Path) -> None:
    one, two = start_worker(tmp_path), start_worker(tmp_path)
    try:
        seen = scraped(tmp_path)
        assert (seen["hits_total{who=me}"], seen["held"], seen["workers"]) == (6, 14, 2)
        end(one)
        seen = scraped(tmp_path)
        assert (seen["hits_total{who=me}"], seen["held"], seen["workers"]) == (6, 7, 1)
        for _ in range(3):
            one = start_worker(tmp_path)
            end(one)
        seen = scraped(tmp_path)
        assert (seen["hits_total{who=me}"], seen["held"]) == (15, 7), "the slot's next worker goes on from there"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.slot", "1.slot"]
    finally:
        end(one)
        end(two)


def test_a_new_master_begins_anew_but_only_when_nobody_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(master: int) -> Slot:
        monkeypatch.setattr(os, "getppid", lambda: master)
        registry = Registry(tmp_path)
        registry.counter("hits", "Hits.").inc()
        return registry.slot

    count(os.getpid()).close()
    last = count(os.getpid())
    assert scraped(tmp_path)["hits_total"] == 2
    beside = count(1)
    assert scraped(tmp_path)["hits_total"] == 3, "as after SIGUSR2: the old master's workers still serve"
    last.close()
    beside.close()
    count(2).close()
    assert scraped(tmp_path)["hits_total"] == 1


def test_one_scrape_reads_on_where_it_stopped(tmp_path: Path) -> None:
    scrape = Scrape(tmp_path)
    assert scrape.totals() == ({}, 0)
    registry = Registry(tmp_path)
    counter = registry.counter("hits", "Hits.", ["who"])
    for who in ("a", "b"):
        counter.labels(who).inc()
        assert f'hits_total{{who="{who}"}} 1.0' in scrape.text().decode()
    registry.close()
    (tmp_path / "0.slot").unlink()
    registry = Registry(tmp_path)
    registry.counter("others", "Others.").inc()
    assert scrape.totals()[0].keys() == {"others"}
    registry.close()


def test_a_definition_that_changed_in_a_reload_goes_by_the_living(tmp_path: Path) -> None:
    old = Registry(tmp_path)
    new = Registry(tmp_path)
    old.histogram("sizes", "Sizes.", buckets=[1, 2]).observe(1)
    new.histogram("sizes", "Sizes.", buckets=[1, 2, 3]).observe(1)
    old.close()
    assert scraped(tmp_path)["sizes_count"] == 1
    new.close()


def test_all_workers_are_counted_over_reloads_and_kills(start_gateway: Any) -> None:
    gateway = start_gateway(server={"workers": 4})
    directory = gateway.folder / "var" / "metrics"
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
    sent, counts = 0, []

    def ask(_: int) -> int:
        with gateway.wire() as wire:
            return int(wire.post(body).status)

    def counted() -> float:
        return scraped(directory).get("requests_total{code=,model=echo,status=200}", 0.0)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            during = pool.map(ask, range(30))
            assert not hang_up(gateway)
            assert set(during) == {200} == set(pool.map(ask, range(30)))
            sent += 60
            eventually(counted, sent)
            counts.append(len(list(directory.iterdir())))
        assert counts[0] <= 8 and counts == [counts[0]] * 3, "files are reused"
        kill_workers(gateway)
        assert set(pool.map(ask, range(30))) == {200}
    eventually(counted, sent + 30)
    assert scraped(directory)["requests_in_flight"] == 0
    assert len(list(directory.iterdir())) == counts[0]
    eventually(lambda: scraped(directory)["workers"], 4.0)
    gateway.stop(signal.SIGTERM)
    assert scraped(directory)["workers"] == 0


def test_every_metric_is_documented_and_every_one_in_use_exists(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    (tmp_path / "shipper.json").write_text('{"behind_bytes": 1, "time": 1.0, "problem": null}')
    own = {family.name for family in Lag(tmp_path).collect()} | {"lockgate_workers"}
    (tmp_path / "key").write_text("k" * 32)
    with Rig(
        configured(RateLimit, requests_per_minute=60),
        configured(Budget, budget={"usd": 1, "window": "day"}),
        configured(RequestLog),
        configured(Contents, key={"file": str(tmp_path / "key")}, models=["*"]),
        configured(Traces, endpoint="http://collector.test/v1/traces"),
    ) as rig:
        metrics = rig.gateway.metrics
        metrics.serve(SimpleNamespace(busy=0, turned_away=0))
        plugins = {name for name in metrics._made if re.search("_(limit|limited|budget|counters)_?", name)}
        kinds = {name: definition["kind"] for name, (definition, _) in metrics._made.items()}
    known = own | {f"{name}_total" if kind == "counter" else name for name, kind in kinds.items()}
    told = set(re.findall(r"lockgate_[a-z_]+", (root / "docs" / "operations.md").read_text()))
    assert told <= known
    assert {name for name in known if name.removesuffix("_total") not in plugins} <= told
    for file in ("grafana.json", "alerts.yml"):
        used = set(re.findall(r"lockgate_[a-z_]+", (root / "deploy" / file).read_text()))
        assert {name.removesuffix("_bucket") for name in used} <= known, file
