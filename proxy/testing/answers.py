"""Answers for a scripted upstream to give: streamed in any pieces, whole, or as bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from proxy import sse
from proxy.exchange import Event
from proxy.fold import Fold, spread

TEXTS = ("reasoning_content", "content", "refusal")

Message = dict[str, Any]
"""What an assistant says: `content`, `refusal`, `reasoning_content` (texts) and `tool_calls`, all optional."""


@dataclass(frozen=True)
class Raw:
    """What an upstream sends as it is: a status, headers with lower-case names, and a body in pieces as they arrive.

    `cut` says that the connection breaks after the last piece.
    """

    status: int = 200
    body: Sequence[bytes] = ()
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    cut: bool = False


Answer = str | Message | list[Event] | Raw | Exception | Callable[[dict[str, Any]], Any]
"""A text, message, completion, events, bytes, an exception to fail with; or what makes one of these of a sent body."""


def tool_call(name: str, arguments: str, id: str | None = None) -> dict[str, Any]:
    """Return a function call for a message's `tool_calls`; `arguments` is JSON text."""
    return {"id": id or f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def stream(
    answer: str | Message = "Hello there",
    *,
    split: int | Sequence[int] = 3,
    n: int = 1,
    finish: str | None = None,
    usage: tuple[int, int] | None = (5, 2),
    model: str = "test-model",
) -> list[Event]:
    """Return an answer as the events that OpenAI would stream.

    `split` cuts each text field: into pieces of so many characters, or at the given positions. With `n` choices, all
    alike, their events interleave. `usage` is prompt and completion tokens, in a last event without choices; `None`
    leaves it out.
    """
    message = {"content": answer} if isinstance(answer, str) else answer
    finish = finish or ("tool_calls" if message.get("tool_calls") else "stop")
    base = {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1700000000, "model": model}
    events: list[Event] = []
    for delta in [*_deltas(message, split), None]:
        for index in range(n):
            end = finish if delta is None else None
            choice = {"index": index, "delta": copy.deepcopy(delta or {}), "logprobs": None, "finish_reason": end}
            events.append({**base, "choices": [choice]})
    if usage:
        prompt, completed = usage
        tokens = {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}
        events.append({**base, "choices": [], "usage": tokens})
    return events


def completion(answer: str | Message = "Hello there", **how: Any) -> dict[str, Any]:
    """Return the same answer whole, as a `chat.completion`; the keywords are those of `stream`."""
    fold = Fold()
    for event in stream(answer, **how):
        fold.add(event)
    return fold.completion()


def _deltas(message: Message, split: int | Sequence[int]) -> Iterator[Message]:
    calls = message.get("tool_calls") or []
    texts = [(key, message[key]) for key in TEXTS if message.get(key)]
    first: Message = {"role": "assistant", "content": None, "refusal": None}
    if not calls:
        first["refusal" if message.get("refusal") and not message.get("content") else "content"] = ""
    alone = len(calls) == 1 and not texts
    yield {**first, "tool_calls": [_opening(0, calls[0])]} if alone else first
    for key, text in texts:
        yield from ({key: piece} for piece in pieces(text, split))
    for index, call in enumerate(calls):
        if not alone:
            yield {"tool_calls": [_opening(index, call)]}
        for piece in pieces(call["function"]["arguments"], split):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _opening(index: int, call: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, **call, "function": {**call["function"], "arguments": ""}}


def pieces(text: str, split: int | Sequence[int]) -> list[str]:
    """Cut a text into pieces of `split` characters, or at the positions in `split`; none of them is empty."""
    cuts = range(0, len(text), split) if isinstance(split, int) else [0, *sorted(split)]
    ends = [*cuts[1:], len(text)]
    return [piece for piece in (text[start:end] for start, end in zip(cuts, ends, strict=True)) if piece]


def failure(status: int, message: str, code: str | None = None, **headers: str) -> Raw:
    """Return an upstream's refusal in OpenAI's shape; `retry_after="3"` becomes the header `retry-after`."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Raw(status, [orjson.dumps({"error": error})], {"content-type": "application/json", **named})


def raw(answer: Answer, body: dict[str, Any], split: int | Sequence[int]) -> Raw:
    """Turn any answer into what an OpenAI upstream would send for `body`; raise the one that is an exception.

    Events among which a choice lacks its finish are a stream that is cut: they end without `[DONE]`.
    """
    if callable(answer):
        answer = cast(Answer, answer(body))
    assert not callable(answer)
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, Raw):
        return answer
    if isinstance(answer, dict) and "choices" in answer:
        events = [*spread(answer), {**answer, "choices": []}] if "usage" in answer else [*spread(answer)]
    elif isinstance(answer, (str, dict)):
        events = stream(answer, split=split, n=body.get("n") or 1, model=body["model"])
    else:
        events = list(answer)
    fold = Fold()
    for event in events:
        fold.add(event)
    completed = fold.completion()
    finished = all(choice["finish_reason"] for choice in completed["choices"])
    if not body.get("stream"):
        return Raw(200, [orjson.dumps(completed)])
    pieces = [sse.encode(orjson.dumps(event)) for event in events]
    return Raw(200, pieces + [sse.DONE] * finished, {"content-type": "text/event-stream"})
