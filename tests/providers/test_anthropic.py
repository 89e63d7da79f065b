"""Anthropic behind OpenAI's API: what it is sent, judged by its own types, and what comes back, by OpenAI's client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest
import talks
from claudes import USAGE, answer, cited, error, events, judged, message, text, thinking, tool_use, wired
from gateways import Gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import CITY, FORM, HI, PDF, PNG, WEATHER, folded
from upstreams import RST, Upstream, chunked, json_answer, streaming
from wire import PATIENCE_S

from proxy.errors import Reject, UpstreamError
from proxy.exchange import Exchange
from proxy.providers.anthropic import Anthropic
from proxy.providers.anthropic.answers import MOST_CONTINUATIONS
from proxy.upstreams.sealing import Sealer

ask = partial(talks.ask, model="claude-opus-4-8")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway and the scripted upstream that it takes for Anthropic."""
    folder = tmp_path_factory.mktemp("anthropic")
    (folder / "key").write_text("anthropic-key")
    with Upstream() as upstream:
        toml = f"""
            chain = ["keys"]
            plugins.keys = {{ use = "api_keys" }}
            models."claude-*" = {{ targets = ["anthropic"], web_search = true, retry = {{ attempts = 1 }} }}
            models.strict = {{ targets = ["anthropic/claude-opus-4-8"], strict = true }}
            models.again = {{ targets = ["anthropic/claude-opus-4-8", "anthropic/claude-haiku-4-5"] }}
            [providers.anthropic]
            use = "anthropic"
            base_url = "{upstream.url}"
            api_key = {{ file = "key" }}
            betas = ["some-beta-2026-01-01"]
            breaker = {{ failures = 0 }}
        """
        gateway = Gateway(folder, toml)
        yield gateway, upstream
        gateway.stop()


@pytest.fixture
def upstream(behind: tuple[Gateway, Upstream]) -> Upstream:
    behind[1].requests.clear()
    return behind[1]


def opened(stream: bool = False, options: dict[str, Any] | None = None, **body: Any) -> Any:
    """Return a call of the provider alone."""
    provider = Anthropic(Anthropic.Config().load(options or {}))
    provider.sealer = Sealer(b"x" * 32)
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "", received=1.0)
    exchange.body, exchange.stream = {"model": "claude-opus-4-8", "messages": HI, **body}, stream
    exchange.model = exchange.body["model"]
    return provider.open(exchange, dict(exchange.body))


def sent(**body: Any) -> dict[str, Any]:
    return judged(json.loads(opened(**body).outgoing.body))


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "developer",
        "content": [{"type": "text", "text": "Be kind.", "prompt_cache_breakpoint": {"mode": "explicit"}}],
    },
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "text", "text": " \n"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
            {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain,caf%C3%A9"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "far too long " * 9, "type": "function", "function": {"name": "weather", "arguments": ""}},
            {"id": "toolu_3", "type": "function", "function": {"name": "weather", "arguments": "[1"}},
        ],
    },
    {"role": "tool", "tool_call_id": "toolu_1", "content": "Sunny"},
    {"role": "tool", "tool_call_id": "far too long " * 9, "content": ""},
    {"role": "tool", "tool_call_id": "toolu_3", "content": [{"type": "text", "text": "No"}]},
    {"role": "user", "content": "And now?"},
]


def test_a_conversation_is_one_that_anthropics_types_know() -> None:
    request = sent(messages=CONVERSATION, tools=[WEATHER, {"type": "function", "function": {"name": "now"}}])
    assert request["system"] == [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
    ]
    asked, called, results = request["messages"]
    assert [block["type"] for block in asked["content"]] == ["text", "image", "image", "document", "document"]
    assert asked["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}
    assert asked["content"][2]["source"] == {"type": "url", "url": "https://example.org/cat.jpg"}
    assert asked["content"][3]["source"]["data"] == PDF
    assert asked["content"][4]["source"] == {"type": "text", "media_type": "text/plain", "data": "café"}
    assert [block["input"] for block in called["content"]] == [{"city": "Rome"}, {}, {"invalid_json": "[1"}]
    assert [block["type"] for block in results["content"]] == ["tool_result"] * 3 + ["text"]
    ids = [block["tool_use_id"] for block in results["content"][:3]]
    assert ids == [block["id"] for block in called["content"]]
    assert all(len(id) <= 64 for id in ids)
    assert "content" not in results["content"][1]
    assert request["tools"] == [
        {"name": "weather", "description": "Tells it.", "input_schema": CITY},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"max_tokens": 4096}),
        ({"max_tokens": 9, "max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"max_tokens": 0}, {"max_tokens": 1}),
        ({"temperature": 1.7, "top_p": 0.5}, {"temperature": 1, "top_p": 0.5}),
        ({"temperature": 1, "top_p": 1, "n": 1, "logprobs": False, "seed": None}, {}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "\n"]}, {"stop_sequences": ["a"]}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"user": "u1", "safety_identifier": "s1"}, {"metadata": {"user_id": "s1"}}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        (
            {
                "metadata": {"a": "b"},
                "store": True,
                "verbosity": "low",
                "prompt_cache_key": "k",
                "modalities": ["text"],
            },
            {},
        ),
        ({"tools": [WEATHER], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"tools": [WEATHER], "tool_choice": "auto"}, {"tool_choice": ...}),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"tool_choice": {"type": "tool", "name": "weather"}},
        ),
        (
            {"tools": [WEATHER], "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {
                "tools": [WEATHER, {"type": "function", "function": {"name": "now"}}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]},
                },
            },
            {
                "tools": [{"name": "now", "input_schema": {"type": "object", "properties": {}}}],
                "tool_choice": {"type": "any"},
            },
        ),
        (
            {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}},
            {"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        ),
        ({"response_format": {"type": "text"}}, {"output_config": ...}),
        ({"response_format": FORM}, {"output_config": {"format": {"type": "json_schema", "schema": CITY}}}),
        (
            {"reasoning_effort": "minimal"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}, "output_config": ...}),
        (
            {"model": "claude-sonnet-4-5", "reasoning_effort": "medium"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4096 + 2048},
        ),
        (
            {"model": "claude-sonnet-4-5", "reasoning_effort": "max", "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1999}, "max_tokens": 2000},
        ),
        (
            {"web_search_options": {}},
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
        ),
        (
            {
                "web_search_options": {
                    "search_context_size": "high",
                    "user_location": {"type": "approximate", "approximate": {"city": "Rome", "country": "IT"}},
                }
            },
            {
                "tools": [
                    {
                        "type": "web_search_20250305",
                        "name": "web_search",
                        "max_uses": 10,
                        "user_location": {"type": "approximate", "city": "Rome", "country": "IT"},
                    }
                ]
            },
        ),
        ({"top_k": 5}, {"top_k": 5}),
    ],
)
def test_each_parameter_has_its_word(asked: dict[str, Any], expected: dict[str, Any]) -> None:
    request = sent(**asked)
    for name, value in expected.items():
        assert request.get(name, ...) == value
    if not expected:
        assert request.keys() == {"model", "max_tokens", "messages"}
    assert opened(**asked).dropped == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"tools": [{"type": "code_browser"}]}, "tools"),
        ({"model": "claude-3-5-haiku-latest", "response_format": FORM, "tools": [WEATHER]}, "response_format"),
    ],
)
def test_what_would_change_the_answers_shape_is_refused(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Reject) as refused:
        opened(**asked)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}, "unsupported_value"),
        ({"type": "image_url", "image_url": {"url": f"data:image/tiff;base64,{PNG}"}}, "unsupported_value"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}, "invalid_value"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "invalid_value"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "unsupported_value"),
    ],
)
def test_content_that_it_does_not_take_is_refused(part: dict[str, Any], code: str) -> None:
    with pytest.raises(Reject) as refused:
        opened(messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, part]}])
    assert (refused.value.status, refused.value.code) == (400, code)
    assert refused.value.param is not None
    assert refused.value.param.startswith("messages[0].content[1]")


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"seed": 1, "presence_penalty": 0.5, "frequency_penalty": 1, "logit_bias": {"5": 1}}, 4),
        ({"service_tier": "flex"}, ["service_tier"]),
        ({"temperature": 0.5, "reasoning_effort": "low"}, ["temperature"]),
        ({"model": "claude-opus-4-5", "reasoning_effort": "low", "max_tokens": 500}, ["reasoning_effort"]),
        (
            {"model": "claude-opus-4-5", "reasoning_effort": "low", "tools": [WEATHER], "tool_choice": "required"},
            ["reasoning_effort"],
        ),
        # The calls came from another model, which has left no thoughts to begin the turn with.
        (
            {"model": "claude-opus-4-5", "reasoning_effort": "low", "tools": [WEATHER], "messages": CONVERSATION[:-1]},
            ["reasoning_effort"],
        ),
    ],
)
def test_what_there_is_no_word_for_is_named(asked: dict[str, Any], names: list[str] | int) -> None:
    judged(json.loads(opened(**asked).outgoing.body))
    dropped = opened(**asked).dropped
    assert dropped == names if isinstance(names, list) else len(dropped) == names


def test_the_version_without_sampling_is_sent_none() -> None:
    call = opened(options={"version": "2026-10-21"}, temperature=0.5)
    assert call.dropped == ["temperature"]
    assert "temperature" not in json.loads(call.outgoing.body)
    assert call.outgoing.headers["anthropic-version"] == "2026-10-21"


def test_instructions_alone_are_asked_as_a_question() -> None:
    request = sent(messages=[{"role": "system", "content": "Say hello."}])
    assert request["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    assert "system" not in request


SEARCHED = (
    text("Blåbær. "),
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rain"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    text("It rains.", cited("https://a.example/", "A"), cited("https://b.example/", None)),
    text(" Much."),
)


def test_a_text_comes_back_as_openais(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(text("Hello, "), text("you.")))]
    said = ask(client, stream, seed=5)
    assert said.choices[0].message.content == "Hello, you."
    assert said.choices[0].message.refusal is None
    assert (said.choices[0].finish_reason, said.object) == ("stop", "chat.completion")
    assert said.model == "claude-opus-4-8"
    assert said.id.startswith("chatcmpl-")
    used = said.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (16, 7, 23)
    assert used.prompt_tokens_details.cached_tokens == 4
    request = upstream.requests[-1]
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "anthropic-key"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "some-beta-2026-01-01"
    assert judged(request.json).get("stream", False) is stream


def test_thoughts_go_back_with_the_calls_that_they_led_to(
    client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    thoughts = [thinking("Let me see."), {"type": "redacted_thinking", "data": "EmwKAhgB"}]
    calls = [tool_use("weather", "toolu_1", city="Rome"), tool_use("now", "toolu_2")]
    upstream.scripts = [answer(message(*thoughts, text("A moment."), *calls, stop="tool_use"))]
    tools = [WEATHER, {"type": "function", "function": {"name": "now"}}]
    said = ask(client, stream, tools=tools, reasoning_effort="high").choices[0]
    assert said.finish_reason == "tool_calls"
    assert said.message.content == "A moment."
    assert said.message.reasoning_content == "Let me see."
    assert [call.function.name for call in said.message.tool_calls] == ["weather", "now"]
    assert [json.loads(call.function.arguments) for call in said.message.tool_calls] == [{"city": "Rome"}, {}]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in said.message.tool_calls]
    replayed = said.message.model_dump(exclude_none=True, exclude={"tool_calls": {"__all__": {"index"}}})
    upstream.scripts = [answer(message(text("Sunny.")))]
    ask(client, stream, tools=tools, messages=[*HI, replayed, *results])
    request = judged(upstream.requests[-1].json)
    assert request["messages"][1]["content"] == [*thoughts, {"type": "text", "text": "A moment."}, *calls]
    assert [block["tool_use_id"] for block in request["messages"][2]["content"]] == ["toolu_1", "toolu_2"]


def test_citations_lie_where_the_text_is(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    used = {**USAGE, "server_tool_use": {"web_search_requests": 1}}
    upstream.scripts = [answer(message(*SEARCHED, usage=used))]
    said = ask(client, stream, web_search_options={})
    shown = said.choices[0].message
    found = [entry if isinstance(entry, dict) else entry.model_dump() for entry in shown.annotations]
    places = [entry["url_citation"] for entry in found]
    assert [place["url"] for place in places] == ["https://a.example/", "https://b.example/"]
    assert [place["title"] for place in places] == ["A", "https://b.example/"]
    assert {shown.content[place["start_index"] : place["end_index"]] for place in places} == {"It rains."}
    assert said.usage.num_search_queries == 1
    assert not shown.tool_calls


def test_a_paused_turn_goes_on(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    paused = message(*SEARCHED[:3], stop="pause_turn")
    upstream.scripts = [answer(paused), answer(message(*SEARCHED[3:]))]
    said = ask(client, stream, web_search_options={})
    assert said.choices[0].message.content == "Blåbær. It rains. Much."
    assert said.usage.prompt_tokens == 32
    first, second = (judged(request.json) for request in upstream.requests)
    assert second["messages"][:-1] == first["messages"]
    assert second["messages"][-1]["role"] == "assistant"
    assert [block["type"] for block in second["messages"][-1]["content"]] == [
        "text",
        "server_tool_use",
        "web_search_tool_result",
    ]
    assert second["messages"][-1]["content"][1]["input"] == {"query": "rain"}


def test_a_turn_that_pauses_for_ever_stops(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(text("x"), stop="pause_turn"))]
    said = ask(client, stream, web_search_options={}).choices[0]
    assert said.finish_reason == "stop"
    assert len(upstream.requests) == len(said.message.content) == MOST_CONTINUATIONS + 1


def test_an_answer_that_was_paused_is_billed_though_the_rest_fails(
    behind: tuple[Gateway, Upstream], client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    paused = message(*SEARCHED[1:3], stop="pause_turn")
    upstream.scripts = [answer(paused), lambda _: json_answer(error("rate_limit_error", "Slow down"), 429)]
    with pytest.raises(openai.RateLimitError) as failed:
        ask(client, stream, web_search_options={})
    id = failed.value.response.headers["x-request-id"]
    deadline = time.monotonic() + PATIENCE_S
    while not (ended := [line for line in behind[0].records() if line["kind"] == "end" and line["id"] == id]):
        assert time.monotonic() < deadline
    assert ended[0]["estimated"] and min(ended[0]["usage"]["prompt"], ended[0]["usage"]["completion"]) > 0


def test_a_refusal_is_one(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "That is dangerous."}
    upstream.scripts = [answer(message(stop="refusal", stop_details=details))]
    said = client.chat.completions.create(model="claude-opus-4-8", messages=HI, stream=stream)
    if stream:
        deltas = [chunk.choices[0] for chunk in said]
        assert [choice.finish_reason for choice in deltas][-1] == "content_filter"
        assert [choice.delta.refusal for choice in deltas] == ["", "That is dangerous.", None]
        assert not any(choice.delta.content for choice in deltas)
    else:
        assert said.choices[0].finish_reason == "content_filter"
        assert said.choices[0].message.refusal == "That is dangerous."
        assert said.choices[0].message.content is None


def test_a_model_without_forms_is_made_to_call_one(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(tool_use("place", city="Rome"), stop="tool_use"))]
    said = ask(client, stream, model="claude-3-5-haiku-latest", response_format=FORM).choices[0]
    assert (said.finish_reason, json.loads(said.message.content)) == ("stop", {"city": "Rome"})
    assert not said.message.tool_calls
    request = judged(upstream.requests[-1].json)
    assert request["tools"] == [{"name": "place", "input_schema": CITY}]
    assert request["tool_choice"] == {"type": "tool", "name": "place", "disable_parallel_tool_use": True}


def test_who_speaks_of_functions_is_answered_so(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(tool_use("weather", city="Rome"), stop="tool_use"))]
    functions = [WEATHER["function"]]
    said = client.chat.completions.create(model="claude-opus-4-8", messages=HI, functions=functions, stream=stream)
    if stream:
        choices = [chunk.choices[0] for chunk in said]
        calls = [choice.delta.function_call for choice in choices if choice.delta.function_call]
        assert calls[0].name == "weather"
        called, finish = "".join(call.arguments for call in calls), choices[-1].finish_reason
    else:
        called, finish = said.choices[0].message.function_call.arguments, said.choices[0].finish_reason
    assert (json.loads(called), finish) == ({"city": "Rome"}, "function_call")


@pytest.mark.parametrize(
    ("status", "kind", "text", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: bad", (400, "upstream_refused")),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000", (400, "context_length_exceeded")),
        (400, "invalid_request_error", "Output blocked by content filtering policy", (400, "content_filter")),
        (400, "invalid_request_error", "Your credit balance is too low", (429, "insufficient_quota")),
        (401, "authentication_error", "invalid x-api-key", (502, "upstream_auth_error")),
        (402, "billing_error", "Pay", (429, "insufficient_quota")),
        (404, "not_found_error", "model: claude-9", (404, "model_not_found")),
        (413, "request_too_large", "Too large", (413, "request_too_large")),
        (429, "rate_limit_error", "Slow down", (429, "rate_limit_exceeded")),
        (500, "api_error", "Oh", (502, "upstream_error")),
        (529, "overloaded_error", "Overloaded", (503, "server_is_overloaded")),
    ],
)
def test_errors_are_openais_whether_as_a_status_or_within_an_answer(
    status: int, kind: str, text: str, expected: tuple[int, str]
) -> None:
    body = error(kind, text)
    told = opened().error(status, {"retry-after": "7"}, json.dumps(body).encode())
    assert (told.status, told.code) == expected
    if status in (429, 529):
        assert told.headers["retry-after"] == "7"
    with pytest.raises(UpstreamError) as raised:
        folded(opened(stream=True), wired([body]))
    assert (raised.value.status, raised.value.code) == expected
    with pytest.raises(UpstreamError) as raised:
        opened().completion(json.dumps(body).encode())
    assert (raised.value.status, raised.value.code) == expected


def test_an_error_page_is_an_error() -> None:
    assert opened().error(502, {}, b"<html>").code == "upstream_error"
    assert opened().error(500, {}, b'["x"]').code == "upstream_error"


def test_the_client_is_told_what_was_dropped_and_a_strict_model_refuses(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.scripts = [answer(message(text("Hi")))]
    raw = client.chat.completions.with_raw_response.create(model="claude-opus-4-8", messages=HI, seed=5, logit_bias={})
    assert raw.headers["x-lockgate-dropped"] == "seed"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="strict", messages=HI, seed=5)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "seed")
    assert len(upstream.requests) == 1


def test_an_error_before_the_first_words_has_another_target_asked(client: openai.OpenAI, upstream: Upstream) -> None:
    begun = [*events(message(text("x")))][:2]
    broken = streaming() + chunked(wired([*begun, error("overloaded_error", "Overloaded")]))
    upstream.scripts = [lambda _: broken, answer(message(text("Hello")))]
    assert ask(client, True, model="again").choices[0].message.content == "Hello"
    assert [request.json["model"] for request in upstream.requests] == ["claude-opus-4-8", "claude-haiku-4-5"]


def test_an_error_after_the_first_words_ends_the_stream(client: openai.OpenAI, upstream: Upstream) -> None:
    begun = [*events(message(text("Hello")))][:5]
    upstream.scripts = [lambda _: streaming() + chunked(wired([*begun, error("overloaded_error", "Overloaded")]))]
    stream = client.chat.completions.create(model="claude-opus-4-8", messages=HI, stream=True)
    said = []
    with pytest.raises(openai.APIError) as failed:
        said += [chunk.choices[0].delta.content for chunk in stream]
    assert failed.value.code == "server_is_overloaded"


@pytest.mark.parametrize("end", [b"0\r\n\r\n", RST])
def test_a_stream_without_its_end_is_a_broken_one(client: openai.OpenAI, upstream: Upstream, end: Any) -> None:
    cut = wired([*events(message(text("Hello")))][:-1])
    upstream.scripts = [lambda _: [streaming() + chunked(cut, last=False), end]]
    stream = client.chat.completions.create(model="claude-opus-4-8", messages=HI, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_an_answer_that_is_none_is_an_error(client: openai.OpenAI, upstream: Upstream) -> None:
    for body in (b"{", b"{}", b'{"content": [{"type": "text"}]}', b"[1]", b'{"content": 5, "stop_reason": "end_turn"}'):
        upstream.scripts = [lambda _, body=body: json_answer(body)]
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="claude-opus-4-8", messages=HI)
        assert failed.value.status_code == 502


@pytest.mark.parametrize(
    ("credential", "header"),
    [("api_key", {"x-api-key": "some-key"}), ("auth_token", {"Authorization": "Bearer some-key"})],
)
def test_a_probe_needs_the_credential(credential: str, header: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "some-key")
    made = Anthropic(Anthropic.Config().load({credential: {"env": "SOME_KEY"}}))
    assert made.renew() is None
    probe = made.probe()
    assert (probe.method, probe.url) == ("GET", "https://api.anthropic.com/v1/models")
    assert header.items() <= probe.headers.items()


def test_a_credential_is_one_or_the_other() -> None:
    assert Anthropic.Config().validate({"api_key": {"env": "PATH"}, "auth_token": {"env": "PATH"}}) == {
        "auth_token": ["there is an `api_key` already"]
    }


RICH = message(
    thinking("Let me see: ü."),
    *SEARCHED,
    tool_use("weather", "toolu_1", city="Røros"),
    {"type": "from_the_future", "x": 1},
    tool_use("now", "toolu_2"),
    stop="tool_use",
)


def test_arguments_that_are_no_json_are_told_as_they_are() -> None:
    whole = [*events(message(tool_use("weather", city="Rome"), stop="tool_use"))]
    said = folded(opened(stream=True), wired([*whole[:-4], *whole[-3:]]))["choices"][0]
    with pytest.raises(ValueError):
        json.loads(said["message"]["tool_calls"][0]["function"]["arguments"])
    assert said["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("said", ["Sure: {}", "[1]", "```json\n{}\n```", ""])
def test_what_was_to_be_json_and_is_none_is_an_error(said: str) -> None:
    form = {"type": "json_object"}
    whole = json.dumps(message(text(said)))
    with pytest.raises(UpstreamError) as failed:
        opened(response_format=form).completion(whole.encode())
    assert failed.value.code == "upstream_malformed_output"
    with pytest.raises(UpstreamError):
        folded(opened(stream=True, response_format=form), wired(events(message(text(said)))))
    cut = opened(response_format=form).completion(json.dumps(message(text(said), stop="max_tokens")).encode())
    assert cut["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_is_json_passes() -> None:
    made = folded(
        opened(stream=True, response_format={"type": "json_object"}), wired(events(message(text('{"a": 1}'))))
    )
    assert made["choices"][0]["message"]["content"] == '{"a": 1}'


def test_what_is_new_to_it_is_read_over() -> None:
    stream = [*events(RICH)]
    stream.insert(3, {"type": "message_thought_hard", "why": {}})
    assert folded(opened(stream=True), wired(stream)) == folded(opened(stream=True), wired(events(RICH)))


def test_a_streamed_answer_is_the_same_as_a_whole_one() -> None:
    whole = opened().completion(json.dumps(RICH).encode())
    streamed = folded(opened(stream=True), wired(events(RICH)))
    for choice in (whole["choices"][0], streamed["choices"][0]):
        for call in choice["message"]["tool_calls"]:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert whole["choices"] == streamed["choices"]
    assert whole["usage"] == streamed["usage"]


@given(st.lists(st.integers(1, 4000), max_size=6), st.integers(1, 9))
@settings(max_examples=60)
def test_however_a_stream_is_split_it_says_the_same(cuts: list[int], split: int) -> None:
    body = wired(events(RICH, split))
    places = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in zip(places, places[1:], strict=False) if end > start]
    assert folded(opened(stream=True), *chunks) == folded(opened(stream=True), body)


def test_byte_by_byte_it_says_the_same() -> None:
    body = wired(events(RICH))
    assert folded(opened(stream=True), *(body[at : at + 1] for at in range(len(body)))) == folded(
        opened(stream=True), body
    )


def test_the_order_is_openais_own() -> None:
    call = opened(stream=True)
    body = wired(events(message(tool_use("weather", city="Rome"), tool_use("now", "toolu_2"), stop="tool_use")))
    made = [event for payload in call.frames(body) for event in call.events(payload)]
    deltas = [event["choices"][0]["delta"] for event in made[:-1]]
    assert deltas[0].keys() == {"role", "content", "tool_calls", "refusal"}
    assert deltas[0]["content"] is None
    ids = [call["id"] for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call]
    assert ids == ["toolu_01", "toolu_2"]
    assert deltas[-1] == {}
    assert made[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert made[-1]["choices"] == []
    assert len({(event["id"], event["created"], event["model"]) for event in made}) == 1
