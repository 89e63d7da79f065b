"""Spans on their way to a collector elsewhere: through the company's proxy, by its authorities, or lost and counted."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from gateways import ECHO, free_port
from proxies import Proxy
from test_traces import said, spans
from test_upstream import CREDENTIALS, with_password
from upstreams import Upstream, head

from plugins.traces import Traces
from proxy.metrics.scrape import Scrape
from proxy.settings import Connection
from proxy.testing import Rig, configured

AUTHORITY = trustme.CA()
TAKEN = head(200, content_length=0)
LOST = re.compile(rb"^lockgate_spans_dropped_total (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, `client.pem` and `key.pem` of the company's authority, and `other.pem` of another one."""
    folder = tmp_path_factory.mktemp("pems")
    AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    mine = AUTHORITY.issue_cert("gateway@client.test")
    mine.cert_chain_pems[0].write_to_path(folder / "client.pem")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    return folder


def secure(answer: bytes = TAKEN, clients: bool = False) -> Upstream:
    """Return a collector called `collector.test` with a certificate of the company, which may ask for one as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("collector.test").configure_cert(context)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        AUTHORITY.configure_trust(context)
    return Upstream(lambda _: answer, tls=context)


class Sending:
    """A gateway with `[egress]` as given, and the plugin that sends spans of its exchanges to `endpoint`."""

    def __init__(self, rig: Rig, endpoint: str, egress: Connection) -> None:
        self.rig = rig
        rig.gateway.settings = replace(rig.gateway.settings, egress=egress)
        self.plugin = rig.gateway.plugins["traces"] = configured(Traces, endpoint=endpoint)
        self.plugin.on_start(rig.gateway)

    def exchange(self) -> None:
        """Let one exchange through the plugin, from its beginning to its end."""
        exchange = self.rig.run().exchange
        self.plugin.on_request(exchange)
        self.plugin.on_complete(exchange)

    def lost(self) -> float:
        """End the plugin, and return how many spans are counted as lost."""
        self.plugin.on_stop()
        found = LOST.search(Scrape(self.rig.gateway.state / "metrics").text())
        assert found
        return float(found[1])


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setattr("plugins.traces.EXPORT_S", 0.5)
    with Rig() as rig:
        yield lambda endpoint, **egress: Sending(rig, endpoint, Connection(**egress))


@contextmanager
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The log's lines of the block, of any library, that an operator sees."""
    told: list[str] = []
    with caplog.at_level(logging.INFO):
        caplog.clear()
        yield told
    told += [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_spans_reach_a_collector_with_the_companys_certificate_behind_its_proxy(
    start_gateway: Callable[..., Any], worker: str, pems: Path, tmp_path: Path
) -> None:
    with secure(clients=True) as collector, Proxy(auth=CREDENTIALS) as proxy:
        (tmp_path / "proxy").write_text(with_password(proxy))
        (tmp_path / "token").write_text("Bearer some-secret")
        toml = f"""{ECHO.replace('["keys"]', '["traces", "keys"]')}
[plugins.traces]
use = "traces"
endpoint = "https://collector.test:{collector.port}/v1/traces"
authorization = {{ file = "{tmp_path}/token" }}

[egress]
proxy = {{ file = "{tmp_path}/proxy" }}
ca_file = "{pems}/ca.pem"
client_cert = "{pems}/client.pem"
client_key = "{pems}/key.pem"
"""
        wrong = {"HTTPS_PROXY": "http://127.0.0.1:9", "REQUESTS_CA_BUNDLE": str(pems / "other.pem")}
        wrong |= {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(pems / "other.pem"), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9999"}
        gateway = start_gateway(toml, worker=worker, env=wrong)
        with gateway.wire() as wire:
            answers = [wire.post({"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}) for _ in range(3)]
        assert gateway.stop() == 0
        assert [answer.status for answer in answers] == [200] * 3
        assert {said(span.attributes)["lockgate.request.id"] for span in spans(collector)} == {
            answer.headers["x-request-id"] for answer in answers
        }
        assert {(asked.method, asked.target) for asked in proxy.asked} == {
            ("CONNECT", f"collector.test:{collector.port}")
        }
        for request in collector.requests:
            assert request.headers["authorization"] == "Bearer some-secret"
            assert "proxy-authorization" not in request.headers
        assert "spans" not in gateway.log


def test_a_collector_that_needs_no_proxy_is_told_without_it(sending: Callable[..., Sending]) -> None:
    with Upstream(lambda _: TAKEN) as collector:
        nobody = f"http://127.0.0.1:{free_port()}"
        own = sending(f"http://{collector.address}/v1/traces", proxy=nobody, no_proxy=("127.0.0.0/8",))
        own.exchange()
        assert own.lost() == 0
        assert len(spans(collector)) == 1


@pytest.mark.parametrize(
    ("egress", "proxied", "came"),
    [
        ({"ca_file": "other.pem"}, {}, "SSLError"),
        ({"ca_file": "gone.pem"}, {}, "SSLError"),
        ({"ca_file": "ca.pem", "client_cert": None}, {}, "SSLError|ConnectionError"),
        ({}, {"auth": "Basic other"}, "ProxyError"),
        ({}, {"then": "refuse"}, "ProxyError"),
        ({}, {"then": "drop"}, "ProxyError"),
        ({}, None, "ProxyError"),
    ],
    ids=[
        "another authority",
        "no authority",
        "no client certificate",
        "other credentials",
        "a refusal",
        "a drop",
        "no proxy",
    ],
)
def test_what_cannot_be_sent_is_lost_counted_and_told_once(
    sending: Callable[..., Sending],
    pems: Path,
    caplog: pytest.LogCaptureFixture,
    egress: dict[str, Any],
    proxied: dict[str, str] | None,
    came: str,
) -> None:
    own = {"ca_file": "ca.pem", "client_cert": "client.pem", "client_key": "key.pem"} | egress
    files = {name: pems / file for name, file in own.items() if file is not None and own["client_cert"] is not None}
    files |= {"ca_file": pems / own["ca_file"]}
    with secure(clients=True) as collector, Proxy(**(proxied or {})) as proxy, warnings(caplog) as told:
        url = with_password(proxy) if proxied is not None else f"http://me:p%40ss@127.0.0.1:{free_port()}"
        made = sending(f"https://collector.test:{collector.port}/v1/traces?key=canary", proxy=url, **files)
        for _ in range(3):
            made.exchange()
        made.plugin._provider.force_flush()
        made.exchange()
        assert made.lost() == 4
        assert spans(collector) == []
    [line] = told
    assert re.fullmatch(f"spans are lost: of the collector came ({came})", line)


@pytest.mark.parametrize("status", [301, 401, 503])
def test_an_answer_that_takes_nothing_is_told_by_its_status(
    sending: Callable[..., Sending], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    answer = head(status, content_length=0, location="https://login.test/")
    with Upstream(lambda _: answer) as collector, warnings(caplog) as told:
        made = sending(f"http://{collector.address}/v1/traces")
        made.exchange()
        assert made.lost() == 1
    assert told == [f"spans are lost: of the collector came HTTP {status}"]


def test_a_proxy_that_hangs_holds_no_exchange(sending: Callable[..., Sending], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.traces.EXPORT_S", 60.0)
    monkeypatch.setattr("plugins.traces.STOP_S", 0.1)
    monkeypatch.setattr("plugins.traces.MOST_WAITING", 600)
    with Proxy(then="hang") as proxy:
        made = sending("https://collector.test/v1/traces", proxy=proxy.url)
        exchange = made.rig.run().exchange
        for _ in range(1000):
            made.plugin.on_request(exchange)
            made.plugin.on_complete(exchange)
        # All of them are over, and the first batch is still where it was.
        assert made.lost() == 1000
