"""The operator's lists of words: found in one pass, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ahocorasick

from proxy.redaction.kinds import Finding

RANK = 3


class Words:
    """Finds the entries of one list, the longest first of those that begin together. Made once, shared by threads."""

    def __init__(self, kind: str, entries: Iterable[str], *, ignore_case: bool, whole: bool) -> None:
        self.kind = kind
        self._fold = _lower if ignore_case else str
        self._whole = whole
        self._automaton: Any = ahocorasick.Automaton(ahocorasick.STORE_LENGTH)
        self.longest = 0
        for entry in entries:
            if entry := entry.strip():
                self._automaton.add_word(self._fold(entry))
                self.longest = max(self.longest, len(entry))
        self._automaton.make_automaton()

    def __len__(self) -> int:
        return len(self._automaton)

    def find(self, text: str, begin: int = 0) -> Iterator[Finding]:
        """Yield what is found from `begin` on, ascending and apart; what stands before it is looked at as context."""
        if not len(self._automaton):
            return
        folded = self._fold(text)
        found = []
        for last, length in self._automaton.iter(folded, begin):
            start, end = last + 1 - length, last + 1
            if not self._whole or (_apart(text, start - 1, start) and _apart(text, end - 1, end)):
                found.append((start, -end))
        done = begin
        for start, end in sorted(found):
            if start >= done:
                done = -end
                yield Finding(start, done, self.kind, RANK)


def _lower(text: str) -> str:
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    # Some letters become two: those stay, for positions have to.
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _apart(text: str, left: int, right: int) -> bool:
    """Tell whether no word goes on from one position to the other."""
    if left < 0 or right >= len(text):
        return True
    return not ((text[left].isalnum() or text[left] == "_") and (text[right].isalnum() or text[right] == "_"))
