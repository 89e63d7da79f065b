"""The kit runs plugins as the gateway does, and finds the mistakes that filters are prone to."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields

from proxy import Event, Exchange, Identity, Reject, Reply, UpstreamError, hookimpl, rewrite_text
from proxy.testing import (
    Raw,
    Rig,
    assert_split_invariant,
    completion,
    configured,
    failure,
    hammer,
    run,
    stream,
    tool_call,
)

SECRET = re.compile(r"\bswordfish\b")
TEXT = "Say swordfish, friend"


class Filtering:
    """A plugin around one filter."""

    name = "filtering"

    def __init__(self, make: Callable[[Iterator[Event]], Iterator[Event]]) -> None:
        self.make = make

    @hookimpl
    def on_response(self, exchange: Exchange) -> Any:
        return self.make


class Idle:
    """Does nothing, and could be seen at it."""

    name = "idle"

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        self.outcomes.append(exchange.outcome)


def masking(events: Iterator[Event]) -> Iterator[Event]:
    return rewrite_text(events, SECRET, "*****", longest=9)


def deltas(event: Event) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((choice["index"], choice["delta"]) for choice in event["choices"])


# Runs.


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_shows_what_the_client_and_the_upstream_got(streamed: bool) -> None:
    idle = Idle()
    result = run(idle, "Hello", "Hi there", stream=streamed, headers={"x-tag": "1"})
    assert (result.status, result.text, result.complete, result.cut, result.error) == (
        200,
        "Hi there",
        True,
        False,
        None,
    )
    assert result.streamed is streamed
    assert result.headers["x-request-id"] == result.exchange.id  # type: ignore[union-attr]
    assert result.upstream_body is not None and result.upstream_body["messages"] == [
        {"role": "user", "content": "Hello"}
    ]
    assert result.exchange is not None and result.exchange.headers["x-tag"] == "1"
    assert idle.outcomes == [result.outcome] and result.outcome.complete


def test_a_stream_comes_in_the_pieces_that_were_asked_for() -> None:
    contents = [
        delta.get("content")
        for event in run(Idle(), answer="abcde", stream=True, split=2).events
        for _, delta in deltas(event)
    ]
    assert contents == ["", "ab", "cd", "e", None]
    contents = [
        delta.get("content")
        for event in run(Idle(), answer="abcde", stream=True, split=(1, 4)).events
        for _, delta in deltas(event)
    ]
    assert contents == ["", "a", "bcd", "e", None]


def test_a_request_may_be_a_whole_body() -> None:
    result = run(Idle(), {"model": "m", "n": 2, "messages": [{"role": "user", "content": "x"}]}, "y")
    assert result.messages == {at: {"role": "assistant", "content": "y", "refusal": None} for at in (0, 1)}


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_may_be_a_completion_or_events_or_depend_on_what_was_sent(streamed: bool) -> None:
    said = {"content": None, "tool_calls": [tool_call("f", '{"a": 1}'), tool_call("g", "{}")]}
    for answer in (said, completion(said), stream(said), lambda body: said if body["model"] == "test-model" else "no"):
        result = run(Idle(), answer=answer, stream=streamed)
        assert [call["function"] for call in result.messages[0]["tool_calls"]] == [
            {"name": "f", "arguments": '{"a": 1}'},
            {"name": "g", "arguments": "{}"},
        ]
        assert result.outcome.finish_reasons == {0: "tool_calls"}


@pytest.mark.parametrize("streamed", [False, True])
def test_upstreams_refuse_and_fail(streamed: bool) -> None:
    refused = run(Idle(), answer=failure(429, "Too fast.", retry_after="7"), stream=streamed)
    assert (refused.status, refused.headers["retry-after"], refused.complete) == (429, "7", False)
    failed = run(Idle(), answer=UpstreamError(504, "upstream_timeout", "Late."), stream=streamed)
    assert (failed.status, failed.error and failed.error["code"]) == (504, "upstream_timeout")


def test_a_cut_stream_is_told_from_a_complete_one() -> None:
    for answer in (
        stream("Hello there")[:3],
        Raw(200, [b"data: " + b"{"], {"content-type": "text/event-stream"}, cut=True),
    ):
        result = run(Idle(), answer=answer, stream=True)
        assert not result.complete and result.error is not None
        assert result.outcome.code == result.error["code"]
        assert not result.outcome.complete


def test_a_client_may_leave() -> None:
    result = run(Idle(), answer="Hello there", stream=True, split=1, leave_after=3)
    assert (result.text, result.complete) == ("He", False)
    assert result.outcome.client_gone


def test_callers_are_known_unless_the_test_or_a_plugin_says_otherwise() -> None:
    class Door:
        name = "door"

        @hookimpl
        def authenticate(self, exchange: Exchange) -> Identity | None:
            return Identity("alice") if exchange.credential == "sesame" else None

    with Rig(Door()) as rig:
        found = [rig.run(headers=headers).exchange for headers in ({}, {"authorization": "Bearer sesame"})]
        assert [each.identity.subject for each in found if each and each.identity] == ["tester", "alice"]
    with Rig(Door(), identity=None) as rig:
        assert rig.run().status == 401


def test_plugins_stand_in_the_chain_in_their_order_and_two_of_a_kind_are_two() -> None:
    def adding(letter: str) -> Filtering:
        def add(events: Iterator[Event]) -> Iterator[Event]:
            for event in events:
                for _, delta in deltas(event):
                    if delta.get("content"):
                        delta["content"] += letter
                yield event

        return Filtering(add)

    assert run([adding("a"), adding("b")], answer="x").text == "xba"


def test_a_plugin_may_answer_itself_or_refuse() -> None:
    class Cache:
        name = "cache"

        @hookimpl
        def on_request(self, exchange: Exchange) -> Reply | None:
            if exchange.body["messages"][0]["content"] == "no":
                raise Reject(403, "no", "No.")
            return Reply(completion=completion("cached"))

    with Rig(Cache()) as rig:
        assert (rig.run().text, rig.run(stream=True).text, rig.run().sent) == ("cached", "cached", [])
        assert rig.run("no").error == {"message": "No.", "type": "invalid_request_error", "param": None, "code": "no"}


def test_a_plugin_is_made_with_its_options() -> None:
    class Greedy:
        name = "greedy"

        class Config(Schema):
            size = fields.Integer(load_default=1)

        def __init__(self, config: dict[str, Any]) -> None:
            self.size = config["size"]

        @hookimpl
        def on_request(self, exchange: Exchange) -> None:
            exchange.body["max_tokens"] = self.size

    assert (run(Greedy).upstream_body or {})["max_tokens"] == 1
    assert (run(configured(Greedy, size=2)).upstream_body or {})["max_tokens"] == 2
    with pytest.raises(ValidationError):
        configured(Greedy, sizes=2)


def test_plugins_are_started_with_a_gateway_and_stopped() -> None:
    seen: list[str] = []

    class Store:
        name = "store"

        @hookimpl
        def on_start(self, gateway: Any) -> None:
            (gateway.state / "kept").write_text("x")
            seen.append("started")

        @hookimpl
        def on_stop(self) -> None:
            seen.append("stopped")

    with Rig(Store()) as rig:
        state = rig.gateway.state
        assert (state / "kept").exists()
    assert seen == ["started", "stopped"] and not state.exists()


def test_settings_of_the_model_can_be_set() -> None:
    with Rig(Idle(), model={"web_search": False}) as rig:
        body = {"messages": [{"role": "user", "content": "x"}], "web_search_options": {}}
        assert rig.run(body).status == 403


def test_the_kit_needs_no_test_framework() -> None:
    program = (
        "import sys, proxy.testing; print([name for name in ('pytest', 'hypothesis', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What splits find.


def test_a_right_filter_withstands_every_cut() -> None:
    whole = assert_split_invariant(Filtering(masking), TEXT, "Say *****, friend", forbidden=["swordfish", SECRET])
    assert whole.messages[1]["refusal"] == "Say *****, friend"
    assert whole.messages[0]["tool_calls"][0]["function"]["arguments"] == '{"text": "Say *****, friend"}'


def test_the_answer_may_depend_on_what_was_sent() -> None:
    whole = assert_split_invariant(
        Filtering(masking), lambda body: body["messages"][0]["content"], request=TEXT, cuts=1
    )
    assert whole.text == "Say *****, friend"


def test_an_answer_that_is_stopped_is_stopped_wherever_it_is_cut() -> None:
    def guard(events: Iterator[Event]) -> Iterator[Event]:
        def refuse(match: Any) -> str:
            raise Reject(403, "guarded", "Not that word.")

        return rewrite_text(events, SECRET, refuse, longest=9)

    whole = assert_split_invariant(Filtering(guard), TEXT, forbidden=["swordfish"], cuts=1)
    assert (whole.status, whole.error and whole.error["code"]) == (403, "guarded")


def per_event(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        for _, delta in deltas(event):
            if delta.get("content"):
                delta["content"] = SECRET.sub("*****", delta["content"])
        yield event


def holding(key: Callable[[int, str], Any], release: bool = True, early: bool = False) -> Any:
    """A filter that keeps the last character back, per what `key` makes of choice and field."""

    def hold(events: Iterator[Event]) -> Iterator[Event]:
        held: dict[Any, str] = {}
        for event in events:
            for choice in event["choices"]:
                delta, index = choice["delta"], choice["index"]
                for field in ("reasoning_content", "content", "refusal"):
                    if delta.get(field):
                        text = held.get(key(index, field), "") + delta[field]
                        delta[field], held[key(index, field)] = text[:-1], text[-1:]
                if choice["finish_reason"] and release:
                    mine = [field for field in ("reasoning_content", "content", "refusal") if key(index, field) in held]
                    rest = {field: (delta.get(field) or "") + held.pop(key(index, field), "") for field in mine}
                    if early:
                        yield event
                        yield {**event, "choices": [{**choice, "delta": rest, "finish_reason": None}]}
                        break
                    delta.update(rest)
            else:
                yield event

    return hold


def test_what_is_held_back_rightly_is_fine() -> None:
    assert_split_invariant(Filtering(holding(lambda index, field: (index, field))), TEXT, TEXT, cuts=1)


@pytest.mark.parametrize(
    "wrong",
    [
        per_event,
        holding(lambda index, field: index),
        holding(lambda index, field: field),
        holding(lambda index, field: (index, field), release=False),
        holding(lambda index, field: (index, field), early=True),
    ],
    ids=[
        "each event alone",
        "fields mixed",
        "choices mixed",
        "never released",
        "after the finish",
    ],
)
def test_a_wrong_filter_is_found(wrong: Any) -> None:
    with pytest.raises(AssertionError, match=r"cut|event|whole"):
        assert_split_invariant(Filtering(wrong), TEXT, "Say *****, friend" if wrong is per_event else TEXT, cuts=1)


def test_a_secret_that_comes_out_is_found() -> None:
    with pytest.raises(AssertionError, match="came out"):
        assert_split_invariant(Idle(), TEXT, forbidden=["swordfish"])
    with pytest.raises(AssertionError, match="came out"):
        assert_split_invariant(Idle(), TEXT, forbidden=[SECRET])


# What the hammer finds.


class Remembering:
    """Prefixes answers with the user's text, which it keeps in `where`."""

    name = "remembering"

    def __init__(self, where: Callable[[Exchange], Any]) -> None:
        self.where = where

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        self.where(exchange)[self] = exchange.body["messages"][0]["content"]

    @hookimpl
    def on_response(self, exchange: Exchange) -> Any:
        def prefix(events: Iterator[Event]) -> Iterator[Event]:
            for event in events:
                for choice in event["choices"]:
                    if choice["finish_reason"]:
                        choice["delta"]["content"] = (choice["delta"].get("content") or "") + self.where(exchange)[self]
                yield event

        return prefix


def test_what_is_kept_with_the_exchange_withstands_the_hammer() -> None:
    hammer(Remembering(lambda exchange: exchange.stash), threads=4, rounds=10)


def test_state_that_leaks_between_exchanges_is_found() -> None:
    shared: dict[Any, Any] = {}
    with pytest.raises(AssertionError, match="of another one"):
        hammer(Remembering(lambda _: shared), threads=2, rounds=1)


def test_what_only_threads_can_break_is_found() -> None:
    class Racing:
        """Counts up and down again without a lock around it, and says so when it is seen between the two."""

        name = "racing"
        inside = 0

        @hookimpl
        def on_request(self, exchange: Exchange) -> None:
            self.inside += 1
            for _ in range(2000):
                if self.inside != 1:
                    raise Reject(409, "raced", "Two at once.")
            self.inside -= 1

    with pytest.raises(AssertionError, match="raced"):
        hammer(Racing(), threads=4, rounds=50)
