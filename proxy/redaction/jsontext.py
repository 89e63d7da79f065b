"""Where in a stream of JSON text a string is open."""

from __future__ import annotations

import re

_MARKS = re.compile(r'\\.?|"', re.DOTALL)


class InString:
    """Follows JSON text piece by piece; `inside` tells whether its next character lies in a string."""

    __slots__ = ("inside", "_escaped")

    def __init__(self) -> None:
        self.inside = False
        self._escaped = False

    def feed(self, text: str) -> None:
        """Go over a piece of text."""
        if not text:
            return
        at = 1 if self._escaped else 0
        self._escaped = False
        if '"' not in text and "\\" not in text:
            return
        for match in _MARKS.finditer(text, at):
            if match[0] == '"':
                self.inside = not self.inside
            elif match[0] == "\\":
                self._escaped = True
