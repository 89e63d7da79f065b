"""Puts values back where an answer names their placeholders, as the answer comes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from proxy.redaction import placeholders
from proxy.redaction.jsontext import InString
from proxy.redaction.replacing import escaped

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

LONGEST = 48
"""More characters than any form of a placeholder has."""


class Restorer:
    """What one exchange's answers are restored by; shared by all of its texts."""

    __slots__ = ("values", "tokens", "_partial")

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        labels = tuple(sorted({name.partition("_")[0] for name in values}))
        self.tokens, self._partial = _compiled(labels)

    def unfinished(self, text: str, before: str) -> int:
        """Return from where on `text` could be the beginning of a placeholder if more followed, or its length."""
        shift = len(before)
        found = self._partial.search(before + text, max(shift, shift + len(text) - LONGEST))
        return len(text) if found is None else found.start() - shift

    def instead(self, token: str) -> str | None:
        """Return the value that a token stands for, `None` for a token that is none of this exchange's."""
        value = self.values.get(placeholders.normal(token))
        if value is not None and token[0] == "%":
            return quote(value, safe="")
        return value

    def whole(self, text: str) -> str:
        """Return a text, which is not JSON, with its placeholders restored."""
        return self.tokens.sub(lambda match: _or(self.instead(match[0]), match[0]), text)


class Restoring:
    """One text of an answer: holds back only what could still become a placeholder of this exchange."""

    __slots__ = ("_restorer", "_text", "_before", "_json", "shifts")

    def __init__(self, restorer: Restorer, json: bool) -> None:
        self._restorer = restorer
        self._text = ""
        self._before = ""
        self._json = InString() if json else None
        self.shifts = Shifts()

    def take(self, text: str, last: bool) -> str:
        """Add text, return what can be released; all that is left if it is the last."""
        text = self._text + text
        end = len(text) if last else self._restorer.unfinished(text, self._before)
        self._text = text[end:]
        if not end:
            return ""
        released = self._resolved(text[:end])
        self._before = text[end - 1]
        return released

    def _resolved(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        # With the character before it: a name without brackets has to be a whole word.
        whole = self._before + text
        shift = len(self._before)
        for match in self._restorer.tokens.finditer(whole, shift):
            value = self._restorer.instead(match[0])
            if value is None:
                continue
            start, end = match.start() - shift, match.end() - shift
            if self._json is not None:
                self._json.feed(text[done:start])
                if self._json.inside:
                    value = escaped(value)
                elif not _NUMBER.fullmatch(value):
                    value = f'"{escaped(value)}"'
            pieces += text[done:start], value
            self.shifts.add(start - done, end - start, len(value))
            done = end
        if self._json is not None:
            self._json.feed(text[done:])
        self.shifts.keep(len(text) - done)
        pieces.append(text[done:])
        return "".join(pieces)


class Shifts:
    """Where in a rewritten text a position of the original has gone."""

    __slots__ = ("_at", "_by", "_length", "_shift")

    def __init__(self) -> None:
        self._at: list[int] = []
        self._by: list[int] = []
        self._length = 0
        self._shift = 0

    def add(self, kept: int, old: int, new: int) -> None:
        """After `kept` characters that stayed, `old` ones became `new` ones."""
        self._length += kept + old
        self._shift += new - old
        self._at.append(self._length)
        self._by.append(self._shift)

    def keep(self, kept: int) -> None:
        """Note characters that stayed."""
        self._length += kept

    def moved(self, position: int) -> int:
        """Return the new position; one inside of something that was replaced moves with what was before it."""
        at = bisect_left(self._at, position + 1)
        return position + (self._by[at - 1] if at else 0)


def _or(value: str | None, other: str) -> str:
    return other if value is None else value


@lru_cache(maxsize=64)
def _compiled(labels: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds placeholders of these labels, and what finds the unfinished beginning of one at the end."""
    return placeholders.compiled(labels), re.compile(placeholders.beginnings(labels), re.ASCII)
