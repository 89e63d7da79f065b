"""A whole completion as stream events, and a stream of events as a whole completion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from proxy.exchange import Event

TEXTS = frozenset(
    ("content", "refusal", "reasoning_content", "reasoning", "arguments", "input", "data", "transcript"),
)
"""Strings that come in pieces, in a message, a call or an `audio`; of any other string the last one counts."""

ONCE = frozenset(("id", "type", "name", "role"))
"""Strings that some engines repeat with every delta: the first one counts."""

EVERYWHERE = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""What each event of a stream repeats."""

ORDER = ("reasoning_content", "reasoning", "content", "refusal")


def unfold(completion: dict[str, Any]) -> Event:
    """Return a completion as one event: each message as its choice's `delta`, tool calls numbered by `index`.

    Everything else stays in its place, `usage` too. The event's choices, deltas and calls are its own, so text in them
    may be changed in place; what lies deeper (logprobs, annotations) is shared with the completion.
    """
    choices = []
    for choice in completion["choices"]:
        delta = _copy(choice["message"])
        if delta.get("tool_calls"):
            delta["tool_calls"] = [_copy(call) | {"index": index} for index, call in enumerate(delta["tool_calls"])]
        choices.append({key: value for key, value in choice.items() if key != "message"} | {"delta": delta})
    return {**completion, "object": "chat.completion.chunk", "choices": choices}


def spread(completion: dict[str, Any]) -> Iterator[Event]:
    """Yield a completion as the events that OpenAI itself would have streamed, choice by choice, without usage.

    Role, texts, tool calls, finish. Of the keys beyond these the completion's come with the first event, a choice's
    with its finish, a message's in an event of their own, or with the role if they are empty. Folding gives the
    completion back but for its usage, and for an empty `content` beside tool calls, which becomes null.
    """
    head = {key: completion[key] for key in EVERYWHERE if key in completion} | {"object": "chat.completion.chunk"}
    extra = {key: value for key, value in completion.items() if key not in (*EVERYWHERE, "choices", "usage")}
    for choice in completion["choices"]:
        deltas = _deltas(choice["message"])
        spoken = [at for at, delta in enumerate(deltas) if delta.get("content") or delta.get("refusal")]
        deltas.append({})
        parts = [{"index": choice["index"], "delta": d, "logprobs": None, "finish_reason": None} for d in deltas]
        parts[spoken[0] if spoken else 0]["logprobs"] = choice.get("logprobs")
        parts[-1].update({key: value for key, value in choice.items() if key not in ("message", "logprobs")})
        for part in parts:
            yield {**head, **extra, "choices": [part]}
            extra = {}


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    first: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    deltas: list[dict[str, Any]] = []
    for key in dict.fromkeys((*ORDER, *message)):
        value = message.get(key)
        if key == "role" or not value:
            if key in message:
                first[key] = value
        elif key != "tool_calls":
            if key in first:
                first[key] = ""
            deltas.append({key: value})
    for index, call in enumerate(message.get("tool_calls") or ()):
        call = _copy(call) | {"index": index}
        function = call.get("function") or {}
        arguments = function.get("arguments")
        deltas.append({"tool_calls": [call]})
        # Custom tools have no delta of their own in OpenAI's API: they come in one piece.
        if arguments and isinstance(arguments, str):
            function["arguments"] = ""
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    if len(message.get("tool_calls") or ()) == 1 and "tool_calls" in deltas[0]:
        return [first | deltas[0], *deltas[1:]]
    return [first, *deltas]


class Fold:
    """Gathers a stream of events into a completion, in time linear in the stream."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    def add(self, event: Event) -> None:
        """Take one event in. It is not changed, and may be changed afterwards but for what lies in its lists."""
        for key, value in event.items():
            # obfuscation: random padding of a single delta.
            if key not in ("choices", "obfuscation") and (value is not None or key not in self._head):
                self._head[key] = value
        for part in event.get("choices") or ():
            index = part.get("index") or 0
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice()
            choice.add(part)

    def completion(self) -> dict[str, Any]:
        """Return the completion so far, choices by index; `logprobs`, `content` and `refusal` are there, if only null.

        Of the top level's keys the last value counts, of `usage` too. A choice cut before its finish has a
        `finish_reason` of null.
        """
        completion = {**self._head, "object": "chat.completion"}
        if completion.get("usage", ...) is None:
            del completion["usage"]
        return completion | {"choices": [choice.whole(index) for index, choice in sorted(self._choices.items())]}


@dataclass(slots=True)
class _Choice:
    deltas: int = 0
    finish: str | None = None
    rest: dict[str, Any] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    latest: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, part: dict[str, Any]) -> None:
        self.deltas += 1
        # Some engines send "" instead of null while a choice goes on, or null once more after its end.
        self.finish = part.get("finish_reason") or self.finish
        _merge(self.rest, {key: value for key, value in part.items() if key not in ("delta", "finish_reason")})
        delta = part.get("delta") or {}
        _merge(self.message, {key: value for key, value in delta.items() if key != "tool_calls" or not value})
        for position, entry in enumerate(delta.get("tool_calls") or ()):
            index = entry.get("index", position)
            call = self.latest.get(index)
            if call is None or another_call(call, entry):
                call = self.latest[index] = {}
                self.calls.append((index, call))
            _merge(call, {key: value for key, value in entry.items() if key != "index"})

    def whole(self, index: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": None, "refusal": None} | _joined(self.message)
        message["role"] = message["role"] or "assistant"
        if self.calls:
            message["tool_calls"] = [_joined(call) for _, call in sorted(self.calls, key=itemgetter(0))]
            # Several engines open a stream with an empty text before the calls; a whole answer may mean it.
            if message["content"] == "" and self.deltas > 1:
                message["content"] = None
        rest = {"logprobs": None} | _joined(self.rest)
        return {**rest, "index": index, "message": message, "finish_reason": self.finish}


def another_call(call: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Return whether a tool-call delta opens a call other than the one known under its index.

    Some engines give every call the index 0; others make up an id for every delta, but name the function once.
    """
    known, new = call.get("id"), entry.get("id")
    return bool(known and new and known != new and (entry.get("function") or entry.get("custom") or {}).get("name"))


class _Pieces(list[str]):
    """A text in pieces, joined once at the end: adding strings up is quadratic."""


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        old = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif isinstance(value, str) and key in TEXTS:
            if not isinstance(old, _Pieces):
                old = into[key] = _Pieces()
            old.append(value)
        elif isinstance(value, dict):
            if not isinstance(old, dict):
                old = into[key] = {}
            _merge(old, value)
        elif isinstance(value, list):
            if not isinstance(old, list) or isinstance(old, _Pieces):
                old = into[key] = []
            old.extend(value)
        elif not (old and key in ONCE):
            into[key] = value


def _joined(part: dict[str, Any]) -> dict[str, Any]:
    joined = {}
    for key, value in part.items():
        if isinstance(value, _Pieces):
            value = "".join(value)
        elif isinstance(value, dict):
            value = _joined(value)
        joined[key] = value
    return joined


def _copy(part: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in part.items()}
