"""What a good plugin withstands: any cut of an answer, and many exchanges at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from proxy.exchange import Event
from proxy.fold import unfold
from proxy.testing.answers import TEXTS, Message, completion, stream, tool_call
from proxy.testing.result import Result
from proxy.testing.rig import Rig

Make = Callable[[Message], list[Event]]
MARKER = re.compile(r"marker[0-9]{3}x[0-9]{4}z")


def assert_split_invariant(
    plugins: Any,
    text: str | Callable[[dict[str, Any]], str],
    expected: str | None = None,
    *,
    request: str | Mapping[str, Any] = "Hello",
    forbidden: Sequence[str | re.Pattern[str]] = (),
    cuts: int = 2,
) -> Result:
    """Assert that plugins make the same of an answer however its stream is cut, and return the whole answer's result.

    `plugins` is one, a list, or a `Rig`. The answer says `text` in its content, refusal, reasoning and the arguments of
    a tool call, in two choices, whose events interleave and are cut at different places: at every position, at every
    combination of up to `cuts` positions, after every character. A function gets the body that was sent upstream, for
    an answer that depends on it. `expected` is what the texts must become: without it a filter that loses the same of
    every answer passes. Nothing of `forbidden` may come out anywhere, not even of an answer that was stopped.
    The time is a millisecond for each combination: for long texts say `cuts=1`.
    """
    with _rigged(plugins) as rig:

        def message(body: dict[str, Any]) -> dict[str, Any]:
            said = text if isinstance(text, str) else text(body)
            call = tool_call("act", json.dumps({"text": said}, ensure_ascii=False))
            return {**dict.fromkeys(TEXTS, said), "tool_calls": [call]}

        whole = rig.run(request, lambda body: completion(message(body), n=2))
        verdict = _verdict(whole)
        _assert_never(whole, forbidden, "a whole answer")
        for said in whole.messages.values() if expected is not None else ():
            assert {key: said.get(key) for key in TEXTS} == dict.fromkeys(TEXTS, expected), f"a whole answer: {said}"
        longest = len(message(whole.upstream_body or {})["tool_calls"][0]["function"]["arguments"])
        for name, make in _ways(longest, cuts):
            result = rig.run(request, partial(_made, make, message), stream=True)
            _assert_never(result, forbidden, name)
            _assert_order(result, name)
            streamed = _verdict(result)
            assert streamed == verdict, f"streamed with {name}:\n  {streamed}\nbut whole:\n  {verdict}"
    return whole


def hammer(
    plugins: Any,
    *,
    threads: int = 8,
    rounds: int = 25,
    phrase: Callable[[str], str] = "My name is {0}; {0}, I say.".format,
) -> None:
    """Assert that nothing of one exchange shows up in another, and that each goes as if it were alone.

    Runs exchanges side by side in one thread, event by event, and then `rounds` in each of many threads. The user's
    message is `phrase(marker)`, with a marker of its own each time, and the upstream repeats what it got. A plugin that
    answers the same request differently, such as a limit, must be set up so that it does not come to that.
    """
    with _rigged(plugins) as rig:
        alone = "marker000x0000z"
        expected = {way: _shown(_begin(rig, phrase(alone), way).finish()) for way in (False, True)}

        def check(result: Result, marker: str, way: bool) -> None:
            seen = set(MARKER.findall(result.body.decode() + json.dumps(result.sent)))
            assert seen <= {marker}, f"the exchange of {marker} shows {sorted(seen - {marker})} of another one"
            shown = _shown(result)
            assert shown == expected[way].replace(alone, marker), f"{shown}\nbut alone:\n{expected[way]}"

        side = {f"marker999x{number:04d}z": number for number in range(threads)}
        running = {marker: _begin(rig, phrase(marker), True) for marker in side}
        going = list(running.values())
        while going:
            going = [exchange for exchange in going if exchange.step()]
        for marker, exchange in running.items():
            check(exchange.finish(), marker, True)

        failures: list[BaseException] = []

        def pound(thread: int) -> None:
            try:
                for number in range(rounds):
                    marker, way = f"marker{thread:03d}x{number:04d}z", number % 2 == 0
                    check(_begin(rig, phrase(marker), way).finish(), marker, way)
            except BaseException as failure:
                failures.append(failure)

        interval = sys.getswitchinterval()
        # Threads that change places all the time find what a test of a second would miss for years.
        sys.setswitchinterval(1e-5)
        try:
            pounding = [threading.Thread(target=pound, args=(thread,)) for thread in range(1, threads + 1)]
            for each in pounding:
                each.start()
            for each in pounding:
                each.join()
        finally:
            sys.setswitchinterval(interval)
        if failures:
            raise failures[0]


def _begin(rig: Rig, said: str, way: bool) -> Any:
    return rig.start(said, lambda body: body["messages"][-1]["content"], stream=way, split=4)


def _shown(result: Result) -> str:
    return json.dumps([result.status, *_verdict(result)], ensure_ascii=False)


@contextlib.contextmanager
def _rigged(plugins: Any) -> Iterator[Rig]:
    if isinstance(plugins, Rig):
        yield plugins
    else:
        with Rig(*(plugins if isinstance(plugins, (list, tuple)) else [plugins])) as rig:
            yield rig


def _verdict(result: Result) -> tuple[Any, ...]:
    """What counts of a result: the messages of a complete answer, the error's code of any other."""
    if result.complete:
        finished = {choice["index"]: choice["finish_reason"] for choice in result.completion["choices"]}
        return ("complete", [(index, finished[index], _texts(said)) for index, said in result.messages.items()])
    assert result.error is not None, f"an incomplete answer without an error: {result.body!r}"
    return ("error", result.error["code"], result.error["message"])


def _texts(message: dict[str, Any]) -> dict[str, str]:
    calls = {f"call {at}": call["function"]["arguments"] for at, call in enumerate(message.get("tool_calls") or ())}
    return {key: message[key] for key in TEXTS if message.get(key)} | calls


def _made(make: Make, message: Callable[[dict[str, Any]], Message], body: dict[str, Any]) -> list[Event]:
    return make(message(body))


def _ways(longest: int, cuts: int) -> Iterator[tuple[str, Make]]:
    """Every way to stream a message: its name, and what makes the events."""
    yield "everything in one event", _one
    yield "a cut after every character", partial(_both, 1, 1, False)
    for count in range(cuts + 1):
        for positions in itertools.combinations(range(1, longest), count):
            # The second choice is cut elsewhere, so that what is kept for one cannot pass for the other's.
            other = [longest - position for position in positions]
            yield f"cuts at {positions}", partial(_both, positions, other, False)
            if count == 1:
                yield f"a cut at {positions}, the finish in the last delta", partial(_both, positions, other, True)


def _one(message: Message) -> list[Event]:
    return [unfold(completion(message, n=2))]


def _both(first: int | Sequence[int], second: int | Sequence[int], joined: bool, message: Message) -> list[Event]:
    choices = []
    for index, split in enumerate((first, second)):
        events = stream(message, split=split, usage=None)
        if joined:
            finish = events.pop()
            events[-1]["choices"][0]["finish_reason"] = finish["choices"][0]["finish_reason"]
        for event in events:
            event["choices"][0]["index"] = index
        choices.append(events)
    return [event for pair in itertools.zip_longest(*choices) for event in pair if event is not None]


def _assert_never(result: Result, forbidden: Sequence[str | re.Pattern[str]], how: str) -> None:
    texts = [text for message in result.messages.values() for text in _texts(message).values()]
    for secret, text in itertools.product(forbidden, [*texts, result.body.decode()]):
        found = secret in text if isinstance(secret, str) else secret.search(text)
        assert not found, f"{how}: {secret!r} came out in {text!r}"


def _assert_order(result: Result, how: str) -> None:
    finished: set[int] = set()
    for event in result.events:
        for choice in event["choices"]:
            texts = {key for key, value in choice["delta"].items() if value}
            assert choice["index"] not in finished or not texts, f"{how}: text after the finish: {event}"
            if choice["finish_reason"]:
                finished.add(choice["index"])
