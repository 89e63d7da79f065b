"""The filter of answers: looks for values in what an upstream says, and puts a caller's own values back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from proxy.exchange import Event
from proxy.filters import CALLS, FIELDS, each_text
from proxy.redaction.inspecting import Ahead, Decide, Inspecting, Window
from proxy.redaction.kinds import Finding
from proxy.redaction.restoring import Restorer, Restoring
from proxy.redaction.scanner import Finder, Scanner

#: What is no text of a model's: words of the protocol, ids that the upstream made.
_SKIPPED = frozenset(
    (
        "role",
        "type",
        "id",
        "index",
        "object",
        "model",
        "created",
        "service_tier",
        "system_fingerprint",
        "finish_reason",
        "native_finish_reason",
        "stop_reason",
        "provider",
        "usage",
        "logprobs",
        "data",
        "format",
        "obfuscation",
    )
)
_TEXTS = frozenset(FIELDS)


class Inspection:
    """What answers are looked at for. `holding` is false where what is found is only counted."""

    __slots__ = ("scanner", "finders", "decide", "holding")

    def __init__(self, scanner: Scanner | None, finders: Sequence[Finder], decide: Decide, holding: bool) -> None:
        self.scanner = scanner
        self.finders = finders
        self.decide = decide
        self.holding = holding

    def windows(self, json: bool) -> list[Window]:
        """Return what one text goes through."""
        made: list[Window] = []
        if self.scanner is not None:
            made.append(Inspecting(self.scanner, self.decide, json, self.holding))
        made += (Ahead(finder, self.decide, json, self.holding) for finder in self.finders)
        return made

    def whole(self, text: str) -> str:
        """Return a text that comes in one piece with what was decided on the values in it."""
        found: list[Finding] = self.scanner.find(text) if self.scanner is not None else []
        for one in reversed(found):
            new = self.decide(one.kind, text[one.start : one.end])
            if new is not None:
                text = text[: one.start] + new + text[one.end :]
        for finder in self.finders:
            for one in reversed(list(finder.find(text))):
                new = self.decide(one.kind, text[one.start : one.end])
                if new is not None:
                    text = text[: one.start] + new + text[one.end :]
        return text


class _Through:
    """One text through several windows, one after the other."""

    __slots__ = ("windows",)

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows

    def take(self, text: str, last: bool) -> str:
        for window in self.windows:
            text = window.take(text, last)
        return text

    def moved(self, position: int) -> int:
        for window in self.windows:
            position = window.shifts.moved(position)
        return position


def changed(
    events: Iterable[Event], inspection: Inspection | None, restorer: Restorer | None, json: bool
) -> Iterator[Event]:
    """Yield the events of an answer, inspected and then restored; `json` says that its content is JSON.

    Log probabilities are taken off, for they tell the text as it was. The offsets of citations follow their text.
    """
    contents: dict[int, _Through] = {}

    def window(choice: int, field: str) -> _Through:
        quoted = field in ("function", "function_call") or (json and field == "content")
        windows = inspection.windows(quoted) if inspection is not None else []
        if restorer is not None:
            windows.append(Restoring(restorer, quoted))
        through = _Through(windows)
        if field == "content":
            contents[choice] = through
        return through

    def whole(text: str) -> str:
        if inspection is not None:
            text = inspection.whole(text)
        return restorer.whole(text) if restorer is not None else text

    tokens = restorer is None and (inspection is None or not inspection.holding)
    for event in each_text(events, window, tokens):
        for choice in event.get("choices") or ():
            delta = choice.get("delta")
            if delta:
                _rest(delta, whole, contents.get(choice.get("index") or 0))
            if len(choice) > 4:
                _walk({key: value for key, value in choice.items() if key != "delta"}, choice, whole)
        if len(event) > 5:
            _walk({key: value for key, value in event.items() if key != "choices"}, event, whole)
        yield event


def _rest(delta: dict[str, Any], whole: Callable[[str], str], content: _Through | None) -> None:
    """What of a delta does not come in pieces: names of calls, citations, and what else an upstream adds."""
    for key, value in delta.items():
        if key in _TEXTS or key in _SKIPPED:
            continue
        if key in ("tool_calls", "function_call"):
            for call in value if type(value) is list else (value or {},):
                for part in (call, *(call.get(kind) for kind, _ in CALLS)):
                    if type(part) is dict and type(part.get("name")) is str and part["name"]:
                        part["name"] = whole(part["name"])
        elif key == "annotations" and type(value) is list:
            for note in value:
                if type(note) is dict:
                    for part in note.values():
                        if type(part) is dict and content is not None:
                            _move(part, content)
            _strings(delta, key, value, whole)
        else:
            _strings(delta, key, value, whole)


def _move(part: dict[str, Any], content: _Through) -> None:
    for name in ("start_index", "end_index"):
        if type(part.get(name)) is int:
            part[name] = content.moved(part[name])


def _walk(items: dict[str, Any], node: dict[str, Any], whole: Callable[[str], str]) -> None:
    for key, value in items.items():
        if key not in _SKIPPED:
            _strings(node, key, value, whole)


def _strings(container: Any, key: Any, value: Any, whole: Callable[[str], str]) -> None:
    if type(value) is str:
        if value:
            container[key] = whole(value)
    elif type(value) is dict:
        for name, inner in value.items():
            if name not in _SKIPPED:
                _strings(value, name, inner, whole)
    elif type(value) is list:
        for index, item in enumerate(value):
            _strings(value, index, item, whole)
