"""Under load, with processes killed at random: what reached an upstream is in the ledger once, and the chains hold."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from gateways import Gateway
from sqlalchemy import func, select
from states import both_databases, settings_in
from upstreams import Upstream, chunked, sse, streaming
from wire import Wire

from proxy.records import shipping, verify
from proxy.records.database import Database, location, upgrade
from proxy.records.tables import requests, usage
from proxy.testing import stream

IN_FLIGHT = 50
CLIENTS = 64
PATIENCE_S = 60.0
MESSAGES = [{"role": "user", "content": "x"}]


class Load:
    """An upstream with slow streams, and clients that are never done.

    `seen` are the exchanges that reached the upstream, `finished` those whose answer came whole.
    """

    def __init__(self, clients=CLIENTS, pause_s=0.4):
        self.seen, self.finished = set(), set()
        self._asking, self._answering = set(), set()
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self._count = iter(range(10**9))
        self._clients = clients
        self._threads = []
        self.upstream = Upstream(self._answer)

    @property
    def toml(self):
        """The configuration of a gateway before it."""
        return f"""
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[providers.up]
use = "openai"
base_url = "{self.upstream.url}"
[models.m]
targets = ["up"]
"""

    @property
    def in_flight(self):
        """How many exchanges are with the upstream whose client still waits: not those of a worker that is dead."""
        return len(self._asking & self._answering)

    def start(self, gateway):
        """Let the clients go."""
        self._threads = [threading.Thread(target=self._ask, args=(gateway,)) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Have each client end with the answer that it waits for."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _answer(self, request):
        id = request.json["user"]
        self.seen.add(id)
        self._answering.add(id)
        try:
            first, *rest = stream()
            yield streaming() + chunked(sse([first], done=False), last=False)
            self._stopped.wait(self._pause_s)
            yield chunked(sse(rest))
        finally:
            self._answering.discard(id)

    def _ask(self, gateway):
        wire = None
        while not self._stopped.is_set():
            id = f"exchange-{next(self._count):08d}"
            body = {"model": "m", "messages": MESSAGES, "user": id, "stream": True}
            self._asking.add(id)
            try:
                wire = wire or Wire(gateway.address, gateway.key)
                answer = wire.post(body, x_request_id=id)
            except (OSError, EOFError):
                answer = None
            self._asking.discard(id)
            if answer is not None and answer.status == 200 and answer.whole:
                assert answer.headers["x-request-id"] == id
                self.finished.add(id)
                continue
            if wire is not None:
                wire.close()
                wire = None
            self._stopped.wait(0.1)
        if wire is not None:
            wire.close()


@contextmanager
def loaded(folder, load, url=None, **server):
    """A gateway under load."""
    toml = load.toml
    if url is not None:
        upgrade(settings_in(folder, url=url))
        (folder / "url").write_text(url)
        toml += '[database]\nurl = { file = "url" }\n'
    gateway = Gateway(folder, toml, server={"workers": 2, "proxied": True, **server})
    try:
        load.start(gateway)
        yield gateway
    finally:
        load.stop()
        gateway.stop()
        load.upstream.stop()


def until(predicate, what):
    """Wait until it is true, and return what it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := predicate()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def shipper_of(gateway):
    """Return the process id of the shipper that runs, if one does."""
    pid = (shipping.told(gateway.folder / "var") or {}).get("pid")
    with suppress(OSError, TypeError):
        if b"election" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def shipped_after(gateway, url):
    """Ship what the end of the gateway has left, and return the ledger's exchanges with how often each is there."""
    state = gateway.folder / "var"
    settings = settings_in(state, url=url)
    database = Database(location(settings))
    shipper = shipping.Shipper(database, state)
    shipper.ship()
    assert shipper.behind_bytes == 0
    with database.read() as connection:
        rows = connection.execute(select(requests.c.id, requests.c.state, requests.c.status, requests.c.cost)).all()
        summed = connection.execute(select(func.sum(usage.c.requests)).where(usage.c.span == "day")).scalar_one()
    database.close()
    assert summed == len(rows)
    return rows


@both_databases
def test_each_exchange_is_in_the_ledger_once_whatever_is_killed(tmp_path, database_url, request):
    server = request.getfixturevalue("postgresql") if database_url else None
    dice = random.Random(7)
    victims = ["worker"] * 8 + ["shipper"] * 6 + ["postgresql"] * 6 if server else ["worker"] * 4 + ["shipper"] * 2
    dice.shuffle(victims)
    load = Load()
    with loaded(tmp_path, load, database_url, worker="threads" if server else "gevent") as gateway:
        until(lambda: shipper_of(gateway), "no shipper was started")
        for victim in victims:
            until(lambda: load.in_flight >= IN_FLIGHT, f"only {load.in_flight} exchanges are in flight")
            if victim == "worker":
                os.kill(dice.choice(gateway.worker_pids()), signal.SIGKILL)
            elif victim == "shipper":
                os.kill(until(lambda: shipper_of(gateway), "the shipper did not come back"), signal.SIGKILL)
            else:
                server.kill()
                time.sleep(dice.random() / 2)  # while which exchanges go on
                server.start()
            time.sleep(dice.random() / 2)  # a moment of no kind
    rows = shipped_after(gateway, database_url)
    times = Counter(row.id for row in rows)
    assert [id for id, count in times.items() if count > 1] == []
    assert load.seen - times.keys() == set()
    states = {row.id: row.state for row in rows}
    assert load.finished <= load.seen
    assert {states[id] for id in load.finished} <= {"ended", "settled"}
    assert "lost" in states.values()
    assert len(load.finished) > 10 * len(victims)
    var = gateway.folder / "var"
    report = verify.verify(var / "journal", (var / "journal.key").read_text().strip().encode())
    assert report.problems == []


@pytest.mark.parametrize("worker", ["threads", "gevent"])
def test_one_worker_starts_the_shipper_which_ends_with_everything_shipped(tmp_path, worker):
    load = Load(clients=8, pause_s=0.01)
    with loaded(tmp_path, load, worker=worker) as gateway:
        first = until(lambda: shipper_of(gateway), "no shipper was started")
        parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent in gateway.worker_pids()
        assert not any("socket" in os.readlink(file) for file in Path(f"/proc/{first}/fd").iterdir())
        os.kill(parent, signal.SIGKILL)
        second = until(lambda: shipper_of(gateway) not in (None, first) and shipper_of(gateway), "it was not replaced")
        assert len(load.finished) > 0
        load.stop()
        gateway.stop()
        until(lambda: not Path(f"/proc/{second}").exists(), "the shipper has not ended")
        told = shipping.told(gateway.folder / "var")
        assert (told["pid"], told["behind_bytes"], told["problem"]) == (second, 0, None)
    ids = {row.id for row in shipped_after(gateway, None)}
    assert load.finished <= ids
    assert "Traceback" not in gateway.log
