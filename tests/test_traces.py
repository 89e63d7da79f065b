"""The plugin `traces`: spans for an OpenTelemetry collector, before which nobody waits."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from gateways import ECHO, REPOSITORY
from marshmallow import ValidationError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from upstreams import Gate, Upstream, head

from plugins.traces import Traces
from proxy import Exchange, Reject, hookimpl
from proxy.settings import ProviderSettings
from proxy.testing import Raw, Rig, configured

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = PARENT.split("-")[1]


@pytest.fixture
def collector() -> Iterator[Upstream]:
    with Upstream(lambda _: head(200, content_length=0)) as made:
        yield made


def traces(collector: Upstream, **options: Any) -> Any:
    return configured(Traces, endpoint=f"http://{collector.address}/v1/traces", **options)


def spans(collector: Upstream) -> list[Any]:
    """Return the spans that arrived, with their attributes as a dict beside each."""
    found = []
    for request in collector.requests:
        batch = ExportTraceServiceRequest.FromString(gzip.decompress(request.body))
        for resource in batch.resource_spans:
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def said(attributes: Any) -> dict[str, Any]:
    values = {}
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        values[pair.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return values


def test_a_completion_is_a_span_by_the_conventions(collector: Upstream) -> None:
    with Rig(traces(collector)) as rig:
        body = {"messages": [{"role": "user", "content": "canary"}], "temperature": 0.5, "stop": ["canary"]}
        result = rig.run(body, "a canary", stream=True)
    [span] = spans(collector)
    told = said(span.attributes)
    assert span.name == "chat test-model" and len(span.trace_id) == 16 and span.parent_span_id == b""
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.provider.name"] == "upstream"
    assert told["gen_ai.request.model"] == "test-model" and told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.request.stream"] is True and told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["gen_ai.usage.input_tokens"] == 5 and told["gen_ai.usage.output_tokens"] == 2
    assert told["gen_ai.response.time_to_first_chunk"] > 0 and told["http.response.status_code"] == 200
    assert told["lockgate.subject"] == "tester" and told["lockgate.team"] == "testers"
    assert told["lockgate.request.id"] == result.exchange.id
    assert "error.type" not in told and span.status.code == 0
    [attempt] = span.events
    assert attempt.name == "lockgate.attempt" and said(attempt.attributes)["lockgate.target"] == "upstream"
    assert span.start_time_unix_nano <= attempt.time_unix_nano <= span.end_time_unix_nano
    assert b"canary" not in gzip.decompress(collector.requests[0].body)
    assert collector.requests[0].path == "/v1/traces"


def test_the_callers_trace_goes_on_to_the_upstream(collector: Upstream) -> None:
    with Rig(traces(collector)) as rig:
        result = rig.run(headers={"traceparent": PARENT, "tracestate": "vendor=canary"})
        sent = result.exchange.upstream_headers
    [span] = spans(collector)
    assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == PARENT.split("-")[2]
    assert sent == {"traceparent": f"00-{TRACE}-{span.span_id.hex()}-01"}


@pytest.mark.parametrize(
    "told", ["", "canary", PARENT.upper(), PARENT[:-1], f"ff{PARENT[2:]}", f"00-{'0' * 32}-{'0' * 16}-01", PARENT * 9]
)
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(collector: Upstream, told: str) -> None:
    with Rig(traces(collector)) as rig:
        sent = rig.run(headers={"traceparent": told}).exchange.upstream_headers
    [span] = spans(collector)
    assert span.parent_span_id == b"" and span.trace_id.hex() != TRACE
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", sent["traceparent"])


class Refuses:
    name = "refuses"

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        raise Reject(403, "not_here", "No.")


@pytest.mark.parametrize("first", [True, False])
def test_a_refusal_is_a_span_that_failed(collector: Upstream, first: bool) -> None:
    plugin = traces(collector)
    with Rig(*((Refuses, plugin) if first else (plugin, Refuses))) as rig:
        rig.run({"model": "canary", "messages": [{"role": "user", "content": "Hello"}]})
    [span] = spans(collector)
    assert span.name == "chat", "a name that nobody serves is a caller's word"
    assert said(span.attributes)["error.type"] == "not_here" and span.status.code == 2


def test_an_upstream_that_failed_is_told_attempt_by_attempt(collector: Upstream) -> None:
    with Rig(traces(collector)) as rig:
        rig.run(answer=Raw(500, [b"{}"]))
    [span] = spans(collector)
    assert said(span.attributes)["error.type"] == "upstream_error"
    assert said(span.events[0].attributes) == {
        "lockgate.target": "upstream",
        "http.response.status_code": 500,
        "error.type": "upstream_error",
    }


def test_numbers_of_a_refused_body_that_the_protocol_has_no_room_for_are_left_out(
    collector: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(traces(collector)) as rig:
        body = {"messages": [{"role": "user", "content": "Hello"}], "seed": 2**64 - 1, "max_tokens": 2**40}
        assert rig.run(body).status == 400
    [span] = spans(collector)
    told = said(span.attributes)
    assert told["gen_ai.request.max_tokens"] == 2**40 and "gen_ai.request.seed" not in told
    assert caplog.messages == []


def test_what_is_not_sampled_is_not_sent_but_goes_on(collector: Upstream) -> None:
    with Rig(traces(collector, share=0)) as rig:
        sent = rig.run().exchange.upstream_headers["traceparent"]
        assert int(sent[-2:], 16) & 1 == 0
        rig.run(headers={"traceparent": PARENT})
    assert [span.trace_id.hex() for span in spans(collector)] == [TRACE]


@pytest.mark.parametrize(("use", "called"), [("bedrock", "aws.bedrock"), ("azure", "azure.ai.openai"), ("mine", "up")])
def test_a_provider_is_called_what_the_conventions_call_it(collector: Upstream, use: str, called: str) -> None:
    with Rig() as rig:
        providers = {"up": ProviderSettings("up", use)}
        rig.gateway.settings = replace(rig.gateway.settings, providers=providers)
        plugin = traces(collector)
        plugin.on_start(rig.gateway)
        exchange = rig.run().exchange
        exchange.target = "up/some-model"
        plugin.on_complete(exchange)
        plugin.on_stop()
    [span] = spans(collector)
    assert said(span.attributes)["gen_ai.provider.name"] == called


def test_other_routes_have_no_span(collector: Upstream) -> None:
    with Rig(traces(collector)) as rig:
        rig.run(path="/v1/models")
    assert spans(collector) == []


def test_the_collector_is_told_who_sends(collector: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR", "Bearer some-secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Rig(traces(collector, authorization={"env": "COLLECTOR"}, service="gate")) as rig:
        rig.run()
    [request] = collector.requests
    assert request.headers["authorization"] == "Bearer some-secret"
    [resource] = ExportTraceServiceRequest.FromString(gzip.decompress(request.body)).resource_spans
    assert said(resource.resource.attributes)["service.name"] == "gate"


def test_a_collector_that_is_silent_holds_nobody_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.traces.MOST_WAITING", 512)
    gate = Gate()
    with Upstream(lambda _: [gate, head(200, content_length=0)]) as silent, Rig(traces(silent)) as rig:
        plugin = rig.gateway.plugins["traces"]
        for number in range(1500):
            exchange = Exchange(f"req_{number}", "POST", "/v1/chat/completions", {}, "", body={}, model="test-model")
            plugin.on_request(exchange)
            plugin.on_complete(exchange)
        silent.wait_request()
        gate.open()
        rig.close()
        assert 512 <= len(spans(silent)) <= 1024, "one batch on its way, one queue"


def test_a_collector_that_is_away_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Upstream() as gone:
        plugin = traces(gone)
    with Rig(plugin) as rig:
        assert rig.run().status == 200
    assert caplog.messages.count("spans are lost: of the collector came ConnectionError") == 1


def test_wrong_options_are_refused() -> None:
    for options in ({}, {"endpoint": "collector:4318"}, {"endpoint": "http://c/v1/traces", "share": 2}):
        with pytest.raises(ValidationError):
            configured(Traces, **options)


def test_without_the_extra_the_check_says_which_one(tmp_path: Any) -> None:
    toml = ECHO.replace('["keys"]', '["keys", "traces"]') + '[plugins.traces]\nuse = "traces"\n'
    (tmp_path / "lockgate.toml").write_text(toml)
    code = """
import sys, importlib.util
found = importlib.util.find_spec
def without(name, package=None):
    if name.startswith("opentelemetry"):
        raise ModuleNotFoundError(f"No module named {name!r}", name="opentelemetry")
    return found(name, package)
importlib.util.find_spec = without
from pathlib import Path
from proxy import config
from proxy.errors import ConfigError
try:
    config.assemble(Path("lockgate.toml"))
except ConfigError as failure:
    print(*failure.problems, sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"plugins\.traces\.use: needs the (extra 'otel'|Python module 'opentelemetry')", done.stdout)
