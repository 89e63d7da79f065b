"""The embedded provider: it answers with what it was told, in OpenAI's choreography, without any upstream."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields, validate

from proxy.errors import Reject
from proxy.exchange import Event, Exchange, Pause, Reply
from proxy.providers.echo.examples import MOST_CHARACTERS, example

_TOKEN = re.compile(r"\s*\S+|\s+")


def tokens(text: str) -> list[str]:
    """Cut text into words with the white space before them; joined they are the text again."""
    return _TOKEN.findall(text)


@dataclass(slots=True, frozen=True)
class _Answer:
    """What every choice says: its first delta, the deltas after it, and why it ends."""

    opening: dict[str, Any]
    deltas: list[dict[str, Any]]
    finish: str


class Echo:
    """Repeats the last user message (its first 100,000 characters), word by word and always the same way.

    `tool_choice` "required" or a named function is answered by a call whose arguments fit the function's schema, a JSON
    `response_format` by a minimal object; strings in both repeat the message too. Words count as tokens.
    """

    name = "echo"
    native = True
    parameters: frozenset[str] = frozenset()

    class Config(Schema):
        """How slowly to answer."""

        delay_ms = fields.Integer(
            strict=True,
            load_default=0,
            validate=validate.Range(min=0, max=600_000),
            metadata={"help": "milliseconds to wait before each word"},
        )
        first_delay_ms = fields.Integer(
            strict=True,
            load_default=0,
            validate=validate.Range(min=0, max=600_000),
            metadata={"help": "milliseconds to wait before the answer begins"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self.delay_s = config["delay_ms"] / 1000
        self.first_delay_s = config["first_delay_ms"] / 1000

    def open(self, exchange: Exchange, body: dict[str, Any]) -> Reply:
        """Answer at once; raise `Reject` for a tool choice that cannot be followed."""
        return Reply(events=self._events(exchange, body, _answer(body)))

    def _events(self, exchange: Exchange, body: dict[str, Any], answer: _Answer) -> Iterator[Event | Pause]:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        base = {
            "id": f"chatcmpl-{digest[:24]}",
            "object": "chat.completion.chunk",
            "created": int(exchange.received),
            "model": body["model"],
        }
        asked = exchange.stream and (exchange.body.get("stream_options") or {}).get("include_usage")
        tail = {"usage": None} if asked else {}
        n = body.get("n") or 1

        def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> Event:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return {**base, "choices": [choice], **tail}

        if self.first_delay_s:
            yield Pause(self.first_delay_s)
        for index in range(n):
            yield chunk(index, answer.opening)
        for delta in answer.deltas:
            if self.delay_s:
                yield Pause(self.delay_s)
            for index in range(n):
                yield chunk(index, delta)
        for index in range(n):
            yield chunk(index, {}, answer.finish)
        yield {**base, "choices": [], "usage": _usage(body["messages"], n * len(answer.deltas))}


def _answer(body: dict[str, Any]) -> _Answer:
    said = _last_words(body["messages"])
    function = _demanded(body)
    if function is not None:
        return _call(function, said, body)
    return _text(said, body)


def _text(said: str, body: dict[str, Any]) -> _Answer:
    form = body.get("response_format") or {}
    if form.get("type") == "json_object":
        text = _json({"text": said})
    elif form.get("type") == "json_schema":
        text = _json(example(form["json_schema"].get("schema") or {"type": "object"}, said))
    else:
        text = f"You said: {said}" if said else "You said nothing."
    stop = body.get("stop") or []
    ends = [text.find(word) for word in ([stop] if isinstance(stop, str) else stop) if word]
    text = text[: min((end for end in ends if end >= 0), default=len(text))]
    words, finish = _limit(tokens(text), body, "stop")
    opening = {"role": "assistant", "content": "", "refusal": None}
    return _Answer(opening, [{"content": word} for word in words], finish)


def _call(function: dict[str, Any], said: str, body: dict[str, Any]) -> _Answer:
    arguments = _json(example(function.get("parameters") or {"type": "object"}, said))
    call = hashlib.sha256(f"{function['name']} {arguments}".encode()).hexdigest()[:24]
    words, finish = _limit(tokens(arguments), body, "tool_calls")
    first = {
        "index": 0,
        "id": f"call_{call}",
        "type": "function",
        "function": {"name": function["name"], "arguments": ""},
    }
    opening = {"role": "assistant", "content": None, "tool_calls": [first], "refusal": None}
    return _Answer(
        opening,
        [{"tool_calls": [{"index": 0, "function": {"arguments": word}}]} for word in words],
        finish,
    )


def _limit(words: list[str], body: dict[str, Any], finish: str) -> tuple[list[str], str]:
    most = body.get("max_completion_tokens")
    if most is None:
        most = body.get("max_tokens")
    if most is None or most >= len(words):
        return words, finish
    return words[: max(most, 0)], "length"


def _demanded(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the function that `tool_choice` demands to be called, if it demands one."""
    choice = body.get("tool_choice")
    offered = body.get("tools") or []
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice["allowed_tools"]
        choice, offered = allowed["mode"], _named(offered, {_name(tool) for tool in allowed["tools"]})
    if choice in (None, "none", "auto"):
        return None
    if isinstance(choice, dict):
        offered = _named(offered, {_name(choice)})
    for tool in offered:
        if tool.get("type") == "function":
            function: dict[str, Any] = tool["function"]
            return function
    raise Reject(
        400,
        None,
        "'tool_choice' names no function of 'tools' (this model calls tools of type 'function' only).",
        param="tool_choice",
    )


def _name(tool: dict[str, Any]) -> str | None:
    name: str | None = (tool.get(tool.get("type", "function")) or {}).get("name")
    return name


def _named(tools: list[dict[str, Any]], names: set[str | None]) -> list[dict[str, Any]]:
    return [tool for tool in tools if _name(tool) in names]


def _last_words(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return _text_of(message)[:MOST_CHARACTERS]
    return ""


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _usage(messages: list[dict[str, Any]], completion: int) -> dict[str, Any]:
    prompt = sum(len(tokens(_text_of(message))) for message in messages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
