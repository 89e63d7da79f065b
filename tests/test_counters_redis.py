"""The counters in Redis: on a cluster, behind a password, TLS or Sentinels, and while it is frozen, killed or full."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest
import redises
import trustme

from proxy.counters import Claim, Counters, Rate, Slots, Unavailable, Window
from proxy.counters.redis import Redis, connect
from proxy.counters.upkeep import FAILURES
from proxy.errors import Reject
from proxy.secrets import Secret
from proxy.settings import CountersSettings

pytestmark = pytest.mark.skipif(redises.program() is None, reason="redis-server is not installed")

RATE, DAY, SLOTS = Rate("r", 600), Window("d", 100, "day"), Slots("s", 5)


def connections(url, **options):
    return connect(CountersSettings(store="redis", url=Secret(url), **options), 60)


def store(url, **options):
    return Redis(connections(url, **options), wait_s=1.0)  # a busy machine is no outage


def take(made, *wants):
    claim = Claim(os.urandom(16), list(wants), [])
    made.take(claim)
    return claim


def works(made):
    claim = take(made, (RATE, 1), (DAY, 1), (SLOTS, 1))
    made.settle([(claim, [1, 1, 1])])
    made.renew([(SLOTS, os.urandom(16))])
    made.restore([(DAY, time.time(), 5)])
    kinds = {status.kind for status in made.read()}
    made.close()
    return claim.granted and kinds == {"rate", "window", "slots"}


def until(condition):
    deadline = time.monotonic() + 20
    waited = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waited.wait(0.02)


def test_it_counts_by_the_servers_time(redis_server):
    made = store(redis_server.url)
    name = os.urandom(8).hex()
    claim = take(made, (Rate(name, 60_000, 600), 600))
    assert claim.states[0].left == 0
    until(lambda: take(made, (Rate(name, 60_000, 600), 100)).granted)
    made.close()


def test_a_host_whose_clock_is_wrong_counts_in_the_servers_window(redis_server, monkeypatch):
    made, day = store(redis_server.url), Window(os.urandom(8).hex(), 100, "day")
    take(made, (day, 30))
    for wrong_s in (-86400.0, 86400.0):
        elsewhere = store(redis_server.url)
        monkeypatch.setattr("proxy.counters.redis.time.time", lambda by=wrong_s: _now() + by)
        assert take(elsewhere, (day, 0)).states[0].left == 70
        elsewhere.close()
    made.close()


_now = time.time


def test_it_runs_on_a_cluster():
    with redises.running(cluster_enabled="yes") as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        # Not the client for clusters, which would hide it if two keys of a script lay in different slots.
        assert works(store(server.url))
        assert works(store(server.url, cluster=True))


def test_a_password_is_needed_and_never_shown(caplog):
    with redises.running(requirepass="canary-of-redis") as server:
        right = f"redis://:canary-of-redis@127.0.0.1:{server.port}/0"
        assert works(store(right))
        for url in (server.url, right.replace("canary", "canary-2")):
            counters = Counters(store(url))
            with pytest.raises(Reject):
                counters.take([(RATE, 1)])
            counters.close()
        with pytest.raises(Unavailable) as failure:
            take(store(server.url), (RATE, 1))
    assert "canary" not in caplog.text + str(failure.value) + repr(connect_settings(right))


def connect_settings(url):
    return CountersSettings(store="redis", url=Secret(url))


def test_tls_is_checked(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    port = redises.free_port()
    options = {"tls_port": str(port), "tls_auth_clients": "no", "tls_ca_cert_file": str(tmp_path / "ca.pem")}
    with redises.running(**options, tls_cert_file=str(tmp_path / "cert.pem"), tls_key_file=str(tmp_path / "key.pem")):
        url = f"rediss://127.0.0.1:{port}/0"
        assert works(store(url, ca_file=tmp_path / "ca.pem"))
        for authorities in (tmp_path / "other.pem", None):
            made = store(url, ca_file=authorities)
            with pytest.raises(Unavailable):
                take(made, (RATE, 1))
            made.close()


def test_sentinels_say_where_it_is(tmp_path):
    with redises.running() as server:
        port = redises.free_port()
        file = tmp_path / "sentinel.conf"
        file.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
        with redises.sentinel(file, port):
            made = store("redis://nobody.invalid:1/0", sentinels=(f"127.0.0.1:{port}",), master="main")
            assert works(made)
            unknown = store("redis://nobody.invalid:1/0", sentinels=(f"127.0.0.1:{port}",), master="other")
            with pytest.raises(Unavailable):
                take(unknown, (RATE, 1))
            unknown.close()


class Asked(Redis):
    """A store that counts who asked it for nothing."""

    def __init__(self, made):
        super().__init__(made)
        self.in_vain = []

    def _patiently(self, *arguments):
        try:
            return super()._patiently(*arguments)
        except Unavailable:
            self.in_vain.append(threading.current_thread())
            raise


class Load:
    """Threads that take and settle for as long as it runs, and count how often."""

    def __init__(self, counters, threads=8):
        self._counters = counters
        self._over = threading.Event()
        self.taken = 0
        self.failed = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._over.is_set():
            try:
                claim = self._counters.take([(RATE, 1), (SLOTS, 1)], divide=True)
                self._counters.settle(claim, 1, 1)
            except Exception as failure:
                self.failed.append(failure)
            self.taken += 1
            self._over.wait(0.005)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_redis_that_is_gone_holds_nobody_up_and_is_found_again(how, caplog):
    caplog.set_level(logging.WARNING, "lockgate.counters")
    with redises.running() as server:
        made = Asked(connections(server.url))
        counters = Counters(made, divided=4)
        load = Load(counters)
        until(lambda: load.taken > 100)
        server.freeze() if how == "frozen" else server.kill()
        until(lambda: counters.down)
        seen = load.taken
        until(lambda: load.taken > seen + 300)
        with pytest.raises(Reject) as closed:
            counters.take([(DAY, 1)])
        assert closed.value.status == 503
        claim = counters.take([(Rate("other", 8), 1)], divide=True)
        assert (claim.local, claim.states[0].left) == (True, 1)
        server.thaw() if how == "frozen" else server.start()
        until(lambda: not counters.down)
        load.stop()
        assert not counters.take([(RATE, 1)]).local
        counters.close()
    assert load.failed == []
    # Those who found out, and whoever was waiting then. How long they waited is for the bench to tell.
    assert FAILURES <= len(made.in_vain) < FAILURES + 8
    said = [record.levelname for record in caplog.records if record.name == "lockgate.counters"]
    assert said == ["ERROR", "WARNING"]


def test_an_operation_is_not_tried_again():
    with redises.running() as server:
        made = store(server.url)
        take(made, (RATE, 1))
        with server.client() as client:
            client.config_resetstat()
            client.config_set("maxmemory", "1")
            with pytest.raises(Unavailable, match="OutOfMemoryError"):
                take(made, (RATE, 1))
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
            with pytest.raises(Unavailable):
                made.probe()
        made.close()


def test_a_replica_that_cannot_be_written_is_down():
    with redises.running() as server, server.client() as client:
        client.replicaof("127.0.0.1", redises.free_port())
        made = store(server.url)
        with pytest.raises(Unavailable):
            take(made, (RATE, 1))
        made.close()


def test_scripts_that_were_flushed_are_loaded_again(redis_server):
    made = store(redis_server.url)
    take(made, (RATE, 1))
    with redis_server.client() as client:
        client.script_flush()
    assert take(made, (RATE, 1)).granted
    made.close()


def test_everything_it_keeps_runs_out(redis_server):
    made, name = store(redis_server.url), os.urandom(8).hex()
    claim = take(made, (Rate(name, 60), 5), (Window(name, 10, "month"), 5), (Slots(name, 5), 1))
    made.settle([(claim, [9, 9, 0])])
    take(made, (Slots(name, 5), 1))
    with redis_server.client() as client:
        left_s = {key: client.ttl(key) for key in client.scan_iter(f"*{name}*")}
    made.close()
    assert len(left_s) == 3
    assert all(0 < seconds <= 35 * 86400 for seconds in left_s.values())


def test_nothing_of_it_is_imported_where_it_is_not_configured():
    code = "import sys; import proxy.gateway; print([name for name in ('redis', 'lmdb') if name in sys.modules])"
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
