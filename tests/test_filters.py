"""Filters give what substitution on the whole text would, for every split of every event, and never tell too much."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.filters import hold, rewrite_text
from proxy.fold import Fold, spread, unfold

Event = dict[str, Any]
Place = tuple[int, str, int]
"""Choice, field, number of the tool call."""

FIELDS = ["content", "refusal", "reasoning_content", "reasoning", "function_call", "function", "custom"]
NAMES = {"function": "arguments", "function_call": "arguments", "custom": "input"}

# Pattern, replacement, longest: what a match looks ahead at counts, but for anchors, \b and a single character.
CASES: list[tuple[str, str | Callable[[re.Match[str]], str], int]] = [
    (r"ab", "X", 2),
    (r"\bab\b", "X", 2),
    (r"\b[ab]{1,3}\b", "X", 3),
    (r"(?<=a)b", "X", 1),
    (r"(?<!a)b(?!b)", "XY", 1),
    (r"(?<=aab)b", "X", 1),
    (r"(?<!\A)a", "X", 1),
    (r"a(?=bb)", "X", 3),
    (r"a(?!b[ac])", "X", 3),
    (r"a{2,4}", "X", 4),
    (r"a{2,4}?b?", "", 5),
    (r"abc|ab|b", "X", 3),
    (r"(?i)(A)(b)?", r"<\2\g<1>>", 2),
    (r"a|b|", "-", 1),
    (r"b{0,2}", "-", 2),
    (r"\b", "|", 1),
    (r"(?=ab)", "|", 2),
    (r"^a", "X", 1),
    (r"(?m)^a|b$", "X", 1),
    (r"ab$", "X", 2),
    (r"\Aab|b\Z", "X", 2),
    (r"(a|b)\1", lambda match: match[1] * 3, 2),
    (r"é\w?", lambda match: match[0].upper(), 2),
]

TEXTS = st.text(st.sampled_from("aaabbbc \né"), max_size=14)


def chunk(*choices: Event, **more: Any) -> Event:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": list(choices)} | more


def part(delta: Event, finish_reason: str | None = None, index: int = 0) -> Event:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def said(*texts: str, finish: str | None = "stop") -> list[Event]:
    """A plain stream of one choice."""
    return [chunk(part({"content": text})) for text in texts] + ([chunk(part({}, finish))] if finish else [])


def delta_of(field: str, number: int, text: str) -> Event:
    if field == "function_call":
        return {field: {"arguments": text}}
    if field in NAMES:
        return {"tool_calls": [{"index": number, field: {NAMES[field]: text}}]}
    return {field: text}


def texts_of(events: list[Event]) -> dict[Place, str]:
    """Gather each text up to its choice's finish."""
    found: dict[Place, str] = defaultdict(str)
    finished = set()
    for event in events:
        for choice in event["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert index not in finished or not any(delta.values())
            for field in FIELDS[:4]:
                found[index, field, 0] += delta.get(field) or ""
            found[index, "function_call", 0] += delta.get("function_call", {}).get("arguments", "")
            for call in delta.get("tool_calls", ()):
                for field in ("function", "custom"):
                    found[index, field, call["index"]] += call.get(field, {}).get(NAMES[field], "")
            if choice["finish_reason"]:
                finished.add(index)
    return {place: text for place, text in found.items() if text}


@st.composite
def answers(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> tuple[dict[Place, str], list[Event]]:
    """Some texts, and a stream of them: cut anywhere, fields and choices mixed, with or without text in the finish."""
    places = st.tuples(st.integers(0, 1), st.sampled_from(FIELDS), st.integers(0, 1)).map(
        lambda place: place if place[1] in ("function", "custom") else (place[0], place[1], 0)
    )
    whole = draw(st.dictionaries(places, texts, min_size=1, max_size=3))
    runs = []
    for place, text in whole.items():
        cuts = sorted([*draw(st.lists(st.integers(0, len(text)), max_size=5)), 0, len(text)])
        runs.append([(place, text[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)])
    order = draw(st.permutations([number for number, run in enumerate(runs) for _ in run]))
    sources = [iter(run) for run in runs]
    steps = [next(sources[number]) for number in order]
    remaining = [place[0] for place, _ in steps]
    within = draw(st.booleans())
    events: list[Event] = []
    for (index, field, number), text in steps:
        remaining.remove(index)
        last = index not in remaining
        choice = part(delta_of(field, number, text), "stop" if last and within else None, index)
        together = events[-1]["choices"] if events and draw(st.booleans()) else []
        if len(together) == 1 and together[0]["index"] != index:
            together.append(choice)
        else:
            events.append(chunk(choice))
        if last and not within:
            events.append(chunk(part({}, "stop", index)))
    return whole, events


@settings(deadline=None, max_examples=250)
@given(answers(), st.sampled_from(CASES))
def test_rewriting_a_stream_equals_substituting_in_each_whole_text(
    answer: tuple[dict[Place, str], list[Event]], case: tuple[str, Any, int]
) -> None:
    whole, events = answer
    pattern, replacement, longest = re.compile(case[0]), case[1], case[2]
    expected = {place: pattern.sub(replacement, text) for place, text in whole.items() if text}
    result = texts_of(list(rewrite_text(iter(events), pattern, replacement, longest)))
    assert result == {place: text for place, text in expected.items() if text}


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_each_pattern_is_right_for_all_splits_into_three(case: tuple[str, Any, int]) -> None:
    pattern = re.compile(case[0])
    for text in ("aab ab\nb abc", "abab\nbaabb", "aaaaab\naé"):
        for first in range(len(text) + 1):
            for second in range(first, len(text) + 1):
                events = said(text[:first], text[first:second], text[second:])
                result = texts_of(list(rewrite_text(events, pattern, case[1], case[2])))
                assert result.get((0, "content", 0), "") == pattern.sub(case[1], text)


TOKENS = {"[A_1]": "alice", "[A_12]": "[bob]", "[B_2]": ""}
TOKEN = re.compile(r"\[[AB]_\d{1,2}\]")
BEGINNING = re.compile(r"\[(?:[AB](?:_\d{0,2})?)?\Z")


def may_start(text: str) -> int:
    match = BEGINNING.search(text)
    return match.start() if match else len(text)


def resolve(text: str) -> str:
    return TOKEN.sub(lambda match: TOKENS.get(match[0], match[0]), text)


PIECES = st.lists(st.sampled_from([*TOKENS, "[A_9]", "[", "]", "A", "_1", "[A_", "x", "é", "[[", " "]), max_size=8)


@settings(deadline=None, max_examples=200)
@given(answers(PIECES.map("".join)))
def test_resolving_tokens_in_a_stream_equals_resolving_each_whole_text(
    answer: tuple[dict[Place, str], list[Event]],
) -> None:
    whole, events = answer
    result = texts_of(list(hold(iter(events), may_start, resolve)))
    assert result == {place: resolve(text) for place, text in whole.items() if resolve(text)}


WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": index,
            "message": {
                "role": "assistant",
                "content": f"call 555-1{index}34 now, or 555-12",
                "refusal": None,
                "reasoning_content": "555-1234",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":"555-1234"}'}},
                    {"id": "2", "type": "custom", "custom": {"name": "g", "input": "555-1234"}},
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
        for index in range(2)
    ],
}
PHONE = re.compile(r"\b\d{3}-\d{4}\b")


def folded(events: Iterator[Event]) -> Event:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold.completion()


def phones(events: Any) -> Iterator[Event]:
    return rewrite_text(events, PHONE, "[PHONE]", longest=8)


def by_letters(events: Any) -> Iterator[Event]:
    """Cut the texts of a stream into single characters."""
    for event in events:
        (choice,) = event["choices"]
        for field, number, text in [(key[1], key[2], text) for key, text in texts_of([copy.deepcopy(event)]).items()]:
            for letter in text:
                yield event | {"choices": [part(delta_of(field, number, letter), None, choice["index"])]}
            delta = choice["delta"]
            if field in NAMES:
                delta["tool_calls"][0][field][NAMES[field]] = ""
            else:
                delta[field] = ""
        yield event


def test_a_whole_answer_and_its_stream_are_rewritten_alike() -> None:
    whole = folded(phones([unfold(WHOLE)]))
    assert "555-1" not in str(whole).replace("555-12'", "")
    assert whole["choices"][0]["message"]["content"] == "call [PHONE] now, or 555-12"
    assert folded(phones(spread(WHOLE))) == whole
    assert texts_of(list(phones(by_letters(spread(WHOLE))))) == texts_of([unfold(whole)])


def test_a_whole_answer_stays_one_event() -> None:
    assert len(list(phones([unfold(WHOLE)]))) == 1


def test_a_secret_cut_at_any_two_places_never_gets_through() -> None:
    text = "my phone is 555-1234, call me"
    for first in range(len(text)):
        for second in range(first, len(text)):
            events = list(phones(said(text[:first], text[first:second], text[second:])))
            assert texts_of(events) == {(0, "content", 0): "my phone is [PHONE], call me"}


def test_what_is_held_comes_out_before_the_finish_event() -> None:
    events = list(phones(said("abc")))
    assert events == [chunk(part({"content": "abc"})), chunk(part({}, "stop"))]


def test_what_is_held_comes_out_within_a_finish_event_that_has_text() -> None:
    events = [chunk(part({"content": "ab"})), chunk(part({"content": "c"}, "stop"))]
    assert list(phones(events)) == [chunk(part({"content": "abc"}, "stop"))]
    events = [chunk(part({"content": "ab"})), chunk(part({"content": ""}, "stop"))]
    assert list(phones(events)) == [chunk(part({"content": "ab"}, "stop"))]


def test_all_of_a_choice_that_is_held_comes_out_and_nothing_of_another() -> None:
    events = [chunk(part(delta_of(field, 1, "a"), None, index)) for field in FIELDS for index in (0, 1)]
    first, finish = phones([*events, chunk(part({}, "stop", 1), usage={"total_tokens": 1})])
    assert finish == chunk(part({}, "stop", 1), usage={"total_tokens": 1})
    calls = [{"index": 1, "function": {"arguments": "a"}}, {"index": 1, "custom": {"input": "a"}}]
    texts = {"content": "a", "refusal": "a", "reasoning_content": "a", "reasoning": "a"}
    assert first == chunk(part(texts | {"function_call": {"arguments": "a"}, "tool_calls": calls}, None, 1))


def test_an_empty_text_stays_empty_and_a_second_finish_adds_nothing_to_a_text() -> None:
    pattern = re.compile("|a")
    events = [*said("", "b"), chunk(part({"content": ""}, "stop")), chunk(part({}, "stop"))]
    assert texts_of(list(rewrite_text(events, pattern, "-", longest=1))) == {(0, "content", 0): "-b-"}
    assert texts_of(list(rewrite_text([chunk(part({"content": ""}, "stop"))], pattern, "-", longest=1))) == {}


def test_a_cut_stream_drops_what_is_held() -> None:
    assert texts_of(list(phones(said("call 555-12", finish=None)))) == {(0, "content", 0): "ca"}
    assert texts_of(list(hold(said("hi [A_1", finish=None), may_start, resolve))) == {(0, "content", 0): "hi "}


def test_events_left_without_anything_to_say_are_dropped() -> None:
    calls = [chunk(part(delta_of("function", 0, "a"))), chunk(part(delta_of("function_call", 0, "a")))]
    assert list(phones([*said("a", "b", finish=None), *calls])) == []


@pytest.mark.parametrize(
    "event",
    [
        chunk(part({"role": "assistant", "content": "a"})),
        chunk(part({"content": "a"}), usage={"total_tokens": 1}),
        chunk(part({"content": "a"}), part({}, "stop", 1)),
        chunk(part({"content": "a", "annotations": [{}]})),
        chunk(part({"function_call": {"name": "f", "arguments": "a"}})),
        chunk(part({"tool_calls": [{"index": 0, "id": "1", "function": {"arguments": "a"}}]})),
        chunk(part({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "a"}}]})),
    ],
)
def test_an_event_that_carries_anything_else_is_passed_without_its_held_text(event: Event) -> None:
    expected = copy.deepcopy(event)
    delta = expected["choices"][0]["delta"]
    for text in (delta, delta.get("function_call", {}), *(call["function"] for call in delta.get("tool_calls", ()))):
        text.update({key: "" for key, value in text.items() if value == "a"})
    assert list(phones([event])) == [expected]


@pytest.mark.parametrize(
    "event",
    [
        chunk(),
        chunk(prompt_filter_results=[]),
        chunk(part({})),
        chunk(part({"role": "assistant", "content": "", "refusal": None})),
        chunk(part({"content": None}, "stop")),
        chunk(part({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]})),
        {"choices": None, "usage": {"total_tokens": 1}},
        {"id": "c"},
    ],
)
def test_an_event_without_text_passes_as_it_is(event: Event) -> None:
    before = copy.deepcopy(event)
    assert list(phones([event])) == [before]
    assert list(hold([event], may_start, resolve)) == [before]


def test_a_tool_call_emptied_beside_another_that_opens_is_taken_off() -> None:
    opening = {"index": 1, "id": "2", "type": "function", "function": {"name": "g", "arguments": ""}}
    events = [chunk(part({"tool_calls": [{"index": 0, "type": "function", "function": {"arguments": "a"}}, opening]}))]
    assert list(phones(events)) == [chunk(part({"tool_calls": [opening]}))]


def test_logprobs_and_token_ids_which_would_tell_the_original_are_taken_off_every_event() -> None:
    told = {"logprobs": {"content": [{"token": "a"}], "refusal": None}, "token_ids": [5]}
    events = [chunk(part({"content": "a" * 20}) | told), chunk(part({}, "stop") | told)]
    for event in phones(copy.deepcopy(events)):
        (choice,) = event["choices"]
        assert choice["logprobs"] is None and "token_ids" not in choice
    assert [event["choices"][0]["logprobs"] for event in hold(events, may_start, resolve)] == [told["logprobs"]] * 2


def test_padding_is_taken_off_as_texts_are_cut_anew() -> None:
    assert list(phones([chunk(part({"content": "x"}, "stop"), obfuscation="abc")])) == [
        chunk(part({"content": "x"}, "stop"))
    ]


def test_text_is_released_as_soon_as_it_is_certain() -> None:
    source = iter(said("x" * 9, "yz", "w" * 100))
    events = phones(source)
    assert next(events)["choices"][0]["delta"] == {"content": "xx"}
    assert next(events)["choices"][0]["delta"] == {"content": "x" * 7 + "yz" + "w" * 91}


def test_hold_keeps_only_what_could_become_a_token() -> None:
    events = hold(said("hi ", "there [", "x", "[A_", "1", "]!"), may_start, resolve)
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["hi ", "there ", "[x", "alice!", None]


def test_calls_that_share_an_index_do_not_run_together() -> None:
    def call(id: str, arguments: str) -> Event:
        return {"index": 0, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}

    def events() -> list[Event]:
        return [
            chunk(part({"tool_calls": [call("a", "555-1234"), call("b", "555")]})),
            chunk(part({"tool_calls": [call("c", "-1234")]})),
            chunk(part({}, "tool_calls")),
        ]

    for result in (folded(phones(events())), folded(phones(events()[:2] + said()))):
        calls = result["choices"][0]["message"]["tool_calls"]
        assert [call["function"]["arguments"] for call in calls] == ["[PHONE]", "555", "-1234"]


def test_an_opening_that_is_repeated_with_every_delta_does_not_cut_its_text() -> None:
    def event(id: str, arguments: str) -> Event:
        call = {"index": 0, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}
        return chunk(part({"tool_calls": [call]}))

    events = [event("a", "1"), event("b", "555"), event("b", "-12"), event("b", "34"), chunk(part({}, "tool_calls"))]
    calls = folded(phones(events))["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ["1", "[PHONE]"]


def test_a_replacement_that_raises_stops_the_answer() -> None:
    def refuse(match: re.Match[str]) -> str:
        raise LookupError(match[0])

    events = rewrite_text(said("hello there, ", "555-1234 is it"), PHONE, refuse, longest=8)
    assert next(events)["choices"][0]["delta"] == {"content": "hell"}
    with pytest.raises(LookupError):
        list(events)


def test_a_window_of_nothing_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="longest"):
        rewrite_text([], PHONE, "", longest=0)
