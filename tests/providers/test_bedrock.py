"""Bedrock behind OpenAI's API: what it is sent, judged by botocore, and what comes back, by OpenAI's client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest
import talks
from bedrocks import USAGE, answer, event, events, exception, judged, message, signed, streaming, thinking, tool_use
from botocore.credentials import Credentials
from gateways import Gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import FORM, HI, PDF, PNG, WEATHER, folded
from upstreams import RST, Upstream, json_answer

from proxy.catalog import Catalog
from proxy.errors import Reject, UpstreamError
from proxy.exchange import Exchange
from proxy.providers.bedrock import RENEWED_S, Bedrock
from proxy.upstreams.renewal import Credential
from proxy.upstreams.sealing import Sealer

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SONNET = "anthropic.claude-sonnet-4-6-v1:0"
ARN = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-6-v1:0"
NOW = {"type": "function", "function": {"name": "now"}}
ask = partial(talks.ask, model="claude")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway and the scripted upstream that it takes for Bedrock; its credentials are a profile's."""
    folder = tmp_path_factory.mktemp("bedrock")
    (folder / "credentials").write_text(
        f"[models]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\naws_session_token = TOKEN+/=\n"
    )
    with Upstream() as upstream:
        toml = f"""
            chain = ["keys"]
            plugins.keys = {{ use = "api_keys" }}
            models.claude = {{ targets = ["bedrock/{ARN}"], retry = {{ attempts = 1 }} }}
            models.nova = {{ targets = ["bedrock/amazon.nova-2-lite-v1:0"], web_search = true }}
            [providers.bedrock]
            use = "bedrock"
            region = "eu-central-1"
            base_url = "http://{upstream.address}"
            profile = "models"
            guardrail = "gr123abc:7"
            breaker = {{ failures = 0 }}
        """
        env = {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"), "AWS_CONFIG_FILE": str(folder / "none")}
        gateway = Gateway(folder, toml, env=env)
        yield gateway, upstream
        gateway.stop()


@pytest.fixture
def upstream(behind: tuple[Gateway, Upstream]) -> Upstream:
    behind[1].requests.clear()
    return behind[1]


def provider(**options: Any) -> Bedrock:
    made = Bedrock(Bedrock.Config().load({"region": "us-east-1", **options}))
    made.sealer = Sealer(b"x" * 32)
    return made


def opened(stream: bool = False, **body: Any) -> Any:
    """Return a call of the provider alone."""
    made = provider()
    made._key = Credential("key")
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "", received=1.0)
    exchange.body, exchange.stream = {"model": SONNET, "messages": HI, **body}, stream
    exchange.model = "claude"
    return made.open(exchange, dict(exchange.body))


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
            {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}},
            {"type": "file", "file": {"filename": "a_b  c.pdf", "file_data": PDF}},
            {"type": "file", "file": {"file_data": f"data:text/csv;base64,{PDF}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "tooluse_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
            {"id": "far too long " * 9, "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "tooluse_1", "content": "Sunny"},
    {"role": "tool", "tool_call_id": "far too long " * 9, "content": ""},
    {"role": "user", "content": "And now?"},
]


def test_a_conversation_is_one_that_botocores_model_knows() -> None:
    request = sent(messages=CONVERSATION, tools=[WEATHER, NOW])
    assert request["system"] == [{"text": "Be brief."}, {"text": "Be kind."}, {"cachePoint": {"type": "default"}}]
    asked, called, results = request["messages"]
    assert asked["content"][1]["image"] == {"format": "jpeg", "source": {"bytes": PNG}}
    documents = [block["document"] for block in asked["content"][2:]]
    assert [document["format"] for document in documents] == ["pdf", "csv"]
    assert [document["name"] for document in documents] == ["a b c 2 3", "document 2 4"]
    assert [block["toolUse"]["input"] for block in called["content"]] == [{"city": "Rome"}, {}]
    found = [block["toolResult"] for block in results["content"][:2]]
    assert [result["toolUseId"] for result in found] == [block["toolUse"]["toolUseId"] for block in called["content"]]
    assert [result["content"] for result in found] == [[{"text": "Sunny"}], [{"json": {}}]]
    assert results["content"][2] == {"text": "And now?"}
    assert request["toolConfig"]["tools"][1]["toolSpec"]["inputSchema"] == {
        "json": {"type": "object", "properties": {}}
    }


def test_without_tools_the_calls_of_the_conversation_are_told_as_text() -> None:
    request = sent(messages=CONVERSATION)
    assert "toolConfig" not in request
    assert request["messages"][1]["content"][0] == {"text": '[Called weather with {"city":"Rome"}]'}
    assert request["messages"][2]["content"][:2] == [{"text": "[Result of weather:]"}, {"text": "Sunny"}]
    assert "toolConfig" not in sent(messages=CONVERSATION, tools=[WEATHER], tool_choice="none")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"inferenceConfig": ...}),
        (
            {"max_tokens": 9, "max_completion_tokens": 8, "temperature": 1.5, "top_p": 0.5, "stop": ["a", " "]},
            {"inferenceConfig": {"maxTokens": 8, "temperature": 1, "topP": 0.5, "stopSequences": ["a"]}},
        ),
        ({"service_tier": "auto"}, {"serviceTier": ...}),
        ({"service_tier": "fast"}, {"serviceTier": {"type": "priority"}}),
        ({"metadata": {"a": "b", "odd": "ü"}}, {"requestMetadata": {"a": "b"}}),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"toolConfig.toolChoice": {"any": {}}}),
        (
            {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}},
            {"toolConfig.toolChoice": {"tool": {"name": "weather"}}},
        ),
        (
            {"reasoning_effort": "minimal"},
            {
                "outputConfig.effort": "low",
                "additionalModelRequestFields": {"thinking": {"type": "adaptive"}},
            },
        ),
        (
            {"reasoning_effort": "none"},
            {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}},
        ),
        (
            {"model": "anthropic.claude-sonnet-4-5-20250929-v1:0", "reasoning_effort": "medium", "top_k": 5},
            {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "top_k": 5}},
        ),
        (
            {"additionalModelRequestFields": {"x": 1}, "performanceConfig": {"latency": "optimized"}, "top_k": 5},
            {"additionalModelRequestFields": {"x": 1, "top_k": 5}, "performanceConfig": {"latency": "optimized"}},
        ),
        (
            {"response_format": FORM},
            {
                "outputConfig.textFormat.structure.jsonSchema": {
                    "name": "place",
                    "schema": '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
                }
            },
        ),
        (
            {"model": "amazon.nova-pro-v1:0", "response_format": FORM},
            {"toolConfig.toolChoice": {"tool": {"name": "place"}}, "outputConfig": ...},
        ),
        (
            {"model": "amazon.nova-2-lite-v1:0", "web_search_options": {}},
            {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
        ),
    ],
)
def test_each_parameter_has_its_word(asked: dict[str, Any], expected: dict[str, Any]) -> None:
    request = sent(**asked)
    for path, value in expected.items():
        found: Any = request
        for name in path.split("."):
            found = found.get(name, ...)
        assert found == value
    assert opened(**asked).dropped == []


def test_any_json_is_asked_for_in_words() -> None:
    form = {"type": "json_object"}
    assert "JSON" in sent(response_format=form)["system"][0]["text"]
    assert folded(opened(True, response_format=form), *events(message({"text": '{"a": 1}'})))["choices"]
    with pytest.raises(UpstreamError) as failed:
        opened(response_format=form).completion(json.dumps(message({"text": "Sure."})).encode())
    assert failed.value.code == "upstream_malformed_output"


def test_arguments_that_are_no_json_are_told_as_they_are() -> None:
    whole = [*events(message(tool_use("weather", city="Rome"), stop="tool_use"))]
    said = folded(opened(True), *whole[:-4], *whole[-3:])["choices"][0]
    with pytest.raises(ValueError):
        json.loads(said["message"]["tool_calls"][0]["function"]["arguments"])
    assert said["finish_reason"] == "tool_calls"
    again = [*HI, {"role": "assistant", "tool_calls": said["message"]["tool_calls"]}]
    again.append({"role": "tool", "tool_call_id": "tooluse_1", "content": "What?"})
    called = sent(messages=again, tools=[WEATHER])["messages"][1]["content"][0]["toolUse"]["input"]
    assert called.keys() == {"invalid_json"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"seed": 1, "presence_penalty": 0.5}, ["seed", "presence_penalty"]),
        ({"service_tier": "scale"}, ["service_tier"]),
        ({"tools": [WEATHER], "parallel_tool_calls": False}, ["parallel_tool_calls"]),
        ({"model": "meta.llama3-70b-instruct-v1:0", "reasoning_effort": "low"}, ["reasoning_effort"]),
        ({"reasoning_effort": "low", "temperature": 0.5, "top_p": 0.9}, ["temperature", "top_p"]),
    ],
)
def test_what_there_is_no_word_for_is_named(asked: dict[str, Any], names: list[str]) -> None:
    sent(**asked)
    assert opened(**asked).dropped == names


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"model": "amazon.nova-pro-v1:0", "response_format": FORM, "tools": [WEATHER]}, "response_format"),
    ],
)
def test_what_would_change_the_answers_shape_is_refused(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Reject) as refused:
        opened(**asked)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
        {"type": "image_url", "image_url": {"url": f"data:image/tiff;base64,{PNG}"}},
        {"type": "file", "file": {"file_data": "https://example.org/a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    ],
)
def test_content_that_it_does_not_take_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(Reject) as refused:
        opened(messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, part]}])
    assert (refused.value.status, refused.value.code) == (400, "unsupported_value")


def test_a_request_is_signed_as_botocore_signs_it(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message({"text": "Hello, "}, {"text": "you."}))]
    said = ask(client, stream)
    assert said.choices[0].message.content == "Hello, you."
    assert (said.choices[0].finish_reason, said.model) == ("stop", "claude")
    used = said.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (16, 7, 23)
    assert used.prompt_tokens_details.cached_tokens == 4
    request = upstream.requests[-1]
    escaped = ARN.replace(":", "%3A").replace("/", "%2F")
    assert request.path == f"/model/{escaped}/converse{'-stream' if stream else ''}"
    assert request.headers["x-amz-security-token"] == "TOKEN+/="
    assert signed(request, SECRET, "eu-central-1")
    assert not signed(request, SECRET + "x", "eu-central-1")
    body = judged(request.json, "ConverseStream" if stream else "Converse")
    assert body["guardrailConfig"] == {"guardrailIdentifier": "gr123abc", "guardrailVersion": "7"}


def test_thoughts_go_back_with_the_calls_that_they_led_to(
    client: openai.OpenAI, upstream: Upstream, stream: bool
) -> None:
    thoughts = [thinking("Let me see."), {"reasoningContent": {"redactedContent": "EmwK"}}]
    calls = [tool_use("weather", "tooluse_1", city="Rome"), tool_use("now", "tooluse_2")]
    upstream.scripts = [answer(message(*thoughts, {"text": "A moment."}, *calls, stop="tool_use"))]
    said = ask(client, stream, tools=[WEATHER, NOW], reasoning_effort="high").choices[0]
    assert said.finish_reason == "tool_calls"
    assert said.message.content == "A moment."
    assert said.message.reasoning_content == "Let me see."
    assert [json.loads(call.function.arguments) for call in said.message.tool_calls] == [{"city": "Rome"}, {}]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in said.message.tool_calls]
    replayed = said.message.model_dump(exclude_none=True, exclude={"tool_calls": {"__all__": {"index"}}})
    upstream.scripts = [answer(message({"text": "Sunny."}))]
    ask(client, stream, tools=[WEATHER, NOW], messages=[*HI, replayed, *results])
    request = judged(upstream.requests[-1].json)
    assert request["messages"][1]["content"] == [*thoughts, {"text": "A moment."}, *calls]
    ids = [block["toolResult"]["toolUseId"] for block in request["messages"][2]["content"]]
    assert ids == ["tooluse_1", "tooluse_2"]


GROUNDED = (
    {"text": "Blåbær. "},
    {
        "citationsContent": {
            "content": [{"text": "It rains."}],
            "citations": [{"title": "A", "location": {"web": {"url": "https://a.example/", "domain": "a.example"}}}],
        }
    },
)


def test_citations_lie_where_the_text_is(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(*GROUNDED))]
    shown = ask(client, stream, model="nova", web_search_options={}).choices[0].message
    found = [entry if isinstance(entry, dict) else entry.model_dump() for entry in shown.annotations]
    place = found[0]["url_citation"]
    assert (place["url"], place["title"]) == ("https://a.example/", "A")
    assert shown.content[place["start_index"] : place["end_index"]] == "It rains."


def test_a_model_without_forms_is_made_to_call_one(client: openai.OpenAI, upstream: Upstream, stream: bool) -> None:
    upstream.scripts = [answer(message(tool_use("place", city="Rome"), stop="tool_use"))]
    said = ask(client, stream, model="nova", response_format=FORM).choices[0]
    assert (said.finish_reason, json.loads(said.message.content)) == ("stop", {"city": "Rome"})
    assert not said.message.tool_calls


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("from_the_future", "stop"),
    ],
)
def test_each_end_has_its_finish_reason(stop: str, finish: str) -> None:
    body = message({"text": "x"}, stop=stop)
    assert opened().completion(json.dumps(body).encode())["choices"][0]["finish_reason"] == finish
    assert folded(opened(True), *events(body))["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("stop", ["malformed_model_output", "malformed_tool_use"])
def test_output_that_cannot_be_used_is_an_error(stop: str) -> None:
    with pytest.raises(UpstreamError) as failed:
        folded(opened(True), *events(message({"text": "x"}, stop=stop)))
    assert (failed.value.status, failed.value.code) == (502, "upstream_malformed_output")


@pytest.mark.parametrize(
    ("status", "name", "text", "expected"),
    [
        (400, "ValidationException", "1 validation error", (400, "upstream_refused")),
        (400, "ValidationException", "Input is too long for requested model.", (400, "context_length_exceeded")),
        (400, "ValidationException", "The provided model identifier is invalid.", (404, "model_not_found")),
        (403, "AccessDeniedException", "You don't have access", (502, "upstream_auth_error")),
        (403, "ExpiredTokenException", "The security token is expired", (502, "upstream_auth_error")),
        (404, "ResourceNotFoundException", "Gone", (404, "model_not_found")),
        (408, "ModelTimeoutException", "Slow", (504, "upstream_timeout")),
        (424, "ModelErrorException", "Oh", (502, "upstream_error")),
        (424, "ModelStreamErrorException", "Oh", (502, "upstream_error")),
        (429, "ThrottlingException", "Too many requests", (429, "rate_limit_exceeded")),
        (429, "ModelNotReadyException", "Not ready", (503, "server_is_overloaded")),
        (400, "ServiceQuotaExceededException", "Quota", (429, "insufficient_quota")),
        (500, "InternalServerException", "Oh", (502, "upstream_error")),
        (503, "ServiceUnavailableException", "Busy", (503, "server_is_overloaded")),
    ],
)
def test_errors_are_openais_whether_as_a_status_or_within_an_answer(
    status: int, name: str, text: str, expected: tuple[int, str]
) -> None:
    body = json.dumps({"message": text}).encode()
    told = opened().error(status, {"x-amzn-errortype": f"{name}:http://internal.amazon.com/"}, body)
    assert (told.status, told.code) == expected
    typed = json.dumps({"__type": f"com.amazon#{name}", "Message": text}).encode()
    assert opened().error(status, {}, typed).code == expected[1]
    with pytest.raises(UpstreamError) as failed:
        folded(opened(True), exception(name[0].lower() + name[1:], text))
    assert (failed.value.status, failed.value.code) == expected


def test_an_error_page_is_an_error() -> None:
    assert opened().error(502, {}, b"<html>").code == "upstream_error"


def test_an_exception_after_the_first_words_ends_the_stream(client: openai.OpenAI, upstream: Upstream) -> None:
    begun = [*events(message({"text": "Hello"}))][:3]
    upstream.scripts = [lambda _: streaming(*begun, exception("throttlingException", "Too many"))]
    stream = client.chat.completions.create(model="claude", messages=HI, stream=True)
    with pytest.raises(openai.APIError) as failed:
        list(stream)
    assert failed.value.code == "rate_limit_exceeded"


def broken() -> dict[str, list[bytes]]:
    whole = [*events(message({"text": "Hello"}))]
    flipped = bytearray(whole[2])
    flipped[-9] ^= 1
    length = bytearray(whole[2])
    length[2] ^= 1
    return {
        "a payload's checksum": [*whole[:2], bytes(flipped), *whole[3:]],
        "a prelude's checksum": [*whole[:2], bytes(length), *whole[3:]],
        "half a frame": [*whole[:-1], whole[-1][:-1]],
        "no end": whole[:-2],
        "no frames": [b"<html>not a stream, however long it is</html>"],
        "no JSON": [*whole[:2], event("contentBlockDelta", {}), *whole[3:]],
    }


@pytest.mark.parametrize("how", broken())
def test_a_broken_stream_is_never_taken_for_a_whole_one(client: openai.OpenAI, upstream: Upstream, how: str) -> None:
    upstream.scripts = [lambda _: streaming(*broken()[how])]
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="claude", messages=HI, stream=True))


def test_a_stream_that_is_reset_is_cut(client: openai.OpenAI, upstream: Upstream) -> None:
    begun = [*events(message({"text": "Hello"}))][:-1]
    upstream.scripts = [lambda _: [streaming(*begun, last=False), RST]]
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="claude", messages=HI, stream=True))


def test_a_stream_that_ends_without_its_usage_is_whole() -> None:
    said = folded(opened(True), *[*events(message({"text": "Hello"}))][:-1])
    assert said["choices"][0]["message"]["content"] == "Hello"
    assert "usage" not in said


def test_an_answer_that_is_none_is_an_error(client: openai.OpenAI, upstream: Upstream) -> None:
    for body in (b"{", b"{}", b"[1]", b'{"output": {"message": {"content": 5}}, "stopReason": "end_turn"}'):
        upstream.scripts = [lambda _, body=body: json_answer(body)]
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="claude", messages=HI)
        assert failed.value.status_code == 502


def test_what_was_cached_is_counted_once() -> None:
    inside = {**USAGE, "totalTokens": 17}
    said = opened().completion(json.dumps(message({"text": "x"}, usage=inside)).encode())
    assert said["usage"]["prompt_tokens"] == 10


RICH = message(thinking("Hm: ü."), *GROUNDED, tool_use("weather", city="Røros"), tool_use("now", "t2"), stop="tool_use")


def test_a_streamed_answer_is_the_same_as_a_whole_one() -> None:
    whole = opened().completion(json.dumps(RICH).encode())
    streamed = folded(opened(True), *events(RICH))
    for choice in (whole["choices"][0], streamed["choices"][0]):
        for call in choice["message"]["tool_calls"]:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert whole["choices"] == streamed["choices"]
    assert whole["usage"] == streamed["usage"]


def test_what_is_new_to_it_is_read_over() -> None:
    frames = [*events(RICH)]
    frames.insert(4, event("contentBlockThought", {"x": 1}))
    assert folded(opened(True), *frames) == folded(opened(True), *events(RICH))


@given(st.lists(st.integers(1, 9000), max_size=6), st.integers(1, 9))
@settings(max_examples=60)
def test_however_a_stream_is_split_it_says_the_same(cuts: list[int], split: int) -> None:
    body = b"".join(events(RICH, split))
    places = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in zip(places, places[1:], strict=False) if end > start]
    assert folded(opened(True), *chunks) == folded(opened(True), body)


def test_byte_by_byte_it_says_the_same() -> None:
    body = b"".join(events(RICH))
    chunks = (body[at : at + 1] for at in range(len(body)))
    assert folded(opened(True), *chunks) == folded(opened(True), body)


def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = provider()
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "")
    with pytest.raises(UpstreamError) as failed:
        made.open(exchange, {"model": SONNET, "messages": HI})
    assert failed.value.code == "upstream_auth_error"
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda self: None)
    with pytest.raises(ValueError, match="holds none"):
        made.renew()


def test_credentials_of_the_environment_are_fetched_once_and_those_that_expire_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert provider().renew() is None
    script = tmp_path / "fetch"
    script.write_text(
        '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "AKID2", "SecretAccessKey": "s", "SessionToken": "t", '
        '"Expiration": "2999-01-01T00:00:00Z"}\'\n'
    )
    script.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile fetched]\ncredential_process = {script}\n")
    made = provider(profile="fetched")
    assert made.renew() == RENEWED_S
    exchange = Exchange("req_1", "POST", "/v1/chat/completions", {}, "")
    call = made.open(exchange, {"model": SONNET, "messages": HI})
    assert "Credential=AKID2/" in call.outgoing.headers["Authorization"]
    assert call.outgoing.headers["X-Amz-Security-Token"] == "t"


def test_a_probe_is_signed_and_asks_nothing() -> None:
    made = provider()
    made._credentials = Credentials("AKIDEXAMPLE", SECRET)
    probe = made.probe()
    assert (probe.method, probe.body) == ("POST", b"{}")
    assert probe.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")


def test_a_callers_further_fields_must_be_an_object() -> None:
    for wrong in ("x", ["x"], None):
        with pytest.raises(Reject) as refused:
            opened(additionalModelRequestFields=wrong)
        assert (refused.value.status, refused.value.param) == (400, "additionalModelRequestFields")


def test_an_api_key_is_sent_instead_of_a_signature() -> None:
    assert opened().outgoing.headers == {"Content-Type": "application/json", "Authorization": "Bearer key"}


def test_without_its_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.delitem(sys.modules, "proxy.providers.bedrock")
    monkeypatch.setattr("proxy.shelf.requires", lambda _: ['botocore>=1.40; extra == "bedrock"'])
    catalog = Catalog.discover()
    assert catalog.providers.get("bedrock") is None
    assert catalog.absent == {"bedrock": "needs the extra 'bedrock': pip install 'lockgate[bedrock]'"}
