"""Thoughts that a model says aloud, told from what it answers."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class Thoughts:
    """Splits a text that comes in pieces, and may begin with thoughts between `<think>` tags."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""
        # "before", "opened", "thinking", "closed", "answering"
        self._state = "before"

    def split(self, text: str) -> tuple[str, str]:
        """Return what a piece adds to the thoughts and to the answer; what may be half a tag is held back."""
        if self._state == "answering":
            return "", text
        self._held += text
        if self._state == "before":
            start = self._held.lstrip()
            if _OPEN.startswith(start[: len(_OPEN)]) and len(start) < len(_OPEN):
                return "", ""
            if not start.startswith(_OPEN):
                return self._answer(self._held)
            self._held, self._state = start[len(_OPEN) :], "opened"
        if self._state == "opened":
            self._held = self._held.lstrip("\n")
            self._state = "thinking" if self._held else "opened"
        thought = ""
        if self._state == "thinking":
            thought, tag, rest = self._held.partition(_CLOSE)
            if not tag:
                keep = _half(self._held)
                cut = len(self._held) - keep
                thought, self._held = self._held[:cut], self._held[cut:]
                return thought, ""
            self._held, self._state = rest, "closed"
        # The empty lines around the thoughts belong to neither.
        if self._state == "closed":
            self._held = self._held.lstrip("\n")
        return (thought, self._answer(self._held)[1]) if self._held else (thought, "")

    def end(self) -> tuple[str, str]:
        """Return what was held back."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "thinking" else ("", held)

    def _answer(self, text: str) -> tuple[str, str]:
        self._held, self._state = "", "answering"
        return "", text


def _half(text: str) -> int:
    """Return how many characters at the end may be the beginning of the closing tag."""
    return next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)
