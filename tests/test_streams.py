"""Answers through a real gateway, from an upstream that does what upstreams do, and what broken ones do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from answers import BROKEN, LEGAL, WORTHLESS, hello
from gateways import MOCK, Gateway
from upstreams import End, Gate, Upstream, chunked, head, json_answer, sse, stream_answer, streaming
from wire import Wire

from proxy.testing import completion, stream

ASK = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**ASK, "stream": True}


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def behind(worker: str, up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the upstream behind it, which each test scripts anew."""
    made = Gateway(tmp_path_factory.mktemp("behind"), MOCK.format(url=up.url), worker=worker)
    yield made
    made.stop()


def text_of(gateway: Gateway) -> str:
    with gateway.client() as client:
        return "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**STREAM) if c.choices)


def ended(gateway: Gateway, wire: Wire | None = None) -> dict:
    """The journal's last line. An exchange ends after its last byte, but before the next one on its connection."""
    if wire is not None:
        wire.get("/healthz")
    record = gateway.records()[-1]
    assert record["kind"] == "end"
    return record


@pytest.mark.parametrize("framing", LEGAL)
def test_whatever_legal_framing_comes_in_the_same_answer_goes_out(behind: Gateway, up: Upstream, framing: str) -> None:
    up.scripts = [lambda _: LEGAL[framing]()]
    assert text_of(behind) == "Hello there"
    with behind.wire() as wire:
        answer = wire.post(STREAM)
        assert answer.whole
        assert answer.events[-1] == "[DONE]"
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert ended(behind, wire)["finish"] == {"0": "stop"}


def test_canonical_events_pass_as_they_came(behind: Gateway, up: Upstream) -> None:
    events = [json.dumps(e, separators=(",", ":")).encode() for e in stream() if not e.get("usage")]
    odd = [event.replace(b'"object"', b'  "object"') for event in events]
    up.scripts = [lambda _: stream_answer(sse(odd))]
    with behind.wire() as wire:
        assert wire.post(STREAM).body == sse(odd)


def test_usage_is_asked_for_and_goes_only_to_those_who_asked(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: stream_answer()]
    with behind.wire() as wire:
        without = wire.post(STREAM)
        up_body = up.requests[-1].json
        asked = wire.post({**STREAM, "stream_options": {"include_usage": True}})
        record = ended(behind, wire)
    assert up_body["stream_options"] == {"include_usage": True}
    assert not any(event.get("usage") for event in without.events[:-1])
    usage = [event for event in asked.events[:-1] if event.get("usage")]
    assert len(usage) == 1
    assert usage[0] == asked.events[-2]
    assert usage[0]["choices"] == []
    assert record["usage"]["completion"] == usage[0]["usage"]["completion_tokens"]


def test_usage_in_every_event_comes_out_once_and_at_the_end(behind: Gateway, up: Upstream) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    up.scripts = [lambda _: stream_answer([{**e, "usage": usage} for e in stream() if e["choices"]])]
    with behind.wire() as wire:
        events = wire.post({**STREAM, "stream_options": {"include_usage": True}}).events
    assert [e.get("usage") for e in events[:-1]] == [None] * (len(events) - 2) + [usage]


def test_the_connection_to_the_upstream_is_used_again_after_a_stream(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: stream_answer()]
    with behind.wire() as wire:
        wire.post(STREAM)
        connection = up.requests[-1].connection
        wire.post(STREAM)
    assert up.requests[-1].connection is connection


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_stream_never_looks_complete(behind: Gateway, up: Upstream, fault: str) -> None:
    up.scripts = [lambda _: BROKEN[fault]()]
    with pytest.raises(openai.APIError):
        text_of(behind)
    with behind.wire() as wire:
        answer = wire.post(STREAM)
    assert answer.status == 200
    assert not answer.whole
    assert b"[DONE]" not in answer.body
    assert answer.events[-1]["error"]["code"]
    assert "error" not in answer.events[-2]
    record = ended(behind)
    assert (record["complete"], record["code"]) == (False, answer.events[-1]["error"]["code"])


def test_a_stream_with_one_of_two_choices_finished_is_cut(behind: Gateway, up: Upstream) -> None:
    finished = stream()[-2]
    other = {**stream()[1], "choices": [{**stream()[1]["choices"][0], "index": 1}]}
    up.scripts = [lambda _: stream_answer(sse([*stream()[:2], other, finished]))]
    with behind.wire() as wire:
        answer = wire.post({**STREAM, "n": 2})
    assert not answer.whole
    assert answer.events[-1]["error"]["code"] == "upstream_stream_cut"


REFUSED = {
    400: (400, "invalid_request_error", "bad", openai.BadRequestError),
    401: (502, "api_error", "upstream_auth_error", openai.InternalServerError),
    403: (502, "api_error", "upstream_auth_error", openai.InternalServerError),
    404: (404, "invalid_request_error", "model_not_found", openai.NotFoundError),
    408: (504, "timeout_error", "upstream_timeout", openai.InternalServerError),
    409: (409, "invalid_request_error", "conflict", openai.ConflictError),
    413: (413, "invalid_request_error", "request_too_large", openai.APIStatusError),
    422: (400, "invalid_request_error", "bad", openai.BadRequestError),
    429: (429, "rate_limit_error", "rate_limit_exceeded", openai.RateLimitError),
    500: (502, "api_error", "upstream_error", openai.InternalServerError),
    503: (503, "service_unavailable_error", "server_is_overloaded", openai.InternalServerError),
    529: (503, "service_unavailable_error", "server_is_overloaded", openai.InternalServerError),
    302: (502, "api_error", "upstream_error", openai.InternalServerError),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", REFUSED)
def test_an_upstreams_refusal_keeps_its_meaning(behind: Gateway, up: Upstream, status: int, streamed: bool) -> None:
    error = {"error": {"message": "the upstream's own words", "type": "x", "param": None, "code": "bad"}}
    up.scripts = [lambda _: json_answer(error, status=status, location="http://127.0.0.1:1/")]
    expected, type_, code, raised = REFUSED[status]
    with behind.client() as client, pytest.raises(raised) as caught:
        client.chat.completions.create(**ASK, stream=streamed)
    assert caught.value.status_code == expected
    assert (caught.value.type, caught.value.code) == (type_, code)
    assert caught.value.request_id.startswith("req_")
    again = {400: None, 404: None, 409: None, 413: None}.get(expected, "true")
    assert caught.value.response.headers.get("x-should-retry") == ("false" if code == "upstream_auth_error" else again)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("fault", WORTHLESS)
def test_an_answer_that_is_none_is_a_status_of_its_own(
    behind: Gateway, up: Upstream, fault: str, streamed: bool
) -> None:
    up.scripts = [lambda _: WORTHLESS[fault]()]
    with behind.wire() as wire:
        answer = wire.post({**ASK, "stream": streamed})
    assert answer.status == 502
    assert answer.whole
    assert answer.json["error"]["type"] == "api_error"
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}


def test_a_whole_answer_goes_out_as_it_came(behind: Gateway, up: Upstream) -> None:
    raw = json.dumps(completion(), indent=1).encode()
    up.scripts = [lambda _: json_answer(raw)]
    with behind.wire() as wire:
        answer = wire.post(ASK)
        assert ended(behind, wire)["complete"]
    assert answer.body == raw
    assert up.requests[-1].json == ASK


def test_what_a_client_may_not_set_does_not_reach_the_upstream(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer(completion())]
    with behind.wire() as wire:
        wire.post(ASK, cookie="a=b", openai_organization="org", x_forwarded_for="6.6.6.6", accept_encoding="zstd")
    sent = up.requests[-1].headers
    assert sent.keys() <= {"host", "user-agent", "accept-encoding", "content-type", "content-length", "connection"}
    assert sent["accept-encoding"] == "identity"


@pytest.mark.parametrize("phase", ["before the headers", "before the first event", "between events", "whole answer"])
def test_a_client_that_leaves_takes_the_upstream_with_it(behind: Gateway, up: Upstream, phase: str) -> None:
    gate = Gate()
    scripts = {
        "before the headers": [gate],
        "before the first event": [streaming(), gate],
        "between events": [streaming(), chunked(hello(), last=False), gate],
        "whole answer": [head(200, content_type="application/json", content_length=100), b"{", gate],
    }
    up.scripts = [lambda _: iter(scripts[phase])]
    seen = len(up.requests)
    with behind.wire() as wire:
        wire.request(ASK if phase == "whole answer" else STREAM)
        request = up.wait_request(seen + 1)
        if phase == "between events":
            wire.read_until(b"\n\n")
        up.wait_for(lambda: request.connection.sent >= sum(len(s) for s in scripts[phase] if isinstance(s, bytes)))
    connection = up.wait_end(request.connection.number)
    assert connection.ended_by == "client"
    gate.open()


def test_a_completion_that_comes_instead_of_a_stream_brings_its_usage(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer(completion())]
    with behind.wire() as wire:
        events = wire.post({**STREAM, "stream_options": {"include_usage": True}}).events
    assert events[-2]["usage"]["completion_tokens"] == 2
    assert events[-2]["object"] == "chat.completion.chunk"
    assert events[-2]["id"] == events[0]["id"]
    assert [event.get("usage") for event in events[:-2]] == [None] * (len(events) - 2)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_stream_cut_at_any_byte_never_looks_complete(behind: Gateway, up: Upstream, how: str) -> None:
    """Every length that a recorded answer can be cut to, from its first header to its last chunk."""
    whole = stream_answer(sse(stream("Hi", split=1)))
    done = whole.index(b"[DONE]") + len(b"[DONE]\n\n")
    wire = behind.wire()
    for length in range(len(whole)):
        up.scripts = [lambda _, length=length: [whole[:length], End(how)]]
        try:
            answer = wire.post(STREAM)
        except EOFError:
            raise AssertionError(f"no answer at all where the upstream's was cut to {length} bytes") from None
        if answer.status == 200 and answer.whole:
            # All that was said had come; a reset may still overtake it.
            assert length >= done
            assert answer.events[-1] == "[DONE]"
            continue
        assert b"[DONE]" not in answer.body
        if answer.status == 200:
            assert answer.events[-1]["error"]["code"] in ("upstream_stream_cut", "upstream_connection_lost")
            wire.close()
            wire = behind.wire()
        else:
            assert answer.status == 502
            assert answer.json["error"]["type"] == "api_error"
    wire.close()
