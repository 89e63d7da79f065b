"""The embedded provider keeps to OpenAI's choreography and is the same every time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Reject
from proxy.exchange import Exchange, Pause
from proxy.providers.echo import Echo, tokens
from proxy.providers.echo.examples import MOST_CHARACTERS, example

CITY: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C"]},
            },
            "required": ["city", "days"],
        },
    },
}


def said(text: Any = "Hello there, you", *, options: dict[str, int] | None = None, **more: Any) -> list[Any]:
    """Return everything that the provider yields for one request."""
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **more}
    exchange = Exchange(id="req_1", method="POST", path="/v1/chat/completions", headers={}, client_address="127.0.0.1")
    exchange.body, exchange.stream = body, bool(body.get("stream"))
    reply = Echo(Echo.Config().load(options or {})).open(exchange, dict(body))
    assert reply.events is not None
    return list(reply.events)


def content(events: list[Any], index: int = 0) -> str:
    deltas = [choice["delta"] for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def finishes(events: list[Any]) -> list[str]:
    return [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]


def called(events: list[Any]) -> Any:
    calls = [call for event in events for choice in event["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0] * len(calls)
    assert [key for call in calls for key in ("id", "type") if key in call] == ["id", "type"]
    return json.loads("".join(call["function"]["arguments"] for call in calls))


def test_the_answer_repeats_the_last_user_message_in_openais_order() -> None:
    events = said()
    assert [event["choices"][0]["delta"] for event in events[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "You"},
        {"content": " said:"},
        {"content": " Hello"},
        {"content": " there,"},
        {"content": " you"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 6 + ["stop"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] | {"total_tokens": 8} == events[-1]["usage"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1


def test_the_same_request_has_the_same_answer_and_another_one_another_id() -> None:
    assert said("a")[0]["id"] == said("a")[0]["id"] != said("b")[0]["id"]


def test_only_the_last_event_has_usage_and_the_others_null_where_the_client_asked() -> None:
    asked = said(stream=True, stream_options={"include_usage": True})
    assert [event["usage"] for event in asked[:-1]] == [None] * (len(asked) - 1)
    assert all("usage" not in event for event in said(stream=True)[:-1])


def test_parts_of_text_are_joined_and_pictures_say_nothing() -> None:
    parts = [
        {"type": "text", "text": "a "},
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "text", "text": "b"},
    ]
    assert content(said(parts)) == "You said: a b"


def test_without_a_user_message_there_is_still_an_answer() -> None:
    assert content(said(messages=[{"role": "system", "content": "Be kind."}])) == "You said nothing."


def test_choices_interleave_and_each_has_its_role_and_its_finish() -> None:
    events = said("x", n=2)
    assert [event["choices"][0]["index"] for event in events[:-1]] == [0, 1] * 5
    assert content(events, 0) == content(events, 1) == "You said: x"
    assert finishes(events) == ["stop", "stop"]
    assert events[-1]["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("limits", "text", "finish"),
    [
        ({"max_tokens": 2}, "You said:", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 2}, "You", "length"),
        ({"max_completion_tokens": 0}, "", "length"),
        ({"max_tokens": None}, "You said: Hello there, you", "stop"),
        ({"max_tokens": 5}, "You said: Hello there, you", "stop"),
        ({"stop": "there"}, "You said: Hello ", "stop"),
        ({"stop": ["you", "ello", "You said: Hex"]}, "You said: H", "stop"),
        ({"stop": ["never"]}, "You said: Hello there, you", "stop"),
        ({"stop": "you", "max_tokens": 3}, "You said: Hello", "length"),
    ],
)
def test_limits_and_stop_words_end_the_answer(limits: dict[str, Any], text: str, finish: str) -> None:
    events = said(**limits)
    assert (content(events), finishes(events)) == (text, [finish])


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "get_weather"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_weather"}}]},
        },
    ],
)
def test_a_demanded_call_has_arguments_that_fit_and_says_its_name_once(choice: Any) -> None:
    other = {"type": "function", "function": {"name": "get_weather" if choice == "required" else "other"}}
    events = said("in Paris", tools=[CITY, other], tool_choice=choice)
    assert called(events) == {"city": "in Paris", "days": 2}
    opening = events[0]["choices"][0]["delta"]
    assert opening["content"] is None and opening["refusal"] is None
    assert opening["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": ""}
    assert finishes(events) == ["tool_calls"]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_call_that_is_not_demanded_is_not_made(choice: str | None) -> None:
    assert content(said("x", tools=[CITY], tool_choice=choice)) == "You said: x"


def test_a_function_without_parameters_is_called_with_none() -> None:
    assert called(said(tools=[{"type": "function", "function": {"name": "ping"}}], tool_choice="required")) == {}


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "b"}}, {"type": "custom", "custom": {"name": "a"}}]
)
def test_a_choice_that_cannot_be_followed_is_refused(choice: Any) -> None:
    with pytest.raises(Reject) as refused:
        said(tools=[{"type": "custom", "custom": {"name": "a"}}], tool_choice=choice)
    assert (refused.value.status, refused.value.param) == (400, "tool_choice")


def test_json_is_json() -> None:
    assert json.loads(content(said('a "b"', response_format={"type": "json_object"}))) == {"text": 'a "b"'}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY["function"]["parameters"]}}
    assert json.loads(content(said("here", response_format=form))) == {"city": "here", "days": 2}
    assert content(said(response_format={"type": "json_schema", "json_schema": {"name": "x"}})) == "{}"


def test_delays_are_pauses_for_the_core_to_wait() -> None:
    pauses = [
        event for event in said("x", n=2, options={"delay_ms": 20, "first_delay_ms": 500}) if isinstance(event, Pause)
    ]
    assert pauses == [Pause(0.5), Pause(0.02), Pause(0.02), Pause(0.02)]


@given(st.text())
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 3}, 3),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": ["null", "string"]}, None),
        ({"type": "number", "maximum": -1.5}, -1.5),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "integer", "maximum": -1.5}, -2),
        ({"type": "boolean"}, False),
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "array", "minItems": 2, "items": {"type": "integer"}}, [0, 0]),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, {}),
        ({"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"}, 1),
        ({"$ref": "https://example.com/schema"}, None),
        ({"properties": {"a": True}, "required": ["a"]}, {"a": None}),
        ({"type": "object", "required": "a", "properties": []}, {}),
        ({"minimum": "x", "type": "integer"}, 0),
        ({}, "text"),
    ],
)
def test_an_example_fits_its_schema(schema: dict[str, Any], value: Any) -> None:
    assert example(schema, "text") == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "array", "minItems": 10**12, "items": {"$ref": "#"}},
        {
            "type": "array",
            "minItems": 10**6,
            "items": {"type": "array", "minItems": 10**6, "items": {"const": "x" * 999}},
        },
        {
            "type": "object",
            "required": [f"p{i}" for i in range(99)],
            "properties": {f"p{i}": {"$ref": "#"} for i in range(99)},
        },
        {"type": "string", "minLength": 10**12},
    ],
)
def test_a_schema_without_end_has_a_bounded_example(schema: dict[str, Any]) -> None:
    assert len(json.dumps(example(schema, "text" * MOST_CHARACTERS))) < 8 * MOST_CHARACTERS
