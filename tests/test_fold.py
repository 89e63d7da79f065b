"""Completions as events and back: nothing is lost, and any real stream gives the completion it stands for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.fold import Fold, spread, unfold

TEXT = st.text(st.sampled_from("ab é😀\n"), max_size=6)
WORDS = TEXT.filter(bool)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)
TOKENS = st.lists(st.builds(lambda token: {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}, TEXT))
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.none() | TOKENS, "refusal": st.none() | TOKENS})
FUNCTION = st.fixed_dictionaries({"name": WORDS, "arguments": TEXT})
CALL = st.one_of(
    st.fixed_dictionaries({"id": TEXT, "type": st.just("function"), "function": FUNCTION}, optional={"extra": JSON}),
    st.fixed_dictionaries(
        {"id": TEXT, "type": st.just("custom"), "custom": st.fixed_dictionaries({"name": WORDS, "input": TEXT})}
    ),
)
CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u", "title": "t"}}
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT, "refusal": st.none() | TEXT},
    optional={
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "function_call": FUNCTION,
        "annotations": st.lists(st.just(CITATION), max_size=2),
        "audio": st.none()
        | st.fixed_dictionaries({"id": TEXT, "expires_at": st.integers(), "data": TEXT, "transcript": TEXT}),
        "reasoning_content": st.none() | TEXT,
        "reasoning": TEXT,
        "thinking_blocks": JSON,
    },
)
CHOICE = st.fixed_dictionaries(
    {"message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": st.sampled_from(["stop", "length", "tool_calls"])},
    optional={"stop_reason": JSON, "content_filter_results": JSON, "token_ids": st.none() | st.lists(st.integers())},
)


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    choices = [{"index": index} | choice for index, choice in enumerate(draw(st.lists(CHOICE, max_size=3)))]
    head = st.fixed_dictionaries(
        {"id": TEXT, "created": st.integers(), "model": TEXT, "object": st.just("chat.completion")},
        optional={
            "usage": st.fixed_dictionaries({"prompt_tokens": st.integers()}),
            "service_tier": st.none() | TEXT,
            "system_fingerprint": st.none() | TEXT,
            "prompt_filter_results": JSON,
            "metadata": JSON,
        },
    )
    return draw(head) | {"choices": choices}


def folded(events: Any) -> dict[str, Any]:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold.completion()


def completion(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None} | message,
        "logprobs": None,
        "finish_reason": "stop",
    }
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]} | more


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | more


@settings(deadline=None, max_examples=120)
@given(completions())
def test_a_completion_unfolded_and_folded_is_the_same(whole: dict[str, Any]) -> None:
    before = copy.deepcopy(whole)
    event = unfold(whole)
    assert event["object"] == "chat.completion.chunk"
    assert all("message" not in choice for choice in event["choices"])
    assert folded([event]) == before
    assert whole == before


def test_text_changed_in_an_unfolded_event_leaves_the_completion_alone() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    whole = completion({"content": "secret", "tool_calls": calls, "function_call": {"name": "f", "arguments": "{}"}})
    before = copy.deepcopy(whole)
    event = unfold(whole)
    event["choices"][0]["logprobs"] = {}
    delta = event["choices"][0]["delta"]
    delta["content"] = "x"
    delta["function_call"]["arguments"] = "x"
    delta["tool_calls"][0]["function"]["arguments"] = "x"
    delta["tool_calls"].clear()
    assert whole == before


def test_an_unfolded_completion_numbers_its_tool_calls_and_keeps_its_usage() -> None:
    calls = [{"id": str(n), "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(3)]
    event = unfold(completion({"tool_calls": calls}, usage={"total_tokens": 3}))
    assert [call["index"] for call in event["choices"][0]["delta"]["tool_calls"]] == [0, 1, 2]
    assert event["usage"] == {"total_tokens": 3}


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A completion and a stream that engines might send for it: texts in pieces, calls and choices interleaved."""

    def cut(text: str) -> list[str]:
        places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)) + [0, len(text)])
        return [text[start:end] for start, end in zip(places, places[1:], strict=False)]

    def mixed(runs: list[list[Any]]) -> list[Any]:
        order = draw(st.permutations([number for number, run in enumerate(runs) for _ in run]))
        sources = [iter(run) for run in runs]
        return [next(sources[number]) for number in order]

    choices, parts = [], []
    for index in range(draw(st.integers(1, 3))):
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        runs: list[list[dict[str, Any]]] = []
        for field in draw(st.sets(st.sampled_from(["content", "refusal", "reasoning_content", "reasoning"]))):
            message[field] = draw(WORDS)
            runs.append([{field: piece} for piece in cut(message[field])])
        if draw(st.booleans()):
            message["annotations"] = [CITATION, CITATION]
            runs.append([{"annotations": [CITATION]}] * 2)
        repeats = draw(st.booleans())
        for number in range(draw(st.integers(0, 2))):
            call = {"id": f"call_{number}", "type": "function", "function": {"name": "get", "arguments": draw(TEXT)}}
            message.setdefault("tool_calls", []).append(call)
            opening = call | {"index": number, "function": {"name": "get", "arguments": ""}}
            again = opening if repeats else {"index": number}
            steps = [again | {"function": {"arguments": piece}} for piece in cut(call["function"]["arguments"])]
            runs.append([{"tool_calls": [step]} for step in [opening, *steps]])
        opening = {"role": "assistant", "content": "" if message["content"] or "tool_calls" in message else None}
        run = [{"index": index, "delta": delta, "finish_reason": None} for delta in [opening, *mixed(runs)]]
        tokens = [{"token": str(number)} for number in range(len(run))]
        logprobs = {"content": tokens, "refusal": None} if draw(st.booleans()) else None
        for part, token in zip(run, tokens, strict=True):
            part["logprobs"] = {"content": [token], "refusal": None} if logprobs else None
        run.append({"index": index, "delta": {}, "finish_reason": "stop", "logprobs": None})
        parts.append(run)
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
    head = {"id": "c", "created": 1, "model": "m"}
    events = [head | {"object": "chat.completion.chunk", "choices": [part], "usage": None} for part in mixed(parts)]
    events.append(head | {"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 9}})
    return head | {"object": "chat.completion", "choices": choices, "usage": {"total_tokens": 9}}, events


@settings(deadline=None, max_examples=100)
@given(streams())
def test_a_stream_folds_to_the_completion_it_stands_for(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    whole, events = case
    before = copy.deepcopy(events)
    assert folded(events) == whole
    assert events == before


@settings(deadline=None, max_examples=100)
@given(completions())
def test_a_completion_spread_and_folded_is_the_same_but_for_its_usage(whole: dict[str, Any]) -> None:
    before = copy.deepcopy(whole)
    events = list(spread(whole))
    assert whole == before
    for choice in whole["choices"]:
        message = choice["message"]
        if message.get("tool_calls") and message["content"] == "":
            message["content"] = None
    whole.pop("usage", None)
    if whole["choices"]:
        assert folded(events) == whole
    assert all(len(event["choices"]) == 1 and "usage" not in event for event in events)


def deltas(whole: dict[str, Any]) -> list[dict[str, Any]]:
    return [event["choices"][0]["delta"] for event in spread(whole)]


def test_a_text_is_spread_as_role_text_and_finish() -> None:
    logprobs = {"content": [{"token": "Hi"}], "refusal": None}
    whole = completion({"content": "Hi"}, usage={"total_tokens": 1}, service_tier="default", metadata={"a": 1})
    whole["choices"][0] |= {"logprobs": logprobs, "stop_reason": 7}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "service_tier": "default"}
    role = {"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None}
    text = {"index": 0, "delta": {"content": "Hi"}, "logprobs": logprobs}
    finish = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": 7}
    assert list(spread(whole)) == [
        head | {"choices": [role | {"finish_reason": None}], "metadata": {"a": 1}},
        head | {"choices": [text | {"finish_reason": None}]},
        head | {"choices": [finish]},
    ]


def test_a_refusal_is_spread_with_an_empty_refusal_first() -> None:
    assert deltas(completion({"refusal": "No."})) == [
        {"role": "assistant", "content": None, "refusal": ""},
        {"refusal": "No."},
        {},
    ]


def test_reasoning_is_spread_before_the_text_and_annotations_after_it() -> None:
    message = {"annotations": [CITATION], "content": "Hi", "reasoning_content": "Hm"}
    assert deltas(completion(message)) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"reasoning_content": "Hm"},
        {"content": "Hi"},
        {"annotations": [CITATION]},
        {},
    ]


def test_a_single_tool_call_opens_in_the_first_event() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get", "arguments": '{"a":1}'}}
    opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get", "arguments": ""}}
    assert deltas(completion({"tool_calls": [call]})) == [
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [opening]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]},
        {},
    ]


def test_parallel_tool_calls_open_in_events_of_their_own() -> None:
    calls = [{"id": str(n), "type": "function", "function": {"name": "get", "arguments": "{}"}} for n in range(2)]
    spreads = deltas(completion({"tool_calls": calls}))
    assert spreads[0] == {"role": "assistant", "content": None, "refusal": None}
    assert [delta["tool_calls"][0].get("id") for delta in spreads[1:-1]] == ["0", None, "1", None]


def test_an_empty_text_before_tool_calls_folds_to_null_in_a_stream_and_stays_in_a_whole_answer() -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert folded([unfold(completion({"content": "", "tool_calls": [call]}))])["choices"][0]["message"]["content"] == ""
    stream = [chunk({"role": "assistant", "content": ""}), chunk({"tool_calls": [call]}), chunk({}, "tool_calls")]
    assert folded(stream)["choices"][0]["message"]["content"] is None


def test_ids_types_names_and_roles_that_are_repeated_are_taken_once() -> None:
    part = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get", "arguments": "{"}}
    message = folded([chunk({"role": "assistant", "tool_calls": [part]}) for _ in range(3)])["choices"][0]["message"]
    call = {"id": "call_1", "type": "function", "function": {"name": "get", "arguments": "{{{"}}
    assert message == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def test_a_legacy_function_call_is_put_together() -> None:
    stream = [chunk({"function_call": {"name": "f", "arguments": ""}})]
    stream += [chunk({"function_call": {"arguments": piece}}) for piece in ('{"a"', ":1}")]
    assert folded(stream)["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}


def test_content_in_parts_takes_the_place_of_an_empty_text() -> None:
    parts = [[{"type": "text", "text": "a"}], [{"type": "text", "text": "b"}]]
    whole = folded([chunk({"content": ""}), *[chunk({"content": part}) for part in parts]])
    assert whole["choices"][0]["message"]["content"] == parts[0] + parts[1]


def test_calls_that_share_an_index_stay_apart_if_each_names_its_function() -> None:
    def part(id: str, arguments: str) -> dict[str, Any]:
        return {"index": 0, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}

    calls = folded([chunk({"tool_calls": [part("a", "{}"), part("b", "[]")]}), chunk({"tool_calls": [part("c", "1")]})])
    arguments = [call["function"]["arguments"] for call in calls["choices"][0]["message"]["tool_calls"]]
    assert arguments == ["{}", "[]", "1"]


def test_an_id_made_up_for_every_delta_makes_no_new_call() -> None:
    parts = [{"index": 0, "id": str(n), "function": {"arguments": str(n)}} for n in range(3)]
    parts[0]["function"]["name"] = "f"
    (call,) = folded([chunk({"tool_calls": [part]}) for part in parts])["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]) == ("0", {"name": "f", "arguments": "012"})


def test_the_last_finish_reason_and_usage_count_unless_null_or_empty() -> None:
    stream = [chunk({"content": "a"}, "", usage={"n": 1}), chunk({}, "length"), chunk({}, None, usage={"n": 2})]
    whole = folded([*stream, chunk({}, "", usage=None)])
    assert (whole["choices"][0]["finish_reason"], whole["usage"]) == ("length", {"n": 2})


def test_a_cut_stream_folds_without_a_finish_reason() -> None:
    assert folded([chunk({"content": "a"})])["choices"][0]["finish_reason"] is None


def test_padding_nulls_and_a_missing_role_leave_no_trace() -> None:
    stream = [chunk({"content": "a"}, usage=None, obfuscation="xyz"), chunk({}, "stop", usage=None)]
    assert folded(stream) == completion({"content": "a"})


def test_choices_come_out_by_index_however_they_came_in() -> None:
    whole = folded([chunk({"content": str(index)}, "stop", index) for index in (2, 0, 1)])
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["0", "1", "2"]


@pytest.mark.parametrize("events", [[], [{"id": "c", "choices": []}], [{"id": "c", "choices": None}]])
def test_a_stream_without_choices_folds_to_a_completion_without_choices(events: list[dict[str, Any]]) -> None:
    assert folded(events)["choices"] == []
