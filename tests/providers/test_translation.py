"""What translating providers share."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Reject, UpstreamError
from proxy.exchange import Exchange
from proxy.providers import chunks, claude
from proxy.providers.chunks import Chunks
from proxy.providers.parts import Media, Text, pieces
from proxy.providers.translation import Seal, ToolCall, ToolResult, arguments, conversation, merged, stops, tools
from proxy.upstreams.sealing import Sealer

SEAL = Seal("one", Sealer(b"x" * 32))


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@given(
    st.text(min_size=1, max_size=80), st.lists(st.dictionaries(st.text(max_size=9), st.text(max_size=200)), min_size=1)
)
def test_what_is_carried_comes_back_with_the_upstreams_id(id: str, carried: list[Any]) -> None:
    sealed = SEAL.close(id, carried)
    assert SEAL.open(sealed) == (id, carried)
    assert SEAL.close(id, carried) == sealed


def test_an_id_that_carries_nothing_is_the_upstreams_own() -> None:
    assert SEAL.close("toolu_1", []) == "toolu_1"
    assert Seal("one", None).close("toolu_1", ["thought"]) == "toolu_1"
    assert SEAL.open("toolu_1") == ("toolu_1", None)


@given(st.text(max_size=300))
def test_an_id_of_elsewhere_is_made_legal_and_always_the_same(id: str) -> None:
    made, carried = SEAL.open(id)
    assert SEAL.legal.fullmatch(made)
    assert carried is None
    assert SEAL.open(id) == (made, None)


def test_what_another_dialect_carries_is_not_taken() -> None:
    other = Seal("two", SEAL.sealer).close("toolu_1", ["thought"])
    made, carried = SEAL.open(other)
    assert (made != "toolu_1", carried) == (True, None)


def test_results_that_follow_each_other_make_one_turn() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    system, turns = conversation(
        [
            {"role": "developer", "content": "One."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": " ", "tool_calls": [call, call | {"id": "b"}]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "system", "content": [{"type": "text", "text": "Two."}]},
            {"role": "user", "content": "\n"},
            {"role": "assistant", "content": None, "refusal": "No."},
        ],
        SEAL,
    )
    assert system == [Text("One."), Text("Two.")]
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert turns[1].pieces == [ToolCall("a", "f", {"x": 1}), ToolCall("b", "f", {"x": 1})]
    assert turns[2].pieces == [ToolResult("b", "f", [Text("2")]), ToolResult("a", "f", [Text("1")])]
    assert turns[3].pieces == [Text("No.")]


def test_functions_of_the_older_form_are_calls_and_results() -> None:
    _, turns = conversation(
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
        SEAL,
    )
    called, result = turns[0].pieces[0], turns[1].pieces[0]
    assert isinstance(called, ToolCall)
    assert isinstance(result, ToolResult)
    assert (called.id, called.name) == (result.id, result.name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", {}), ("{}", {}), ('{"a":1}', {"a": 1}), ("[1]", {"invalid_json": "[1]"}), ('{"a', {"invalid_json": '{"a'})],
)
def test_arguments_are_an_object_whatever_the_model_said(text: str, expected: dict[str, Any]) -> None:
    assert arguments(text) == expected


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        ("data:image/png;base64,aGk=", "image/png", b"hi"),
        ("DATA:image/JPG;charset=x;base64,aGk=", "image/jpeg", b"hi"),
        ("data:,h%C3%A9", "text/plain", "hé".encode()),
        ("data:image/png;base64,aG\nk=", "image/png", b"hi"),
    ],
)
def test_data_urls_are_read(url: str, media_type: str, data: bytes) -> None:
    [media] = pieces([{"type": "image_url", "image_url": {"url": url}}], "messages[0].content")
    assert isinstance(media, Media)
    assert (media.media_type, base64.b64decode(media.data, validate=True), media.url) == (media_type, data, None)


@given(st.binary(min_size=1, max_size=99))
def test_the_bytes_of_an_image_arrive_as_they_were_sent(data: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    [media] = pieces([{"type": "image_url", "image_url": {"url": url}}], "")
    assert isinstance(media, Media)
    assert base64.b64decode(media.data) == data


def test_a_file_is_what_its_url_or_its_name_says() -> None:
    def kind(**file: str) -> str:
        [media] = pieces([{"type": "file", "file": file}], "")
        assert isinstance(media, Media)
        return media.media_type

    assert kind(file_data="aGk=") == "application/pdf"
    assert kind(file_data="aGk=", filename="A.CSV") == "text/csv"
    assert kind(file_data="data:application/octet-stream;base64,aGk=", filename="a.md") == "text/markdown"
    assert kind(file_data="data:text/html;base64,aGk=", filename="a.md") == "text/html"


@pytest.mark.parametrize("url", ["data:image/png;base64,", "data:image/png;base64,a", "ftp://x/y", "x.png", "data:x"])
def test_urls_that_hold_nothing_are_refused_with_their_place(url: str) -> None:
    with pytest.raises(Reject) as refused:
        pieces([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}], "messages[3].content")
    assert (refused.value.status, refused.value.param) == (400, "messages[3].content[1].image_url")
    assert url not in refused.value.message


def test_turns_of_one_role_are_joined_and_empty_ones_left_out() -> None:
    a, b, c = {"a": 1}, {"b": 1}, {"c": 1}
    assert merged([("user", [a]), ("assistant", []), ("user", [b]), ("assistant", [c])]) == [
        ("user", [a, b]),
        ("assistant", [c]),
    ]


def test_only_the_allowed_tools_are_offered() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("b")]}}
    found = tools({"tools": [function("a"), function("b")], "tool_choice": allowed})
    assert ([tool["name"] for tool in found.functions], found.choice) == (["b"], "auto")


def test_stops_are_a_list_without_blank_ones() -> None:
    assert stops({"stop": "x"}) == ["x"]
    assert stops({"stop": ["x", "\n", ""]}) == ["x"]
    assert stops({"stop": None}) == []


@pytest.mark.parametrize(
    ("said", "called", "reason"),
    [
        ("STOP", True, "tool_calls"),
        ("", False, "stop"),
        (None, False, "stop"),
        ("model_length", False, "length"),
        ("MAX_TOKENS", True, "length"),
        ("IMAGE_SAFETY", False, "content_filter"),
        ("BLOCKLIST", False, "content_filter"),
        ("tool_use", False, "tool_calls"),
        ("a reason of tomorrow", False, "stop"),
    ],
)
def test_finish_reasons_are_openais(said: Any, called: bool, reason: str) -> None:
    assert chunks.finish_reason(said, called) == reason


@pytest.mark.parametrize("said", ["MALFORMED_FUNCTION_CALL", "malformed_tool_use", "UNEXPECTED_TOOL_CALL", "error"])
def test_a_reason_that_is_a_failure_is_an_error(said: str) -> None:
    with pytest.raises(UpstreamError) as failed:
        chunks.finish_reason(said)
    assert failed.value.status == 502


def made(legacy: bool = False) -> Chunks:
    exchange = Exchange("req_abc", "POST", "/", {}, "")
    exchange.model = "mine"
    return Chunks(exchange, legacy)


def test_choices_have_each_their_own_role_and_calls() -> None:
    answer = made()
    events = [*answer.text("a", 1), *answer.call("x", "f"), *answer.arguments("{}"), *answer.text("b", 1)]
    events += [*answer.call("y", "f"), *answer.finish("tool_calls"), *answer.finish("stop", 1)]
    assert [event["choices"][0]["index"] for event in events] == [1, 1, 0, 0, 1, 0, 0, 1]
    assert sum("role" in event["choices"][0]["delta"] for event in events) == 2
    whole = chunks.folded(events)
    assert [call["id"] for call in whole["choices"][0]["message"]["tool_calls"]] == ["x", "y"]
    assert whole["choices"][0]["message"]["content"] is None
    assert whole["choices"][1]["message"]["content"] == "ab"
    assert (answer.length(1), answer.calls(), answer.calls(1)) == (2, 2, 0)


def test_an_answer_without_words_has_its_role_all_the_same() -> None:
    answer = made()
    whole = chunks.folded([*answer.finish("stop"), *answer.usage(chunks.usage(1, 2, cached=1))])
    message = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    assert whole["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert whole["usage"]["total_tokens"] == 3


@pytest.mark.parametrize(
    ("model", "budgeted", "structured"),
    [
        ("claude-2.1", True, False),
        ("claude-3-7-sonnet-latest", True, False),
        ("claude-opus-4-20250514", True, False),
        ("claude-opus-4-1-20250805", True, True),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", True, True),
        ("claude-haiku-4-5@20251001", True, True),
        ("claude-sonnet-4-6", False, True),
        ("eu.anthropic.claude-opus-4-8", False, True),
        ("claude-opus-4-10", False, True),
        ("claude-sonnet-5", False, True),
    ],
)
def test_the_generations_of_claude_are_told_by_their_names(model: str, budgeted: bool, structured: bool) -> None:
    assert (claude.budgeted(model), claude.structured(model)) == (budgeted, structured)
