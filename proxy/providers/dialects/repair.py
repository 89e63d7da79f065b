"""How answers that are nearly OpenAI's are repaired, event by event."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy import failures
from proxy.costs.usage import usage_of
from proxy.exchange import Event, Exchange
from proxy.fold import another_call
from proxy.providers.call_ids import ReasoningDetails
from proxy.providers.chunks import citation, finish_reason
from proxy.providers.dialects import Dialect
from proxy.providers.dialects.thoughts import Thoughts
from proxy.providers.translation import Seal

_DELTA = ("content", "refusal", "reasoning_content", "function_call", "audio", "annotations")
_HEAD = ("id", "created", "model", "service_tier", "system_fingerprint")
_MARKER = re.compile(r"\[(\d{1,3})\]")


@dataclass(slots=True)
class _Choice:
    """What has been seen of a choice. `calls` maps the upstream's number of a call to its opening and ours."""

    index: int
    begun: bool = False
    finished: bool = False
    silent: bool = False
    text: list[str] = field(default_factory=list)
    calls: dict[int, tuple[dict[str, Any], int]] = field(default_factory=dict)
    spoken: set[int] = field(default_factory=set)
    count: int = 0
    thoughts: Thoughts | None = None
    details: ReasoningDetails = field(default_factory=ReasoningDetails)


class Repair:
    """Repairs the events of one answer, which are changed in place; `seal` carries `reasoning_details` in ids."""

    def __init__(self, exchange: Exchange, dialect: Dialect, seal: Seal | None = None) -> None:
        self._id = exchange.id.removeprefix("req_")
        self._created = int(exchange.received)
        self._model = exchange.model or ""
        self._dialect = dialect
        self._seal = seal
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._sources: list[dict[str, Any]] = []

    @property
    def finished(self) -> bool:
        """Whether there are choices, and all that began have finished."""
        return bool(self._choices) and all(choice.finished for choice in self._choices.values())

    def event(self, event: Event) -> list[Event]:
        """Return what one event of the upstream's becomes; raise `UpstreamError` or `ValueError` for what is none."""
        vendor = event.get("x_groq") or {}
        if vendor.get("error"):
            raise failures.in_answer(vendor["error"])
        self._sources = _sources(event) or self._sources
        said = event.get("usage") or vendor.get("usage")
        head = self._named(event)
        events = []
        for position, raw in enumerate(event.get("choices") or ()):
            index = raw.get("index")
            index = position if index is None else index
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice(index)
                choice.thoughts = Thoughts() if self._dialect.thinks_aloud else None
            events += [{**head, "choices": [part]} for part in self._parts(choice, raw)]
        usage = _usage(said) if isinstance(said, dict) else None
        if usage is not None:
            events.append({**head, "choices": [], "usage": usage})
        return events

    def end(self) -> list[Event]:
        """Return the finishes of choices whose last reason was empty: some upstreams end so after tool calls."""
        events = []
        for choice in self._choices.values():
            if choice.silent and not choice.finished:
                events += [{**self._head, "choices": [part]} for part in self._finish(choice, "stop", None)]
        return events

    def _named(self, event: Event) -> Event:
        """Return what each event repeats: the same from the first to the last, whatever the upstream makes of it."""
        # Azure's first event has no names yet.
        if not self._head and (event.get("choices") or event.get("usage")):
            created = event.get("created")
            self._head = {key: event[key] for key in _HEAD if event.get(key) is not None}
            self._head["id"] = str(event.get("id") or f"chatcmpl-{self._id}")
            self._head["object"] = "chat.completion.chunk"
            self._head["created"] = int(created) if isinstance(created, (int, float)) else self._created
            self._head["model"] = str(event.get("model") or self._model)
        return self._head

    def _parts(self, choice: _Choice, raw: dict[str, Any]) -> list[dict[str, Any]]:
        said = raw.get("delta") or raw.get("message") or {}
        delta = {key: said[key] for key in _DELTA if said.get(key) is not None}
        _texts(delta, said)
        if choice.thoughts is not None and "content" in delta:
            _think(delta, *choice.thoughts.split(delta["content"]))
        choice.details.add(said.get("reasoning_details"))
        calls = self._calls(choice, said.get("tool_calls"))
        if calls:
            delta["tool_calls"] = calls
            if not delta.get("content"):
                delta.pop("content", None)
        choice.text.append(delta.get("content") or "")
        reason = raw.get("finish_reason")
        choice.silent = reason == ""
        parts = []
        # The last event of some repeats the whole message.
        if (delta or not choice.begun and not reason and "role" in said) and not choice.finished:
            parts.append(_part(choice, self._opened(choice, delta), None, raw.get("logprobs")))
        if reason and not choice.finished:
            parts += self._finish(choice, reason, raw.get("logprobs") if not parts else None)
        return parts

    def _opened(self, choice: _Choice, delta: dict[str, Any]) -> dict[str, Any]:
        """Say the role, once and first."""
        if choice.begun:
            return delta
        choice.begun = True
        content = None if "tool_calls" in delta or "refusal" in delta else ""
        return {"role": "assistant", "content": content, "refusal": None} | delta

    def _calls(self, choice: _Choice, said: Any) -> list[dict[str, Any]]:
        calls, seen = [], set[int]()
        for position, entry in enumerate([said] if isinstance(said, dict) else said or ()):
            function = entry.get("function") or {}
            index, known = self._numbered(choice, entry, position)
            if index in seen and function.get("name"):
                known = None
            seen.add(index)
            text = function.get("arguments")
            text = "" if text is None else text if isinstance(text, str) else orjson.dumps(text).decode()
            if known is None:
                number, choice.count = choice.count, choice.count + 1
                id = str(entry.get("id") or f"call_{self._id}_{choice.index}_{number}")
                choice.calls[index] = ({"id": id, "type": "function", "function": function}, number)
                id = id if self._seal is None else self._seal.close(id, choice.details.take())
                opened = {"name": function.get("name") or "", "arguments": text}
                call = {"index": number, "id": id, "type": "function", "function": opened}
            else:
                number = known[1]
                call = {"index": number, "function": {"arguments": text}}
                if not text:
                    continue
            if text:
                choice.spoken.add(number)
            calls.append(call)
        return calls

    def _numbered(
        self, choice: _Choice, entry: dict[str, Any], position: int
    ) -> tuple[int, tuple[dict[str, Any], int] | None]:
        """Return which call of the upstream's a delta belongs to, and what is known of it."""
        index = entry.get("index")
        if index is None:
            named = (entry.get("function") or {}).get("name")
            same = [at for at, (call, _) in choice.calls.items() if entry.get("id") and call["id"] == entry["id"]]
            index = same[0] if same else choice.count if named else max(choice.calls, default=position)
        known = choice.calls.get(index)
        if known is not None and another_call(known[0], entry):
            known = None
        return index, known

    def _finish(self, choice: _Choice, reason: str, logprobs: Any) -> list[dict[str, Any]]:
        reason = finish_reason(reason, called=bool(choice.count))
        choice.finished = True
        parts = []
        if choice.thoughts is not None:
            delta: dict[str, Any] = {}
            _think(delta, *choice.thoughts.end())
            if delta:
                choice.text.append(delta.get("content", ""))
                parts.append(_part(choice, self._opened(choice, delta), None, None))
        empty = [number for number in range(choice.count) if number not in choice.spoken]
        if empty:
            calls = [{"index": number, "function": {"arguments": "{}"}} for number in empty]
            parts.append(_part(choice, {"tool_calls": calls}, None, None))
        annotations = _annotations("".join(choice.text), self._sources)
        if annotations:
            parts.append(_part(choice, self._opened(choice, {"annotations": annotations}), None, None))
        return [*parts, _part(choice, self._opened(choice, {}) if not choice.begun else {}, reason, logprobs)]


def _part(choice: _Choice, delta: dict[str, Any], finish: str | None, logprobs: Any) -> dict[str, Any]:
    logprobs = logprobs if isinstance(logprobs, dict) else None
    return {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _texts(delta: dict[str, Any], said: dict[str, Any]) -> None:
    """Make texts of what is said in lists of parts, and call thoughts by one name; raise `ValueError` for no texts."""
    thoughts = said.get("reasoning_content") or said.get("reasoning") or said.get("thinking")
    content = delta.get("content")
    if isinstance(content, list):
        delta["content"] = "".join(part["text"] for part in content if part.get("type") == "text")
        inner = [entry for part in content if part.get("type") == "thinking" for entry in part["thinking"]]
        thoughts = "".join(entry["text"] for entry in inner if entry.get("type") == "text") or thoughts
        if not delta["content"]:
            del delta["content"]
    if isinstance(thoughts, str) and thoughts:
        delta["reasoning_content"] = thoughts
    elif thoughts:
        delta.pop("reasoning_content", None)
    for key in ("content", "refusal", "reasoning_content"):
        if not isinstance(delta.get(key, ""), str):
            raise ValueError("a text that is none")


def _think(delta: dict[str, Any], thought: str, content: str) -> None:
    delta.pop("content", None)
    if thought:
        delta["reasoning_content"] = thought
    if content:
        delta["content"] = content


def _sources(event: Event) -> list[dict[str, Any]]:
    """Return Perplexity's sources, by the numbers of the marks in the text."""
    results = event.get("search_results") or ()
    titles = {result.get("url"): result.get("title") for result in results if isinstance(result, dict)}
    urls = event.get("citations") or list(titles)
    return [{"url": url, "title": titles.get(url) or url} for url in urls if isinstance(url, str)]


def _annotations(text: str, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a citation for each mark such as `[1]` that has a source."""
    marks = ((match, int(match[1])) for match in _MARKER.finditer(text)) if sources else ()
    return [
        citation(sources[number - 1]["url"], sources[number - 1]["title"], match.start(), match.end())
        for match, number in marks
        if 0 < number <= len(sources)
    ]


def _usage(said: dict[str, Any]) -> dict[str, Any] | None:
    """Return a usage in which the total is the sum of prompt and completion; `None` where nothing is counted."""
    counted = usage_of(said)
    if counted is None:
        return None
    total = {"completion_tokens": counted.completion_tokens, "total_tokens": counted.total_tokens}
    return {**said, "prompt_tokens": counted.prompt_tokens, **total}
