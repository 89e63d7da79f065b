"""The admin application: it answers when the gateway cannot, and tells who has a key what the ledger knows."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from gateways import ECHO, MOCK, START_S, Gateway, free_port
from states import settings_in
from upstreams import Gate, Upstream, chunked, sse, streaming
from wire import PATIENCE_S

from proxy import ConfigError, cli
from proxy.access.keys import new_id
from proxy.admin.app import create_app
from proxy.admin.keys import AdminKeys
from proxy.counters import Unavailable
from proxy.metrics.registry import Registry
from proxy.records.database import migrate
from proxy.settings import AdminSettings
from proxy.testing import stream


class Admin:
    """`lockgate admin` beside a gateway, in processes of its own, from its making until `stop()`."""

    def __init__(self, config: Path) -> None:
        self.port = free_port()
        with config.open("a") as file:
            file.write(f'\n[admin]\nbind = "127.0.0.1:{self.port}"\n')
        command = [sys.executable, "-c", "from proxy.cli import main; main()", "admin", "--config", str(config)]
        with (config.parent / "admin.log").open("w") as log:
            self._process = subprocess.Popen(command, cwd=config.parent, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                assert self.get("/healthz")[0] == 200
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError("the admin application did not start")

    def get(self, path: str, key: str | None = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the body, parsed where it is JSON."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            given["authorization"] = f"Bearer {key}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, START_S)) as connection:
            connection.request("GET", path, headers=given)
            response = connection.getresponse()
            body = response.read()
            is_json = response.getheader("content-type") == "application/json"
            return response.status, json.loads(body) if is_json else body

    def wait(self, path: str, key: str | None, wanted: Any) -> Any:
        """Ask until `wanted` is true of the body, and return that."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(body := self.get(path, key)[1]):
            assert time.monotonic() < deadline, body
            time.sleep(0.1)
        return body

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_S)


def run(*arguments: str, config: Path) -> str:
    """Run a command of `lockgate admin key` and return what it printed."""
    result = CliRunner().invoke(cli.main, ["admin", "key", *arguments, "--config", str(config)])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Admin, str]]:
    """A gateway that has answered once, its admin application, and a key of that."""
    gateway = Gateway(tmp_path_factory.mktemp("admin"), ECHO)
    admin = Admin(gateway.config)
    with gateway.wire() as wire:
        assert wire.post({"model": "echo", "messages": [{"role": "user", "content": "canary"}]}).status == 200
    yield gateway, admin, run("create", "--name", "tests", config=gateway.config)
    admin.stop()
    gateway.stop()


def test_health_readiness_and_metrics_need_no_key_from_this_machine(served: Any) -> None:
    gateway, admin, _ = served
    assert admin.get("/healthz") == (200, {"status": "ok"})
    status, ready = admin.get("/readyz")
    assert status == 200 and set(ready["checks"].values()) == {"ok"}
    assert set(ready["checks"]) == {"workers", "config", "database", "counters", "journal", "targets"}
    counted = b'lockgate_requests_total{code="",model="echo",status="200"} 1.0'
    text = admin.wait("/metrics", None, lambda body: counted in body)
    assert b"lockgate_workers 1.0" in text and b"canary" not in text
    assert gateway.key.encode() not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "10.0.0.1"},
        {"forwarded": "for=1"},
        {"via": "1.1 p"},
        {"host": "evil.test"},
        {"origin": "http://evil.test"},
    ],
    ids=str,
)
def test_metrics_for_somebody_else_need_a_key(served: Any, headers: dict[str, str]) -> None:
    _, admin, key = served
    assert admin.get("/metrics", **headers)[0] == 401
    assert admin.get("/metrics", key, **headers)[0] == 200


def test_usage_and_requests_need_an_admin_key(served: Any) -> None:
    gateway, admin, key = served
    for path in ("/api/usage", "/api/requests"):
        for wrong in (None, gateway.key, key[:-1], key + "x", "", "lga_", "é" * 300):
            status, body = admin.get(path, wrong and wrong.encode("utf-8").decode("latin-1"))
            assert (status, body["error"]["code"]) == (401, "invalid_admin_key"), wrong
        assert admin.get(path, key)[0] == 200


def test_usage_and_requests_are_those_of_the_ledger(served: Any) -> None:
    _, admin, key = served
    [sums] = admin.wait("/api/usage?by=model&since=1d", key, lambda body: body["data"])["data"]
    assert (sums["model"], sums["requests"], sums["errors"]) == ("echo", 1, 0)
    [request] = admin.get("/api/requests?model=echo&status=200&since=1h", key)[1]["data"]
    assert request["target"] == "echo" and request["state"] == "ended"
    assert admin.get("/api/requests?model=other", key)[1]["data"] == []
    page = admin.get("/api/requests?limit=1", key)[1]
    assert len(page["data"]) == 1 and page["source"] == "ledger"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("usage?by=name", "by"),
        ("usage?by=team,team", "by"),
        ("usage?by=hour&since=4w&until=2d", "by"),
        ("usage?since=yesterday", "since"),
        ("usage?unknown=1", "unknown"),
        ("requests?limit=0", "limit"),
        ("requests?limit=9999", "limit"),
        ("requests?status=ok", "status"),
        ("requests?after=nonsense", "after"),
        ("requests?teams=a", "teams"),
        ("requests?id=%00", "id"),
        ("usage?team=a%0Ab", "team"),
    ],
)
def test_a_query_that_cannot_be_answered_says_which_part(served: Any, query: str, param: str) -> None:
    _, admin, key = served
    status, body = admin.get(f"/api/{query}", key)
    if query.startswith("usage?by=hour"):
        assert status in (200, 400), "as long as hours are kept"
    else:
        assert (status, body["error"]["param"]) == (400, param)


def test_other_urls_and_methods_are_refused_as_json(served: Any) -> None:
    _, admin, key = served
    assert admin.get("/nothing", key)[0] == 404
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin.port, PATIENCE_S)) as connection:
        connection.request("POST", "/metrics", b"{}")
        response = connection.getresponse()
        assert response.status == 405 and "error" in json.loads(response.read())


def test_a_revoked_key_opens_nothing_from_then_on(served: Any) -> None:
    gateway, admin, _ = served
    made = json.loads(run("create", "--name", "short", "--json", config=gateway.config))
    assert admin.get("/api/usage", made["key"])[0] == 200
    assert made["id"] in run("list", config=gateway.config)
    run("revoke", made["id"], config=gateway.config)
    assert admin.get("/api/usage", made["key"])[0] == 401
    assert made["id"] not in run("list", config=gateway.config)


def test_a_gateway_that_is_full_does_not_touch_it(tmp_path: Path, worker: str) -> None:
    gate = Gate()
    with Upstream(lambda _: [streaming(), chunked(sse(stream()[:2], done=False), last=False), gate]) as upstream:
        # The stream is held for as long as all that follows takes.
        toml = MOCK.format(url=upstream.url).replace("idle = 60", "idle = 120")
        gateway = Gateway(tmp_path, toml, server={"threads": 1}, worker=worker)
        admin = Admin(gateway.config)
        try:
            with gateway.wire() as held:
                held.request({"model": "mock", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
                held.read_until(b"data:")
                # Not before: accepting one connection makes a worker of one thread full for the request of another.
                with gateway.wire() as turned_away:
                    assert turned_away.get("/healthz").status == 503
                assert admin.get("/healthz")[0] == 200 and admin.get("/readyz")[0] == 200
                assert b"lockgate_requests_in_flight 1.0" in admin.get("/metrics")[1]
                admin.wait("/metrics", None, lambda body: b"lockgate_turned_away_total 1.0" in body)
                admin.wait("/metrics", None, lambda body: b"lockgate_threads_busy 1.0" in body)
        finally:
            gate.open()
            admin.stop()
            gateway.stop()


class Local:
    """The application in this process, for a state in which no gateway runs."""

    def __init__(self, state: Path, **admin: Any) -> None:
        migrate(settings_in(state))
        self.settings = replace(settings_in(state), admin=AdminSettings(**admin))
        self.app = create_app(self.settings)
        (state / "journal").mkdir(exist_ok=True)
        self.workers = Registry(state / "metrics")

    def get(self, path: str, address: str = "127.0.0.1", key: str = "") -> Any:
        client = self.app.test_client()
        return client.get(path, headers={"authorization": f"Bearer {key}"}, environ_base={"REMOTE_ADDR": address})

    def checks(self) -> dict[str, str]:
        answer = self.get("/readyz")
        checks: dict[str, str] = answer.json["checks"]
        assert (answer.status_code == 200) == (set(checks.values()) == {"ok"})
        return checks


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    made.workers.close()


def test_it_is_not_ready_without_a_worker_or_a_configuration(local: Local) -> None:
    local.workers.close()
    checks = local.checks()
    assert checks["workers"] == "no worker lives"
    assert checks["config"] == "no gateway has been started with this state"


def test_it_is_not_ready_while_the_copy_that_workers_load_is_wrong(local: Local, tmp_path: Path) -> None:
    copy = tmp_path / "active" / f"{os.getpid()}-1" / "lockgate.toml"
    copy.parent.mkdir(parents=True)
    copy.write_text("chian = []")
    assert "chian: unknown key" in local.checks()["config"]


def test_it_is_not_ready_while_all_breakers_are_open(local: Local) -> None:
    states = local.workers.gauge("lockgate_breakers", "Breakers.", ["target", "state"])
    states.labels("up", "open").set(1)
    states.labels("up", "closed").set(0)
    assert local.checks()["targets"] == "the breakers of all targets are open"


def test_it_is_ready_with_one_breaker_closed(local: Local) -> None:
    states = local.workers.gauge("lockgate_breakers", "Breakers.", ["target", "state"])
    states.labels("up", "open").set(1)
    states.labels("other", "closed").set(1)
    assert local.checks()["targets"] == "ok"


def test_it_is_not_ready_while_a_store_is_away(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def away() -> None:
        raise Unavailable("a secret place is away")

    readiness = local.app.extensions["lockgate"].readiness
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(readiness._counters, "probe", away)
    (local.settings.server.state / "lockgate.db").unlink()
    checks = local.checks()
    assert checks["journal"] == "cannot be written: No space left on device"
    assert checks["counters"] == checks["database"] == "out of reach"


def test_probes_are_answered_from_memory_for_a_moment(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = local.app.extensions["lockgate"].readiness
    first = readiness.check()
    monkeypatch.setattr(readiness, "_scrape", None)
    assert readiness.check() is first


def test_a_check_that_takes_long_holds_up_no_other_probe(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = local.app.extensions["lockgate"].readiness
    first = readiness.check()
    monkeypatch.setattr("proxy.admin.readiness.HOLDS_S", 0.0)
    under_way, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(readiness, "_config", lambda: under_way.set() or go_on.wait(PATIENCE_S) and None)
    slow = threading.Thread(target=readiness.check)
    slow.start()
    assert under_way.wait(PATIENCE_S)
    assert readiness.check() is first
    go_on.set()
    slow.join(PATIENCE_S)
    assert readiness.check()["config"] is None


def test_a_copy_that_a_reload_has_just_removed_is_none(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = local.settings.server.state / "active" / "1-1" / "lockgate.toml"
    readiness = local.app.extensions["lockgate"].readiness
    checked = SimpleNamespace(report={"problems": []}, close=list)
    monkeypatch.setattr("proxy.admin.readiness.Flight", lambda path: checked)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone, Path(__file__)]))
    assert readiness._config() is None
    assert readiness._checked[0] == Path(__file__)


def test_a_ledger_that_is_away_is_said(local: Local) -> None:
    key = AdminKeys(local.settings).create(new_id(), "tests")
    (local.settings.server.state / "lockgate.db").unlink()
    answer = local.get("/api/usage", key=key)
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "database_unavailable")
    assert local.get("/api/requests", key=key).json["source"] == "journal"


@pytest.mark.parametrize(("metrics", "here", "elsewhere"), [("local", 200, 401), ("open", 200, 200), ("key", 401, 401)])
def test_who_may_read_the_metrics_is_configured(tmp_path: Path, metrics: str, here: int, elsewhere: int) -> None:
    local = Local(tmp_path, metrics=metrics)
    key = AdminKeys(local.settings).create(new_id(), "prometheus")
    assert local.get("/metrics").status_code == here
    for address in ("10.1.2.3", "", "unix"):
        assert local.get("/metrics", address).status_code == elsewhere
        assert local.get("/metrics", address, key).status_code == 200
    local.workers.close()


def test_the_keys_are_kept_as_digests_for_their_owner_alone(tmp_path: Path) -> None:
    keys = AdminKeys(settings_in(tmp_path))
    texts = [keys.create(new_id(), name) for name in ("one", "two")]
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    kept = keys.path.read_text()
    assert all(text.startswith("lga_") and text.rpartition("_")[2] not in kept for text in texts)
    assert all(map(keys.opens, texts)) and not keys.opens(texts[0][:-1]) and not keys.opens("")
    assert "digest" not in repr(keys.read()[0])
    keys.path.chmod(0o640)
    with pytest.raises(ConfigError, match="open to other users"):
        keys.opens(texts[0])


def test_a_damaged_file_of_keys_opens_nothing(tmp_path: Path) -> None:
    keys = AdminKeys(settings_in(tmp_path))
    text = keys.create(new_id(), "one")
    keys.path.write_text("{}\n")
    with pytest.raises(ConfigError, match="damaged"):
        keys.opens(text)


def test_commands_that_cannot_be_done_say_why(tmp_path: Path) -> None:
    config = tmp_path / "lockgate.toml"
    config.write_text(ECHO)
    for arguments, told in (
        (["key", "revoke", "nobody"], "there is no admin key 'nobody'"),
        (["key", "create", "--name", "\n"], "printable characters are needed"),
    ):
        result = CliRunner().invoke(cli.main, ["admin", *arguments, "--config", str(config)])
        assert result.exit_code == 1 and told in result.stderr
    config.write_text(ECHO + '[admin]\nmetrics = "everybody"\n')
    result = CliRunner().invoke(cli.main, ["admin", "--config", str(config)])
    assert result.exit_code == 1 and "admin.metrics: must be one of local, key, open" in result.stderr
