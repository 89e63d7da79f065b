"""What is silent or late: heartbeats, headers that wait for the first event, and the deadlines of an upstream."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
from gateways import UP, Gateway
from upstreams import Gate, Upstream, chunked, head, json_answer, sse, stream_answer, streaming

from proxy.testing import completion, stream

CONFIG = (
    UP
    + """
[models.patient]
targets = ["up"]

[models.first]
targets = ["up"]
timeouts = {{ first_byte = 0.2 }}

[models.idle]
targets = ["up"]
timeouts = {{ idle = 0.2 }}

[models.total]
targets = ["up"]
timeouts = {{ total = 0.2 }}

[providers.here]
use = "echo"
delay_ms = 1

[models.embedded]
targets = ["up/one", "here"]

[models.again]
targets = ["up/one"]
timeouts = {{ idle = 0.5, first_byte = 0.5 }}

[models.two]
targets = ["up/one", "up/two"]
timeouts = {{ first_byte = 0.5 }}
"""
)


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def behind(worker: str, up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that sends a heartbeat after 0.1 seconds of silence."""
    folder = tmp_path_factory.mktemp("behind")
    made = Gateway(folder, CONFIG.format(url=up.url), worker=worker, server={"heartbeat": 0.1})
    yield made
    made.stop()


def ask(model: str, streamed: bool = True) -> dict:
    return {"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Hi"}]}


def test_a_silent_upstream_lets_heartbeats_through_and_nothing_else(behind: Gateway, up: Upstream) -> None:
    gate = Gate()
    up.scripts = [lambda _: [gate, streaming(), chunked(sse(stream()))]]
    with behind.wire() as wire:
        wire.request(ask("patient"))
        head_ = wire.read_until(b"\r\n\r\n")
        assert b"text/event-stream" in head_
        for _ in range(3):
            assert wire.read_until(b"\n\n\r\n").endswith(b": ping\n\n\r\n")
        gate.open()
        rest = wire.read_until(b"0\r\n\r\n")
    assert rest.count(b"[DONE]") == 1


def test_heartbeats_never_land_inside_an_event(behind: Gateway, up: Upstream) -> None:
    whole = sse(stream())
    gates = [Gate() for _ in range(4)]
    cuts = [20, 60, 200, 333]

    def script(_: object) -> Iterator[bytes | Gate]:
        yield streaming()
        at = 0
        for cut, gate in zip(cuts, gates, strict=True):
            yield chunked(whole[at:cut], last=False)
            yield gate
            at = cut
        yield chunked(whole[at:])

    up.scripts = [script]
    got = b""
    with behind.wire() as wire:
        wire.request(ask("patient"))
        for gate in gates:
            got += wire.read_until(b": ping\n\n")
            gate.open()
        got += wire.read_until(b"0\r\n\r\n")
    body = got.partition(b"\r\n\r\n")[2]
    # The gateway writes each piece as one chunk: between two chunks there are only whole events and comments.
    blocks = [block for block in body.split(b"\r\n") if b":" in block]
    assert all(block.endswith(b"\n\n") for block in blocks)
    assert (
        b"".join(block for block in blocks if not block.startswith(b":")).count(b"data: ") == whole.count(b"data: ") - 1
    )


def test_a_failure_after_a_heartbeat_is_an_event_and_a_cut(behind: Gateway, up: Upstream) -> None:
    gate = Gate()
    up.scripts = [lambda _: [gate, json_answer({"error": {"message": "no"}}, status=500)]]
    with behind.wire() as wire:
        wire.request(ask("patient"))
        wire.read_until(b": ping\n\n\r\n")
        gate.open()
        rest = wire.read_until(b"}}\n\n\r\n")
        assert wire.ended()
    assert b'"code":"upstream_error"' in rest
    assert b"[DONE]" not in rest


def test_a_failure_before_the_first_event_is_a_status(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer({"error": {"message": "no"}}, status=500)]
    with behind.wire() as wire:
        assert wire.post(ask("patient")).status == 502


@pytest.mark.parametrize("phase", ["before the headers", "before the first event"])
def test_an_upstream_that_does_not_begin_is_given_up(behind: Gateway, up: Upstream, phase: str) -> None:
    gate = Gate()
    up.scripts = [
        lambda _: [gate] if phase == "before the headers" else [streaming(), chunked(b": wait\n\n", last=False), gate]
    ]
    seen = len(up.requests)
    with behind.wire() as wire:
        answer = wire.post(ask("first"))
    assert answer.events[-1]["error"]["code"] == "upstream_timeout"
    assert answer.events[-1]["error"]["type"] == "timeout_error"
    assert not answer.whole
    assert up.wait_end(up.wait_request(seen + 1).connection.number).ended_by == "client"


def test_a_whole_answer_that_does_not_begin_is_a_504(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: [Gate()]]
    with behind.wire() as wire:
        answer = wire.post(ask("first", streamed=False))
    assert answer.status == 504
    assert answer.json["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", ["idle", "total"])
def test_an_upstream_that_falls_silent_is_given_up(behind: Gateway, up: Upstream, model: str, streamed: bool) -> None:
    begun = [streaming(), chunked(sse(stream()[:2], done=False), last=False), Gate()]
    whole = [head(content_type="application/json", content_length=100), b"{", Gate()]
    up.scripts = [lambda _: begun if streamed else whole]
    with behind.wire() as wire:
        answer = wire.post(ask(model, streamed))
    error = answer.events[-1]["error"] if streamed else answer.json["error"]
    assert error["code"] == "upstream_timeout"
    assert streamed or answer.status == 504
    assert b"[DONE]" not in answer.body


def test_events_that_keep_coming_keep_a_stream_alive(behind: Gateway, up: Upstream) -> None:
    gates = [Gate() for _ in stream()]

    def script(_: object) -> Iterator[bytes | Gate]:
        yield streaming()
        for event, gate in zip(stream(), gates, strict=True):
            yield chunked(sse([event], done=False), last=False)
            yield gate
        yield chunked(b"data: [DONE]\n\n")

    up.scripts = [script]
    with behind.wire() as wire:
        wire.request(ask("idle"))
        for event, gate in zip(stream(), gates, strict=True):
            if event["choices"]:
                wire.read_until(b'"choices"')
            # A heartbeat shows that half of the idle time has passed.
            wire.read_until(b": ping\n\n")
            gate.open()
        assert b"[DONE]" in wire.read_until(b"0\r\n\r\n")


def test_another_target_answers_after_a_deadline_and_after_heartbeats(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: [Gate()], lambda _: stream_answer()]
    with behind.wire() as wire:
        answer = wire.post(ask("two"))
        wire.get("/healthz")
    assert answer.whole
    assert answer.body.startswith(b": ping\n\n")
    assert answer.events[-1] == "[DONE]"
    attempts = behind.records()[-1]["attempts"]
    assert [(attempt[0], attempt[2]) for attempt in attempts] == [("up/one", "upstream_timeout"), ("up/two", None)]


def test_a_client_that_leaves_while_echo_pauses_ends_the_exchange(start_gateway, worker: str) -> None:
    config = 'chain = ["keys"]\n[plugins.keys]\nuse = "api_keys"\n[providers.slow]\nuse = "echo"\ndelay_ms = 20000\n'
    made = start_gateway(config + '[models.slow]\ntargets = ["slow"]\n', worker=worker)
    with made.wire() as wire:
        wire.request({**ask("slow"), "messages": [{"role": "user", "content": "one two"}]})
        wire.read_until(b"\n\n")
    made.stop()
    record = made.records()[-1]
    assert (record["kind"], record["code"], record["client_gone"]) == ("end", "client_gone", True)


def test_a_whole_answer_waits_without_heartbeats(behind: Gateway, up: Upstream) -> None:
    gate, slow = Gate(), Gate()
    up.scripts = [lambda _: [gate, json_answer(completion())], lambda _: [slow, streaming(), chunked(sse(stream()))]]
    seen = len(up.requests)
    with behind.wire() as whole, behind.wire() as streamed:
        whole.request(ask("patient", streamed=False))
        up.wait_request(seen + 1)
        streamed.request(ask("patient"))
        # The other exchange's heartbeats tell that time enough has passed.
        for _ in range(3):
            streamed.read_until(b": ping\n\n")
        gate.open()
        slow.open()
        assert whole.answer().status == 200


def test_an_upstream_that_failed_without_an_end_holds_nothing_when_another_answers(
    behind: Gateway, up: Upstream
) -> None:
    up.scripts = [lambda _: [streaming(), chunked(sse([{"error": {"message": "x"}}], done=False), last=False), Gate()]]
    with behind.wire() as wire:
        answer = wire.post(ask("embedded"))
        assert answer.events[-1] == "[DONE]"
        assert wire.get("/healthz").status == 200
    # Exchanges of other tests may end as late as this one.
    ends = {line["id"]: line for line in behind.records() if line["kind"] == "end"}
    assert ends[answer.headers["x-request-id"]]["complete"]
    assert up.wait_end(up.requests[-1].connection.number).ended_by == "client"


def test_no_heartbeat_comes_behind_the_end(behind: Gateway, up: Upstream) -> None:
    gate = Gate()
    up.scripts = [lambda _: [streaming(), chunked(sse(stream()), last=False), gate]]
    with behind.wire() as wire:
        for _ in range(3):
            assert wire.post(ask("patient")).whole
            assert wire.get("/healthz").status == 200
    gate.open()


def test_the_wait_before_another_attempt_is_nobodys_silence(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer({}, status=429, retry_after="1"), lambda _: stream_answer()]
    with behind.wire() as wire:
        assert wire.post(ask("again")).events[-1] == "[DONE]"


def test_heartbeats_come_while_all_that_the_upstream_sends_is_comments(behind: Gateway, up: Upstream) -> None:
    gate = Gate()

    def script(_: object) -> Iterator[bytes | Gate]:
        yield streaming() + chunked(sse(stream()[:2], done=False), last=False)
        while not gate.opened:
            yield chunked(b": thinking\n\n", last=False)
            select.select([gate.fd], [], [], 0.02)
        yield chunked(sse(stream()[2:]))

    up.scripts = [script]
    with behind.wire() as wire:
        wire.request(ask("patient"))
        for _ in range(3):
            wire.read_until(b": ping\n\n")
        gate.open()
        assert b"[DONE]" in wire.read_until(b"0\r\n\r\n")
