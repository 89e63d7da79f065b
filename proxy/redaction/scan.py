"""One pass over one text: where the anchors of values are, and what the detectors around them found."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import Any

import re2

from proxy.redaction import tables
from proxy.redaction.kinds import Finding
from proxy.redaction.telling import NUMBERS


class Scan:
    """A text under inspection, with what has been found in it and where words tell of what."""

    __slots__ = ("text", "found", "kinds", "named", "versions", "_words", "_cells")

    def __init__(self, text: str, kinds: frozenset[str]) -> None:
        self.text = text
        self.kinds = kinds
        self.found: list[Finding] = []
        self.named = 0  # up to here values have been looked at that a word names
        self.versions = len(text)  # where the last version ended that reads like an address
        self._words: dict[str, Sequence[int]] = {}
        self._cells: dict[str, frozenset[int]] = {}

    def add(self, start: int, end: int, kind: str, rank: int = 5) -> None:
        """Note a finding."""
        if kind in self.kinds:
            self.found.append(Finding(start, end, kind, rank))

    def tells(self, topic: str) -> bool:
        """Tell whether there is a word of a topic anywhere in the text."""
        return bool(self._told(topic))

    def distance(self, topic: str, start: int, end: int, before: int, after: int) -> int | None:
        """Return how many characters from `start` back to, or from `end` on to, the nearest word of a topic.

        It must begin less than `before` characters before, or less than `after` behind, with no blank line between, or
        stand in the heading of the column; else `None`.
        """
        words = self._told(topic)
        if not words:
            return None
        if start in self._cells[topic]:
            return 1
        at = bisect_left(words, start)
        nearest = None
        if at and start - words[at - 1] < before and self._together(words[at - 1], start):
            nearest = start - words[at - 1]
        if at < len(words) and words[at] - end < after:
            behind = words[at] - end
            nearest = behind if nearest is None else min(nearest, behind)
        return nearest

    def _together(self, word: int, start: int) -> bool:
        # A blank line parts what it stands between, but for a heading and the one thing under it.
        return start - word < 24 or self.text.find("\n\n", word, start) < 0

    def _told(self, topic: str) -> Sequence[int]:
        words = self._words.get(topic)
        if words is None:
            words = self._words[topic] = [match.start() for match in _compiled(topic).finditer(self.text)]
            self._cells[topic] = frozenset(cell for word in words for cell, _ in tables.column(self.text, word, word))
        return words


@cache
def _compiled(topic: str) -> Any:
    return re2.compile(NUMBERS[topic])


def settled(found: list[Finding]) -> list[Finding]:
    """Return the findings that hold, ascending and apart: the lower rank first, then the longer one."""
    if len(found) < 2:
        return found
    kept: list[Finding] = []
    starts: list[int] = []
    for finding in sorted(found, key=lambda one: (one.rank, one.start - one.end, one.start)):
        at = bisect_left(starts, finding.start)
        if at < len(kept) and kept[at].start < finding.end:
            continue
        if at and kept[at - 1].end > finding.start:
            continue
        kept.insert(at, finding)
        starts.insert(at, finding.start)
    return kept
