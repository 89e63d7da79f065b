"""Puts placeholders into texts, and keeps what is JSON valid JSON."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from proxy.redaction.kinds import Finding

#: A string, with a key's colon or without, or a number, of a text that is JSON.
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*"|-?[0-9][0-9.eE+-]*')


class Edit(NamedTuple):
    """A value at `text[start:end]` that something is put instead of; `bare` if quotes have to come with that."""

    start: int
    end: int
    kind: str
    value: str
    bare: bool = False


def edits(text: str, findings: Iterable[Finding]) -> list[Edit]:
    """Return what has to be replaced for some findings: in JSON whole numbers, and the insides of strings."""
    findings = list(findings)
    if not findings:
        return []
    if not is_json(text):
        return [Edit(one.start, one.end, one.kind, text[one.start : one.end]) for one in findings]
    tokens = [match.span() for match in _TOKEN.finditer(text)]
    starts = [start for start, _ in tokens]
    made: list[Edit] = []
    for one in findings:
        at = max(0, bisect_right(starts, one.start) - 1)
        while at < len(tokens) and tokens[at][0] < one.end:
            start, end = tokens[at]
            at += 1
            if end <= one.start:
                continue
            if text[start] == '"':
                inside = max(start + 1, one.start), min(end - 1, one.end)
                if inside[0] < inside[1]:
                    start, end = _whole_escapes(text, start + 1, *inside)
                    made.append(Edit(start, end, one.kind, _decoded(text[start:end])))
            elif not made or made[-1].start < start:
                made.append(Edit(start, end, one.kind, text[start:end], True))
    return made


def is_json(text: str) -> bool:
    """Tell whether a text is a JSON object or array, whole."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def replaced(text: str, edits: Iterable[Edit], name: Callable[[str, str], str], form: str = "[{}]") -> str:
    """Return a text with `form` of `name(kind, value)` instead of each value."""
    pieces: list[str] = []
    done = 0
    for edit in edits:
        placeholder = form.format(name(edit.kind, edit.value))
        pieces += text[done : edit.start], f'"{placeholder}"' if edit.bare else placeholder
        done = edit.end
    pieces.append(text[done:])
    return "".join(pieces)


def escaped(value: str) -> str:
    """Return a value as it is written inside a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _whole_escapes(text: str, inside: int, start: int, end: int) -> tuple[int, int]:
    r"""Widen a span that begins or ends within an escape such as `\n` or `\u0041`."""
    for match in re.finditer(r"\\(?:u[0-9A-Fa-f]{4}|.)", text[inside : end + 6]):
        begin, stop = match.start() + inside, match.end() + inside
        if begin < start < stop:
            start = begin
        if begin < end < stop:
            end = stop
    return start, end


def _decoded(raw: str) -> str:
    if "\\" not in raw:
        return raw
    try:
        return str(json.loads(f'"{raw}"'))
    except ValueError:
        return raw
