"""What an answer used: as the upstream says it, and estimated where it says nothing, nonsense, or is cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gateways import Gateway
from hypothesis import given
from hypothesis import strategies as st
from upstreams import FIN, Gate, Upstream, json_answer, sse, stream_answer, streaming

from proxy.costs import estimates
from proxy.costs.usage import MOST, Relayed, usage_of
from proxy.exchange import Usage
from proxy.sse import encode
from proxy.testing import Raw, Rig, completion, run, stream

TEXT = "The harbour office opens at seven, but the pilots have usually been out since four. " * 5
TOKENS = len(TEXT) // 4

CONFIG = """
chain = ["keys"]

[plugins.keys]
use = "api_keys"

[providers.a]
use = "openai"
base_url = "{url}"
breaker = {{ failures = 0 }}
timeouts = {{ idle = 0.5 }}

[providers.b]
use = "openai"
base_url = "{url}"
breaker = {{ failures = 0 }}

[models.mock]
targets = ["a/mock"]
retry = {{ attempts = 1 }}

[models.pair]
targets = ["a/mock", "b/mock"]

[models.unpriced]
targets = ["a/nameless", "b/nameless"]

[prices."a/mock"]
input = 1
output = 10

[prices."b/mock"]
input = 100
output = 1000
"""
ASK = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
PROMPT = estimates.prompt_tokens(ASK)
STREAM = {**ASK, "stream": True}


def test_openais_usage_is_read() -> None:
    said = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 7, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4},
    }
    assert usage_of(said) == Usage(100, 50, 60, 5, 30, 11, 4)


def test_reasoning_that_is_counted_beside_the_completion_is_part_of_it() -> None:
    said = {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}}
    beside = usage_of({**said, "total_tokens": 35})
    assert beside == Usage(10, 25, reasoning_tokens=20)
    assert usage_of({**said, "total_tokens": 15}) == Usage(10, 5, reasoning_tokens=5)


def test_other_names_for_parts_are_known() -> None:
    said = {"prompt_tokens": 10, "completion_tokens": 5}
    assert usage_of({**said, "prompt_cache_hit_tokens": 4}) == Usage(10, 5, cached_tokens=4)
    assert usage_of({**said, "num_search_queries": 2}) == Usage(10, 5, searches=2)


def test_whole_floats_are_counts_and_one_count_is_enough() -> None:
    assert usage_of({"prompt_tokens": 12.0, "completion_tokens": 3.0}) == Usage(12, 3)
    assert usage_of({"prompt_tokens": 12}) == Usage(12, 0)
    assert usage_of({"completion_tokens": 3, "prompt_tokens": None}) == Usage(0, 3)


@pytest.mark.parametrize("wrong", [-1, -(2**63), "12", 1.5, float("nan"), float("inf"), True, [], {}, MOST + 1, 2**64])
@pytest.mark.parametrize("key", ["prompt_tokens", "completion_tokens"])
def test_a_usage_whose_counts_are_none_is_no_usage(key: str, wrong: Any) -> None:
    assert usage_of({"prompt_tokens": 5, "completion_tokens": 2, key: wrong}) is None
    assert usage_of({}) is None


def test_wrong_details_count_as_none_and_no_part_is_more_than_its_whole() -> None:
    said = {"prompt_tokens": 5, "completion_tokens": 2}
    odd = {"prompt_tokens_details": {"cached_tokens": 99, "audio_tokens": -1}, "completion_tokens_details": "none"}
    assert usage_of({**said, **odd}) == Usage(5, 2, cached_tokens=5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KEYS = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_nothing_that_an_upstream_says_breaks_the_reading(said: dict[str, Any]) -> None:
    usage = usage_of(said)
    assert usage is None or (0 <= usage.prompt_tokens <= MOST and usage.cached_tokens <= usage.prompt_tokens)


def relayed(text: str, **how: Any) -> Relayed:
    made = Relayed()
    for event in stream(text, usage=None, **how):
        chunk = encode(json.dumps(event, separators=(",", ":")).encode())
        (made.finishing if b'"finish_reason":"' in chunk else made.raw)(chunk)
    return made


@pytest.mark.parametrize("split", [3, 7, 40, 1000])
def test_events_that_pass_unparsed_are_estimated_from_their_size(split: int) -> None:
    events = len(TEXT) // split + 2
    assert max(TOKENS, events) * 0.9 <= relayed(TEXT, split=split).tokens() <= max(TOKENS, events) * 1.1


def test_parsed_events_and_whole_answers_are_estimated_from_their_text() -> None:
    made = Relayed()
    for event in stream(TEXT, split=20):
        made.event(event)
    assert made.tokens() == TOKENS
    whole = Relayed()
    whole.event({"choices": [{"message": {"role": "assistant", "content": TEXT, "reasoning_content": TEXT}}]})
    assert whole.tokens() == 2 * TOKENS


def test_padded_events_and_such_that_are_no_json_are_estimated_by_their_number() -> None:
    made = Relayed()
    for length in range(30):
        padded = {"choices": [{"index": 0, "delta": {"content": "x" * length}}], "obfuscation": "p" * (30 - length)}
        made.raw(encode(json.dumps(padded).encode()))
    assert made.tokens() == 30
    broken = Relayed()
    broken.raw(b'data: {"choices":[!}\n\n')
    broken.finishing(b'data: {"choices":[!}\n\n')
    assert broken.tokens() >= 1


@pytest.mark.parametrize("how", [{}, {"stream": True}])
def test_an_upstream_that_counts_nothing_is_estimated(how: dict[str, Any]) -> None:
    result = run([], "Hi", stream(TEXT, usage=None) if how else completion(TEXT, usage=None), **how)
    assert result.exchange is not None
    usage = result.exchange.usage
    assert usage is not None and usage.estimated
    assert (usage.prompt_tokens, result.exchange.cost) == (result.exchange.prompt_estimate, None)
    assert usage.completion_tokens >= TOKENS
    assert b"usage" not in result.body.replace(b'"usage":null', b"")


def test_a_prompt_that_was_counted_at_the_beginning_is_kept_when_the_stream_is_cut() -> None:
    [first, *others] = stream(TEXT, usage=None, split=20)
    told = {**first, "usage": {"prompt_tokens": 77, "completion_tokens": 0, "total_tokens": 77}}
    body = b"".join(encode(json.dumps(event).encode()) for event in (told, *others[:10]))
    raw = Raw(200, [body], {"content-type": "text/event-stream"}, cut=True)
    result = run([], "Hi", raw, stream=True)
    assert result.cut and result.exchange is not None
    usage = result.exchange.usage
    assert usage is not None and (usage.prompt_tokens, usage.estimated) == (77, True)
    assert 45 <= usage.completion_tokens <= 60


def test_an_answer_by_a_plugin_costs_nothing() -> None:
    from proxy import Reply, hookimpl

    class Cache:
        name = "cache"

        @hookimpl
        def on_request(self, exchange: Any) -> Reply:
            return Reply(completion())

    with Rig(Cache) as rig:
        result = rig.run("Hi")
    assert result.exchange is not None and result.exchange.cost == 0


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def behind(up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the upstream behind both of its providers."""
    made = Gateway(tmp_path_factory.mktemp("usage"), CONFIG.format(url=up.url))
    yield made
    made.stop()


def ended(gateway: Gateway, before: int) -> dict[str, Any]:
    """Wait for the next end of an exchange, and return its record."""
    deadline = time.monotonic() + 20
    while len(ends := [line for line in gateway.records() if line["kind"] == "end"]) <= before:
        assert time.monotonic() < deadline, "the exchange never ended"
        time.sleep(0.01)
    return ends[-1]


def asked(behind: Gateway, body: dict[str, Any], leave_after: bytes | None = None) -> dict[str, Any]:
    before = len([line for line in behind.records() if line["kind"] == "end"])
    with behind.wire() as wire:
        if leave_after is None:
            wire.post(body)
        else:
            wire.request(body)
            wire.read_until(leave_after)
    return ended(behind, before)


def test_what_the_upstream_counts_is_what_it_costs(behind: Gateway, up: Upstream) -> None:
    for body in (ASK, STREAM):
        up.scripts = [lambda r: stream_answer(stream()) if r.json.get("stream") else json_answer(completion())]
        record = asked(behind, body)
        assert (record["usage"]["prompt"], record["usage"]["completion"], record["estimated"]) == (5, 2, False)
        assert record["cost"] == 5 + 20
        assert record["prompt"] == PROMPT
        assert record["reserved"] == PROMPT + 4096 * 10
    assert asked(behind, {**ASK, "max_tokens": 100, "n": 2})["reserved"] == PROMPT + 200 * 10


def test_a_negative_count_is_estimated_instead(behind: Gateway, up: Upstream) -> None:
    wrong = {"prompt_tokens": -5, "completion_tokens": 2, "total_tokens": -3}
    up.scripts = [lambda _: json_answer({**completion(TEXT), "usage": wrong})]
    record = asked(behind, ASK)
    assert record["estimated"] and record["usage"]["prompt"] == PROMPT
    assert record["cost"] == PROMPT + TOKENS * 10


def test_a_client_that_leaves_a_stream_is_charged_for_what_was_relayed(behind: Gateway, up: Upstream) -> None:
    gate = Gate()
    sent = sse(stream(TEXT, usage=None, split=20)[:10], done=False)
    up.scripts = [lambda _: [streaming(), b"%x\r\n%b\r\n" % (len(sent), sent), gate]]
    record = asked(behind, STREAM, leave_after=b"pilots")
    gate.open()
    assert record["client_gone"] and record["estimated"]
    assert record["usage"]["prompt"] == PROMPT
    assert 35 <= record["usage"]["completion"] <= 60
    assert record["cost"] == PROMPT + record["usage"]["completion"] * 10


@pytest.mark.parametrize("end", ["cut", "silent"])
def test_a_stream_that_fails_is_charged_for_what_was_relayed(behind: Gateway, up: Upstream, end: str) -> None:
    gate = Gate()
    sent = sse(stream(TEXT, usage=None, split=20)[:10], done=False)
    up.scripts = [lambda _: [streaming(), b"%x\r\n%b\r\n" % (len(sent), sent), b"0\r\n\r\n" if end == "cut" else gate]]
    record = asked(behind, STREAM)
    gate.open()
    assert record["code"] == ("upstream_stream_cut" if end == "cut" else "upstream_timeout")
    assert record["estimated"] and 35 <= record["usage"]["completion"] <= 60
    assert record["cost"] == PROMPT + record["usage"]["completion"] * 10


def test_a_client_that_leaves_before_the_answer_is_charged_for_its_prompt(behind: Gateway, up: Upstream) -> None:
    gate = Gate()
    up.scripts = [lambda _: gate]
    before = len(up.requests)
    count = len([line for line in behind.records() if line["kind"] == "end"])
    with behind.wire() as wire:
        wire.request(ASK)
        up.wait_request(before + 1)
    record = ended(behind, count)
    gate.open()
    assert (record["code"], record["usage"]["completion"], record["cost"]) == ("client_gone", 0, PROMPT)
    assert record["estimated"]


def test_what_an_upstream_refuses_costs_nothing(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer({"error": {"message": "no"}}, 500)]
    for body in (ASK, STREAM):
        record = asked(behind, body)
        assert (record["usage"], record["cost"]) == (None, 0)


def test_an_attempt_that_was_refused_is_not_charged(behind: Gateway, up: Upstream) -> None:
    up.scripts = [lambda _: json_answer({"error": {"message": "no"}}, 500), lambda _: json_answer(completion())]
    record = asked(behind, {**ASK, "model": "pair"})
    assert (record["target"], record["cost"]) == ("b/mock", 500 + 2000)
    assert record["reserved"] == 100 * PROMPT + 1000 * 4096


def broken(request: Any) -> Any:
    """Accept, and break off where nothing can be handed on: without an event, or in the middle of a whole answer."""
    if request.json.get("stream"):
        return [streaming(), FIN]
    return [json_answer(completion(TEXT))[:-100], FIN]


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_an_answer_that_was_accepted_and_breaks_is_charged_by_estimate(
    behind: Gateway, up: Upstream, body: dict[str, Any]
) -> None:
    up.scripts = [broken]
    record = asked(behind, body)
    written = record["usage"]["completion"]
    assert (record["usage"]["prompt"], record["estimated"]) == (PROMPT, True)
    assert record["cost"] == PROMPT + written * 10
    # Of a whole answer the size of what came tells more than nothing.
    assert TOKENS // 2 < written < TOKENS * 3 if body is ASK else written == 0
    assert asked(behind, {**ASK, "max_tokens": 7})["usage"]["completion"] == 7


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_all_attempts_that_were_accepted_are_charged(behind: Gateway, up: Upstream, body: dict[str, Any]) -> None:
    up.scripts = [broken, lambda r: stream_answer(stream()) if r.json.get("stream") else json_answer(completion())]
    record = asked(behind, {**body, "model": "pair"})
    lost = record["usage"]["completion"] - 2
    assert (record["target"], record["usage"]["prompt"], record["estimated"]) == ("b/mock", PROMPT + 5, True)
    assert record["cost"] == (PROMPT + lost * 10) + (500 + 2000)


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_attempts_are_counted_once_where_nobody_knows_their_price(
    behind: Gateway, up: Upstream, body: dict[str, Any]
) -> None:
    up.scripts = [broken, lambda r: stream_answer(stream()) if r.json.get("stream") else json_answer(completion())]
    record = asked(behind, {**body, "model": "unpriced"})
    assert (record["usage"]["prompt"], record["cost"]) == (PROMPT + 5, None)


def test_an_error_that_stands_in_place_of_an_answer_costs_nothing(behind: Gateway, up: Upstream) -> None:
    error = {"error": {"message": "no", "type": "server_error"}}
    up.scripts = [lambda r: stream_answer([error]) if r.json.get("stream") else json_answer(error)]
    for body in (ASK, STREAM):
        record = asked(behind, body)
        assert (record["usage"], record["cost"]) == (None, 0)


def test_a_request_that_was_refused_costs_nothing(behind: Gateway) -> None:
    record = asked(behind, {**ASK, "model": "unknown"})
    assert (record["usage"], record["cost"]) == (None, 0)
