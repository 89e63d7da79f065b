"""Ids of tool calls on OpenAI's wire: foreign ones are shortened, thoughts of OpenRouter's models travel in its own."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.exchange import Exchange
from proxy.providers.azure import Azure
from proxy.providers.base import Call
from proxy.providers.dialects import DIALECTS
from proxy.providers.openai import OpenAI
from proxy.providers.translation import Seal
from proxy.sse import encode
from proxy.upstreams.sealing import Sealer

SEALER = Sealer(b"x" * 32)
SEALED = Seal("gemini", SEALER).close("call_1", {"signature": "s" * 90})
#: As vLLM makes them.
LONG = "chatcmpl-tool-" + 32 * "a"


def provider(kind: Any, **config: Any) -> Any:
    made = kind(kind.Config().load(config))
    made.sealer = SEALER
    return made


def opened(upstream: Any, *ids: str, model: str = "m", stream: bool = False) -> Call:
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "127.0.0.1", stream=stream)
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    if calls:
        messages.append({"role": "assistant", "content": "Well", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": id, "content": "x"} for id in ids]
    exchange.body = {"model": model, "messages": messages}
    before = orjson.dumps(exchange.body)
    call: Call = upstream.open(exchange, {**exchange.body})
    assert orjson.dumps(exchange.body) == before
    return call


def sent(upstream: Any, *ids: str) -> list[str]:
    """Return the ids that are sent of calls that have these, after making sure that the results have the same."""
    messages = orjson.loads(opened(upstream, *ids).outgoing.body)["messages"]
    made = [call["id"] for call in messages[1]["tool_calls"]]
    assert made == [message["tool_call_id"] for message in messages[2:]]
    return made


@pytest.mark.parametrize("dialect", ["openai", *sorted(set(DIALECTS) - {"perplexity"})])
def test_ids_from_elsewhere_are_short_and_always_the_same(dialect: str) -> None:
    upstream = provider(OpenAI, dialect=dialect)
    made = sent(upstream, SEALED, LONG, "call12345")
    assert len(set(made)) == 3 and max(map(len, made)) <= 40
    assert made[2] == "call12345"
    assert sent(upstream, SEALED, LONG, "call12345") == made


def test_azure_gets_short_ids() -> None:
    made = sent(provider(Azure, endpoint="https://x.openai.azure.com"), SEALED, LONG, "call_1")
    assert len(set(made)) == 3 and max(map(len, made)) <= 40


def test_an_upstream_elsewhere_gets_its_own_long_ids_and_no_sealed_ones() -> None:
    upstream = provider(OpenAI, base_url="http://other-gateway.example/v1")
    theirs = Seal("gemini", Sealer(b"y" * 32)).close("call_1", {"signature": "s"})
    made = sent(upstream, theirs, LONG, SEALED)
    assert made[:2] == [theirs, LONG] and len(made[2]) <= 40
    assert max(map(len, sent(provider(OpenAI, base_url="https://eu.api.openai.com/v1"), theirs, LONG))) <= 40


SIGNED = [
    {"type": "reasoning.text", "text": "Let ", "signature": None, "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "text": "me see.", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "AAAA", "format": "google-gemini-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "BBBB", "format": "google-gemini-v1", "index": 0},
]
WHOLE = [
    {"type": "reasoning.text", "text": "Let me see.", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    *SIGNED[3:],
]


def streamed(call: Call, details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls of a streamed answer of two."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "reasoning_details": [each]} for each in details]
    for at in range(2):
        function = {"name": "f", "arguments": "{}"}
        deltas.append({"tool_calls": [{"index": at, "id": f"up_{at}", "type": "function", "function": function}]})
    made = []
    for delta in deltas:
        event = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]}
        for payload in call.frames(encode(orjson.dumps(event))):
            made += [part["choices"][0]["delta"] for part in call.events(payload)]
    assert not any("reasoning_details" in delta for delta in made)
    return [entry for delta in made for entry in delta.get("tool_calls", ())]


def test_thoughts_of_openrouters_models_go_back_with_the_calls_that_they_led_to() -> None:
    upstream = provider(OpenAI, dialect="openrouter")
    first, second = streamed(opened(upstream, stream=True), SIGNED)
    assert first["id"].startswith("call_") and len(first["id"]) > 40 and second["id"] == "up_1"
    [_, said, *results] = orjson.loads(opened(upstream, first["id"], "up_1").outgoing.body)["messages"]
    assert [call["id"] for call in said["tool_calls"]] == ["up_0", "up_1"]
    assert [result["tool_call_id"] for result in results] == ["up_0", "up_1"]
    assert said["reasoning_details"] == WHOLE


def test_in_a_whole_answer_they_are_sealed_alike() -> None:
    upstream = provider(OpenAI, dialect="openrouter")
    [first, _] = streamed(opened(upstream, stream=True), SIGNED)
    calls = [{"id": "up_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_details": WHOLE}
    answer = {"id": "1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    made = opened(upstream).completion(orjson.dumps(answer))["choices"][0]["message"]
    assert made["tool_calls"][0]["id"] == first["id"] and "reasoning_details" not in made


def test_thoughts_go_to_no_other_model_and_only_signed_ones_go_anywhere() -> None:
    upstream = provider(OpenAI, dialect="openrouter")
    [first, _] = streamed(opened(upstream, stream=True), SIGNED)
    said = orjson.loads(opened(upstream, first["id"], model="other").outgoing.body)["messages"][1]
    assert "reasoning_details" not in said and len(said["tool_calls"][0]["id"]) <= 40
    [plain, _] = streamed(opened(upstream, stream=True), SIGNED[:2])
    assert plain["id"] == "up_0"
