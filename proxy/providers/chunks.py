"""What translated answers are made of: OpenAI's chunks in OpenAI's order, finish reasons, usage, citations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.fold import Fold

_OWN = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
#: Upstreams' finish reasons that are not OpenAI's, in lower case.
_FINISHES = {
    **dict.fromkeys(("end_turn", "stop_sequence", "eos", "eos_token", "complete"), "stop"),
    **dict.fromkeys(("max_tokens", "model_length", "model_context_window_exceeded", "continuation"), "length"),
    "tool_use": "tool_calls",
    **dict.fromkeys(("content_filtered", "guardrail_intervened", "refusal", "safety", "recitation"), "content_filter"),
    **dict.fromkeys(("language", "other", "blocklist", "prohibited_content", "spii", "no_image"), "content_filter"),
    **dict.fromkeys(
        ("escalation", "pup_limited_disabled", "model_armor", "error_toxic", "sensitive"), "content_filter"
    ),
}
_MALFORMED = re.compile(r"malformed_\w+|unexpected_tool_call|too_many_tool_calls|missing_thought_signature")


def finish_reason(said: Any, called: bool = False) -> str:
    """Return OpenAI's finish reason for an upstream's; `called` says that there are tool calls in the answer.

    Raises `UpstreamError` where the reason is that the model, or the upstream, failed.
    """
    word = said.lower() if isinstance(said, str) else ""
    if _MALFORMED.fullmatch(word):
        raise UpstreamError(502, "upstream_malformed_output", "The model has made output that cannot be used.")
    if word in ("error", "network_error"):
        raise UpstreamError(502, "upstream_error", "The upstream failed.")
    reason = word if word in _OWN else _FINISHES.get(word)
    if reason is None:
        reason = "content_filter" if word.startswith("image_") else "stop"
    return "tool_calls" if reason in ("stop", "function_call") and called else reason


def usage(
    prompt: int, completion: int, *, cached: int = 0, cache_write: int = 0, reasoning: int = 0, searches: int = 0
) -> dict[str, Any]:
    """Return OpenAI's usage object. `prompt` includes what was cached or written there, `completion` the reasoning."""
    said: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }
    if searches:
        said["num_search_queries"] = searches  # Perplexity's name for it
    return said


def citation(url: str, title: str, start: int, end: int) -> dict[str, Any]:
    """Return an annotation of the content from character `start` up to, but not with, `end`."""
    said = {"url": url, "title": title, "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": said}


class Chunks:
    """Makes the chunks of one answer in OpenAI's order: of each choice the role, texts, calls and a finish; usage.

    Each method returns the chunks that say one thing more. Whole answers are made of the same chunks by `folded`.
    """

    def __init__(self, exchange: Exchange, legacy: bool = False, json: bool = False) -> None:
        """`legacy` tells the first call as a `function_call`, and leaves others out; `json` wants a JSON object."""
        self._legacy = legacy
        self._json: list[str] | None = [] if json else None
        self._head = {
            "id": "chatcmpl-" + exchange.id.removeprefix("req_"),
            "object": "chat.completion.chunk",
            "created": int(exchange.received),
            "model": exchange.model,
        }
        self._begun: set[int] = set()
        self._calls: dict[int, int] = {}
        self._lengths: dict[int, int] = {}

    def length(self, index: int = 0) -> int:
        """Return how many characters of content a choice has so far."""
        return self._lengths.get(index, 0)

    def calls(self, index: int = 0) -> int:
        """Return how many calls a choice has so far."""
        return self._calls.get(index, 0)

    def begin(self, index: int = 0) -> list[Event]:
        """Say the role, unless it has been said."""
        return [] if index in self._begun else [self._first({"content": "", "refusal": None}, index)]

    def text(self, text: str, index: int = 0) -> list[Event]:
        """Say a piece of content."""
        if self._json is not None:
            self._json.append(text)
        self._lengths[index] = self._lengths.get(index, 0) + len(text)
        return self._said({"content": text} if text else {}, index)

    def reasoning(self, text: str, index: int = 0) -> list[Event]:
        """Say a piece of what the model thinks."""
        return self._said({"reasoning_content": text} if text else {}, index)

    def refusal(self, text: str, index: int = 0) -> list[Event]:
        """Say a piece of a refusal."""
        if index not in self._begun:
            return [self._first({"content": None, "refusal": ""}, index), self._chunk({"refusal": text}, index)]
        return self._said({"refusal": text}, index)

    def call(self, id: str, name: str, index: int = 0) -> list[Event]:
        """Open the next call of a function."""
        number = self.calls(index)
        self._calls[index] = number + 1
        function = {"name": name, "arguments": ""}
        if self._legacy:
            if number:
                return []
            delta: dict[str, Any] = {"function_call": function}
        else:
            delta = {"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}
        if index in self._begun:
            return [self._chunk(delta, index)]
        return [self._first({"content": None, **delta, "refusal": None}, index)]

    def arguments(self, text: str, number: int | None = None, index: int = 0) -> list[Event]:
        """Say a piece of the arguments of a call, of the one that was opened last unless a `number` from 0 is given."""
        number = self._calls[index] - 1 if number is None else number
        if not text or (self._legacy and number):
            return []
        if self._legacy:
            return [self._chunk({"function_call": {"arguments": text}}, index)]
        return [self._chunk({"tool_calls": [{"index": number, "function": {"arguments": text}}]}, index)]

    def annotations(self, annotations: list[dict[str, Any]], index: int = 0) -> list[Event]:
        """Say what the content is annotated with, if with anything."""
        return self._said({"annotations": annotations}, index) if annotations else []

    def finish(self, reason: str, index: int = 0) -> list[Event]:
        """End a choice; raise `UpstreamError` where it was to be JSON and is none, though it has come to its end."""
        if self._json is not None and reason == "stop":
            _check_object("".join(self._json))
        reason = "function_call" if self._legacy and reason == "tool_calls" else reason
        return [*self.begin(index), self._chunk({}, index, reason)]

    def usage(self, usage: dict[str, Any]) -> list[Event]:
        """Say what the answer used; comes after every finish."""
        return [{**self._head, "choices": [], "usage": usage}]

    def _said(self, delta: dict[str, Any], index: int) -> list[Event]:
        if index in self._begun:
            return [self._chunk(delta, index)] if delta else []
        return [*self.begin(index), self._chunk(delta, index)] if delta else self.begin(index)

    def _first(self, delta: dict[str, Any], index: int) -> Event:
        self._begun.add(index)
        return self._chunk({"role": "assistant", **delta}, index)

    def _chunk(self, delta: dict[str, Any], index: int, finish: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "choices": [choice]}


def folded(events: Iterable[Event]) -> dict[str, Any]:
    """Return all events of an answer as a whole one."""
    fold = Fold()
    for event in events:
        fold.add(event)
    completion = fold.completion()
    for choice in completion["choices"]:
        choice["message"].setdefault("annotations", [])
    return completion


def _check_object(text: str) -> None:
    try:
        said = orjson.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise UpstreamError(502, "upstream_malformed_output", "The model has not answered with the JSON object wanted.")
