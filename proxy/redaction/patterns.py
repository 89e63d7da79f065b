"""The operator's own patterns, in an engine whose time is linear in the text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import re2

from proxy.redaction.kinds import Finding

RANK = 3
MOST_MEMORY = 16 << 20


class Pattern:
    """Finds what a pattern matches: its group `value` where it has one, else all of it.

    Raises `ValueError` where the engine cannot run it in linear time (look-around, backreferences), where it takes too
    much memory, or where it matches nothing at all.
    """

    def __init__(self, kind: str, pattern: str, longest: int) -> None:
        self.kind = kind
        self.longest = longest
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MOST_MEMORY
        try:
            self._pattern: Any = re2.compile(pattern, options)
        except re2.error as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
            raise ValueError(f"is no pattern that can be run in linear time: {reason}") from None
        if self._pattern.search("") is not None:
            raise ValueError("matches an empty text, and so everywhere")
        self._group = self._pattern.groupindex.get("value", 0)

    def find(self, text: str, begin: int = 0) -> Iterator[Finding]:
        """Yield what is found from `begin` on, ascending and apart; what stands before it is looked at as context."""
        for match in self._pattern.finditer(text, begin):
            start, end = match.span(self._group)
            if 0 <= start < end:
                yield Finding(start, end, self.kind, RANK)
