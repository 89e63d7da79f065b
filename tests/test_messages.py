"""Conversations as clients send them pass; broken ones are refused with the path of the mistake."""

from __future__ import annotations

import base64
import copy
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from upstreams import Upstream, json_answer

from proxy.errors import Reject
from proxy.request.body import parse
from proxy.request.schemas import check_chat, check_unknown

USER = {"role": "user", "content": "What is the weather in Paris and Rome?"}


def call(id: str, **function: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": "{}"} | function}


def calling(*ids: str, **members: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call(id) for id in ids], **members}


def result(id: str, **members: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "21 degrees", **members}


def check(*messages: Any) -> None:
    body = {"model": "m", "messages": copy.deepcopy(list(messages))}
    check_chat(body)
    assert body["messages"] == list(messages)


def refusal(*messages: Any) -> Reject:
    with pytest.raises(Reject) as caught:
        check(*messages)
    assert caught.value.status == 400
    return caught.value


def part(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, kind: members} if members else {"type": kind}


TEXT = {"type": "text", "text": "Look."}
IMAGE = part("image_url", url="data:image/png;base64,AAAA", detail="high")
AUDIO = part("input_audio", data="AAAA", format="wav")
FILE = part("file", filename="a.pdf", file_data="data:application/pdf;base64,AAAA")
REFUSAL = {"type": "refusal", "refusal": "No."}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [TEXT], "name": "dev"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "user", "content": [TEXT, IMAGE, AUDIO, FILE]},
        {"role": "user", "content": [TEXT | {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}]},
        {"role": "user", "content": [TEXT | {"cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [part("image_url", url="https://example.com/a.png")]},
        {"role": "assistant", "content": "Hello."},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [TEXT, TEXT]},
        {"role": "assistant", "content": [REFUSAL]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "refusal": "No."},
        {"role": "assistant", "audio": {"id": "audio_1"}},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
        {"role": "function", "name": "f", "content": "1"},
    ],
)
def test_legal_messages_pass(message: dict[str, Any]) -> None:
    check(USER, message)


AT = "messages[1]"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("hello", "invalid_type", AT),
        (None, "invalid_type", AT),
        ({}, "missing_required_parameter", f"{AT}.role"),
        ({"role": 1, "content": ""}, "invalid_type", f"{AT}.role"),
        ({"role": ["user"], "content": ""}, "invalid_type", f"{AT}.role"),
        ({"role": "User", "content": ""}, "invalid_value", f"{AT}.role"),
        ({"role": "user"}, "missing_required_parameter", f"{AT}.content"),
        ({"role": "user", "content": None}, "invalid_type", f"{AT}.content"),
        ({"role": "user", "content": 5}, "invalid_type", f"{AT}.content"),
        ({"role": "user", "content": {"type": "text"}}, "invalid_type", f"{AT}.content"),
        ({"role": "user", "content": []}, "empty_array", f"{AT}.content"),
        ({"role": "user", "content": ["a"]}, "invalid_type", f"{AT}.content[0]"),
        ({"role": "user", "content": "", "name": None}, "invalid_type", f"{AT}.name"),
        ({"role": "user", "content": [{"text": "a"}]}, "missing_required_parameter", f"{AT}.content[0].type"),
        ({"role": "user", "content": [TEXT, {"type": "video"}]}, "invalid_value", f"{AT}.content[1].type"),
        ({"role": "user", "content": [REFUSAL]}, "invalid_value", f"{AT}.content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "missing_required_parameter", f"{AT}.content[0].text"),
        ({"role": "user", "content": [TEXT | {"text": 1}]}, "invalid_type", f"{AT}.content[0].text"),
        (
            {"role": "user", "content": [TEXT | {"prompt_cache_breakpoint": {}}]},
            "missing_required_parameter",
            f"{AT}.content[0].prompt_cache_breakpoint.mode",
        ),
        (
            {"role": "user", "content": [TEXT, {"type": "image_url", "image_url": "https://example.com"}]},
            "invalid_type",
            f"{AT}.content[1].image_url",
        ),
        (
            {"role": "user", "content": [TEXT, part("image_url", detail="low")]},
            "missing_required_parameter",
            f"{AT}.content[1].image_url.url",
        ),
        (
            {"role": "user", "content": [part("image_url", url="u", detail="huge")]},
            "invalid_value",
            f"{AT}.content[0].image_url.detail",
        ),
        (
            {"role": "user", "content": [part("input_audio", data="A", format="ogg")]},
            "invalid_value",
            f"{AT}.content[0].input_audio.format",
        ),
        ({"role": "user", "content": [part("file")]}, "missing_required_parameter", f"{AT}.content[0].file"),
        ({"role": "user", "content": [part("file", file_id=1)]}, "invalid_type", f"{AT}.content[0].file.file_id"),
        ({"role": "system", "content": [IMAGE]}, "invalid_value", f"{AT}.content[0].type"),
        ({"role": "assistant"}, "missing_required_parameter", f"{AT}.content"),
        ({"role": "assistant", "tool_calls": []}, "missing_required_parameter", f"{AT}.content"),
        ({"role": "assistant", "content": [TEXT, REFUSAL]}, "invalid_value", f"{AT}.content"),
        ({"role": "assistant", "content": [IMAGE]}, "invalid_value", f"{AT}.content[0].type"),
        ({"role": "assistant", "content": "", "tool_calls": {}}, "invalid_type", f"{AT}.tool_calls"),
        ({"role": "assistant", "tool_calls": [None]}, "invalid_type", f"{AT}.tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{"type": "function"}]},
            "missing_required_parameter",
            f"{AT}.tool_calls[0].id",
        ),
        (
            {"role": "assistant", "tool_calls": [call("a", arguments={})]},
            "invalid_type",
            f"{AT}.tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [call("a", name=None)]},
            "invalid_type",
            f"{AT}.tool_calls[0].function.name",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "c"}}]},
            "missing_required_parameter",
            f"{AT}.tool_calls[0].custom.input",
        ),
        ({"role": "assistant", "content": "", "audio": {}}, "missing_required_parameter", f"{AT}.audio.id"),
        ({"role": "tool", "content": "1"}, "missing_required_parameter", f"{AT}.tool_call_id"),
        ({"role": "tool", "tool_call_id": "a"}, "missing_required_parameter", f"{AT}.content"),
        ({"role": "tool", "tool_call_id": ["a"], "content": ""}, "invalid_type", f"{AT}.tool_call_id"),
        ({"role": "function", "content": "1"}, "missing_required_parameter", f"{AT}.name"),
        ({"role": "function", "name": "f"}, "missing_required_parameter", f"{AT}.content"),
    ],
)
def test_illegal_messages_are_refused_with_their_path(message: Any, code: str, param: str) -> None:
    error = refusal(USER, message)
    assert (error.code, error.param) == (code, param)
    assert f"'{param}'" in error.message


def test_parallel_tool_calls_take_their_results_in_any_order() -> None:
    check(USER, calling("a", "b"), result("b"), result("a"), {"role": "assistant", "content": "Warm."})


def test_a_custom_tool_call_takes_a_result() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "code", "input": "print(1)"}}
    check(USER, {"role": "assistant", "tool_calls": [custom]}, result("c", content=[TEXT]))


def test_engines_that_number_calls_anew_in_each_turn_are_understood() -> None:
    check(USER, calling("call_0"), result("call_0"), calling("call_0"), result("call_0", name="get_weather"))


def test_results_that_come_late_are_left_to_the_upstream() -> None:
    check(USER, calling("a"), USER, result("a"))


def test_a_tool_message_without_a_call_is_refused() -> None:
    error = refusal(USER, result("a"), calling("a"))
    assert (error.code, error.param) == (None, "messages.[1].role")
    assert error.message == (
        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
    )
    assert refusal(USER, calling("a"), result("b")).param == "messages.[2].role"


def test_calls_without_results_are_refused() -> None:
    error = refusal(USER, calling("a", "b", "c"), result("b"), USER)
    assert (error.code, error.param) == (None, "messages.[1].role")
    assert error.message == (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        "The following tool_call_ids did not have response messages: a, c"
    )
    assert refusal(USER, calling("x" * 5000)).message.count("x") < 101


def test_a_replayed_answer_passes_with_all_that_upstreams_add() -> None:
    check(
        USER,
        {
            "role": "assistant",
            "content": "It is warm.",
            "refusal": None,
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com"}}],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "parsed": {"a": 1},
            "reasoning_content": "Hmm.",
            "reasoning": None,
            "thinking_blocks": [],
            "provider_specific_fields": {"x": None},
        },
        USER,
        {"role": "assistant", "content": "", "tool_calls": [], "annotations": []},
        USER,
        {**calling(), "refusal": None, "tool_calls": [call("a") | {"index": 0}]},
        result("a"),
    )


NAMES = ["role", "content", "name", "tool_calls", "tool_call_id", "type", "text", "id", "function", "refusal", "audio"]
JSON = st.recursive(
    st.sampled_from([None, True, 1, "user", "assistant", "tool", "text", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)
ALMOST = st.builds(
    lambda role, members: {"role": role, **members},
    st.sampled_from(["user", "assistant", "tool", "system", "function", "developer"]),
    st.dictionaries(st.sampled_from(NAMES[1:]), JSON, max_size=4),
)


@given(st.lists(ALMOST | JSON, max_size=4))
def test_almost_messages_pass_or_are_refused_with_a_path(messages: list[Any]) -> None:
    try:
        check_chat({"model": "m", "messages": messages})
    except Reject as error:
        assert error.status == 400
        assert error.message
        assert (error.param or "").startswith("messages")


class Weather(BaseModel):
    city: str
    degrees: float


ANSWER: dict[str, Any] = {
    "role": "assistant",
    "content": '{"city": "Paris", "degrees": 21}',
    "refusal": None,
    "annotations": [],
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}, "strict": True}}


def sent(upstream: Upstream, messages: list[Any], **parameters: Any) -> tuple[dict[str, Any], Any]:
    """Let the official SDK send a request; return the body that arrived and the message that it made of the answer."""
    choice = {"index": 0, "message": ANSWER, "finish_reason": "stop", "logprobs": None}
    completion = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    upstream.scripts = [lambda _: json_answer(completion)]
    with openai.OpenAI(api_key="k", base_url=upstream.url) as client:
        make: Any = client.chat.completions.parse if "response_format" in parameters else client.chat.completions.create
        made = make(model="m", messages=messages, **parameters)
    return parse(upstream.requests[-1].body), made.choices[0].message


@pytest.mark.parametrize(
    ("messages", "parameters"),
    [
        ([USER], {"temperature": None, "max_completion_tokens": 5, "user": "u", "metadata": {"team": "a"}}),
        ([{"role": "user", "content": [TEXT, IMAGE]}], {"max_tokens": 300}),
        ([{"role": "user", "content": [part("image_url", url=base64.b64encode(b"7" * 90_000).decode())]}], {}),
        ([USER, calling("a", "b"), result("a"), result("b")], {"tools": [TOOL], "parallel_tool_calls": True}),
        ([USER], {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
        ([USER], {"response_format": Weather}),
        ([USER], {"web_search_options": {}}),
        ([USER], {"logprobs": True, "top_logprobs": 5, "logit_bias": {"50256": -100}, "seed": 7, "stop": ["END"]}),
    ],
)
def test_what_the_official_sdk_sends_passes(
    upstream: Upstream, messages: list[Any], parameters: dict[str, Any]
) -> None:
    body, _ = sent(upstream, messages, **parameters)
    check_chat(body)
    check_unknown(body, ())


# The SDK itself warns when it dumps a parsed message.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("parameters", [{}, {"response_format": Weather}])
def test_what_the_official_sdk_made_of_an_answer_can_be_replayed(
    upstream: Upstream, parameters: dict[str, Any]
) -> None:
    _, message = sent(upstream, [USER], **parameters)
    for replayed in (
        message,
        message.model_dump(),
        message.model_dump(exclude_none=True),
    ):
        body, _ = sent(upstream, [USER, replayed, USER])
        check_chat(body)
