"""What an exchange waits for a Redis that is gone, slow or hard to find: little, once, and never for a connection."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import redises
from hypothesis import given
from hypothesis import strategies as st

from proxy.counters import Claim, Counters, Rate, Slots, Unavailable, Window, patience, places, redis
from proxy.counters.redis import Redis, connect
from proxy.counters.upkeep import FAILURES
from proxy.errors import Reject
from proxy.exchange import Exchange
from proxy.metrics.registry import Registry
from proxy.metrics.scrape import Scrape
from proxy.secrets import Secret
from proxy.settings import CountersSettings

needs_server = pytest.mark.skipif(redises.program() is None, reason="redis-server is not installed")

RATE, DAY, SLOTS = Rate("r", 10**9), Window("d", 100, "day", soft=True), Slots("s", 5)


#: A busy machine is no outage.
LONG_S = 1.0


def connections(port, most=60, **options):
    return connect(CountersSettings(store="redis", url=Secret(f"redis://127.0.0.1:{port}/0"), **options), most)


def exchange():
    return Exchange("req_1", "POST", "/v1/chat/completions", {}, "10.1.2.3")


def until(condition):
    deadline, waiting = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.02)


def take(store):
    claim = Claim(os.urandom(16), [(RATE, 1)], [])
    store.take(claim)
    return claim


class Late:
    """Connections on which an answer takes as long as `answers_s` say, one after the other, on a clock of their own."""

    def __init__(self):
        self.now = 1000.0
        self.answers_s = []

    def monotonic(self):
        return self.now

    def call(self, until, *command):
        if self.answers_s:
            left_s, answer_s = until - self.now, self.answers_s.pop(0)
            self.now += min(left_s, answer_s)
            if answer_s > left_s:
                raise Unavailable("late", divide=True)
        buckets = int(command[2]) if command[0] == "EVALSHA" else 0
        return [1, int(self.now * 1000), *[1, 0, 0] * buckets]

    def renew(self):
        """They need not be."""

    def close(self):
        """They need not be."""


@contextlib.contextmanager
def clocked():
    late = Late()
    with pytest.MonkeyPatch.context() as patch:
        for module in (patience, redis):
            patch.setattr(module, "time", SimpleNamespace(monotonic=late.monotonic, time=time.time))
        yield late


@pytest.fixture
def late():
    with clocked() as made:
        yield made


@given(st.lists(st.floats(0, 0.2), min_size=3, max_size=3))
def test_two_plugins_and_settling_wait_50_ms_together_however_late_redis_answers(answers_s):
    with clocked() as late:
        counters, one = Counters(Redis(late)), exchange()
        late.answers_s, began = list(answers_s), late.now
        claims = [counters.take([wanted], one, divide=True) for wanted in ((RATE, 1), (DAY, 5))]
        counters.together(lambda _: [counters.settle(claim, 0) for claim in claims], one)
        counters.close()
    assert late.now - began <= 0.050001
    # What comes at once is used, and what has come to nothing was counted here.
    if max(answers_s) < 0.005:
        assert not any(claim.local for claim in claims)
    if min(answers_s) > 0.04:
        assert all(claim.local for claim in claims)


def test_a_late_answer_is_no_outage_and_several_in_a_row_are_one(late):
    def local():
        claim = counters.take([(RATE, 1)], divide=True)
        counters.settle(claim, 0)
        return claim.local

    counters = Counters(Redis(late))
    for failures in (FAILURES - 1, 1):
        late.answers_s = [60.0] * failures
        assert [local() for _ in range(failures + 1)] == [True] * failures + [False]
    late.answers_s = [60.0] * 1000
    for _ in range(FAILURES):
        assert not counters.down
        assert local()
    assert counters.down
    left = len(late.answers_s)
    assert local()
    with pytest.raises(Reject):
        counters.take([(DAY, 1)])
    assert left - len(late.answers_s) <= 1  # a probe's, if any
    late.answers_s.clear()
    until(lambda: not counters.down)
    assert not local()
    counters.close()


def test_a_redis_that_answers_too_late_for_the_last_step_is_out_of_reach_until_it_is_faster(late):
    def run():
        one = exchange()
        claims = [counters.take([wanted], one, divide=True) for wanted in ((RATE, 1), (DAY, 5))]
        counters.together(lambda _: [counters.settle(claim, 0) for claim in claims], one)
        return [claim.local for claim in claims]

    counters = Counters(Redis(late))
    late.answers_s = [0.018] * 10_000
    assert [run() for _ in range(FAILURES)] == [[False, False]] * FAILURES
    left = len(late.answers_s)
    assert counters.down
    until(lambda: len(late.answers_s) < left - 3)
    assert counters.down
    assert run() == [True, True]
    late.answers_s = [0.01] * 10_000
    until(lambda: not counters.down)
    assert [run() for _ in range(FAILURES + 1)] == [[False, False]] * (FAILURES + 1)
    assert not counters.down
    counters.close()


def test_what_exchanges_waited_is_a_metric_also_where_redis_was_gone(late, tmp_path):
    metrics = Registry(tmp_path)
    counters = Counters(Redis(late), metrics=metrics)
    for answers_s in ([0.02, 0.001], [60.0]):
        late.answers_s, one = list(answers_s), exchange()
        claim = counters.take([(RATE, 1)], one, divide=True)
        counters.together(lambda _, claim=claim: counters.settle(claim, 0), one)
    counters.together(lambda _: None, exchange())  # who took nothing has not waited
    rows = Scrape(tmp_path).totals()[0]["lockgate_counters_wait_seconds"].rows
    *counts, seconds = rows[()]
    assert (sum(counts), round(seconds, 6)) == (2, 0.02 + 0.001 + 0.04)
    counters.close()
    metrics.slot.close()


def test_a_name_that_nobody_knows_is_waited_for_by_a_thread_of_its_own(monkeypatch):
    asked, over = [], threading.Event()

    def hang(*_):
        asked.append(threading.current_thread().name)
        over.wait(20)
        raise socket.gaierror("nobody knows")

    monkeypatch.setattr(places.redis.connection.socket, "getaddrinfo", hang)
    store = Redis(connections(1))
    for _ in range(3):
        with pytest.raises(Unavailable, match="no connection in time"):
            take(store)
    assert asked == ["redis"]
    over.set()
    store.close()


def test_a_host_that_takes_no_connection_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        # What fills the line of a server that accepts nobody: the kernel answers no further one.
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        counters = Counters(Redis(connections(full.getsockname()[1]), wait_s=LONG_S))
        assert counters.down
        assert counters.take([(RATE, 1)], divide=True).local
        counters.close()


def test_a_server_that_says_a_little_again_and_again_is_not_waited_for():
    over = threading.Event()

    def drip():
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(b"*1000000\r\n")
            while not over.wait(0.01):
                client.sendall(b":1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        store = Redis(connections(server.getsockname()[1]), wait_s=LONG_S)
        with pytest.raises(Unavailable, match="TimeoutError"):
            take(store)
        assert thread.is_alive()
        over.set()
        thread.join()
        store.close()


@needs_server
def test_sentinels_that_are_dead_are_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.counters.places.CONNECT_S", 0.5)
    monkeypatch.setattr("proxy.counters.redis.READY_S", 5.0)
    asked = []
    with redises.running() as server, contextlib.ExitStack() as stack:
        dead = []
        for _ in range(2):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            dead.append(f"127.0.0.1:{listener.getsockname()[1]}")
            thread = threading.Thread(target=_count, args=(listener, asked))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        port = redises.free_port()
        file = tmp_path / "sentinel.conf"
        file.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
        stack.enter_context(redises.sentinel(file, port))
        counters = Counters(Redis(connections(1, sentinels=(*dead, f"127.0.0.1:{port}"), master="main"), wait_s=LONG_S))
        assert not counters.down
        for _ in range(3):
            counters.store._connections.renew()
            assert not counters.take([(RATE, 1)]).local
        assert len(asked) == 2
        counters.close()


def _count(listener, asked):
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        while True:
            asked.append(stack.enter_context(listener.accept()[0]))


@needs_server
def test_threads_share_the_connections_that_there_are(redis_server):
    store = Redis(connections(redis_server.port, most=2), wait_s=LONG_S)
    threads = [threading.Thread(target=lambda: claims.extend(take(store) for _ in range(50))) for _ in range(16)]
    claims = []
    with redis_server.client() as client:
        before = client.info("stats")["total_connections_received"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.info("stats")["total_connections_received"] - before <= 2
    assert len(claims) == 800
    store.close()


@needs_server
def test_a_connection_that_was_closed_while_it_rested_is_not_used(redis_server, monkeypatch):
    monkeypatch.setattr("proxy.counters.connections.REST_S", 0.0)
    store = Redis(connections(redis_server.port), wait_s=LONG_S)
    take(store)
    with redis_server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert take(store).granted
    store.close()


@needs_server
def test_a_replica_that_becomes_the_master_is_found_again():
    with redises.running() as server, server.client() as client:
        client.replicaof("127.0.0.1", redises.free_port())
        counters = Counters(Redis(connections(server.port), wait_s=LONG_S))
        assert counters.down
        client.replicaof("NO", "ONE")
        until(lambda: not counters.down)
        assert not counters.take([(RATE, 1), (SLOTS, 1)]).local
        counters.close()
