"""Looks at the text of an answer as it comes, and holds back only what could be, or could still become, a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol

from proxy.redaction.detectors.shapes import PEM_LONGEST
from proxy.redaction.jsontext import InString
from proxy.redaction.kinds import Finding
from proxy.redaction.restoring import Shifts
from proxy.redaction.scanner import Finder, Scanner

Decide = Callable[[str, str], str | None]
"""From a kind and a value to what is put instead, `None` to leave it; raises `Reject` to end the answer."""

BEFORE = 160
"""How many characters of what has been released tell of what comes, for it may be named there."""
OPEN = 2048
"""A stretch that has digits or signs of a value all through is looked at when it has this many characters."""
QUIET = 3
"""So many plain words end a stretch; so does the end of a line."""

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uffef"
_ATOM = re.compile(rf"[^\s\"{{}}<>|,;{_CJK}]{{1,4096}}|[{_CJK}]")
_HOT = re.compile(
    r"[0-9@_\d]|:.|//|^[(+]|^[A-Z]{2}$|-----|.{20}|"
    r"(?i:pass|secret|token|key|pwd|contras|clave|senha|has[lł]|wachtw|kennw|schl|cred|jeton|parola|auth|bearer|"
    r"^(?:jan|feb|f[eé]v|mar|m[aä]r|maa|apr|avr|abr|may|ma[ijg]|mei|jun|juin|giu|jul|juil|lug|aug|ao[uû]|ago|sep|set|"
    r"o[ck]t|ott|out|nov|de[cz]|d[eé]c|dic|stycz|lut|kwie|czer|lip|sierp|wrz|pa[zź]|list|grud))|[密口令パキト비पा]"
)


class Window(Protocol):
    """A text on its way through; `shifts` tells where its positions have gone."""

    shifts: Shifts

    def take(self, text: str, last: bool) -> str:
        """Add text, return what can be released; all that is left if it is the last."""


class Inspecting:
    """Lets plain words pass and gathers what is not plain into stretches, which detectors look at as a whole.

    Where a stretch begins and ends depends on the text alone, never on how it was cut on its way: so does the outcome.
    With `holding` false everything is passed at once, and only looked at.
    """

    __slots__ = (
        "_scanner",
        "_decide",
        "_holding",
        "_json",
        "_text",
        "_at",
        "_start",
        "_quiet",
        "_key",
        "_before",
        "shifts",
    )

    def __init__(self, scanner: Scanner, decide: Decide, json: bool, holding: bool = True) -> None:
        self._scanner = scanner
        self._decide = decide
        self._holding = holding
        self._json = InString() if json else None
        self._text = ""
        self._at = 0  # where the next atom of _text is looked for
        self._start = -1  # where the stretch that is open begins
        self._quiet = 0
        self._key = 0  # 1 in a private key, 2 in the line that ends it
        self._before = ""
        self.shifts = Shifts()

    def take(self, text: str, last: bool) -> str:
        """Add text, return what can be released; all that is left if it is the last."""
        released = self._take(text, last)
        return released if self._holding else text

    def _take(self, text: str, last: bool) -> str:
        text = self._text + text
        released: list[str] = []
        done, past = 0, self._at
        size = len(text)
        for match in _ATOM.finditer(text, past):
            start, end = match.span()
            if self._start >= 0 and not self._key and (line := text.find("\n", past, start)) >= 0:
                released.append(self._closed(text, line + 1))
                done = line + 1
            if end == size and not last and end - start < 4096 and not _single(text[start]):
                past = start
                break
            atom = match[0]
            hot = _HOT.search(atom) is not None
            if self._start < 0:
                if hot:
                    released.append(self._plain(text[done:start]))
                    done = self._start = start
                    self._quiet = 0
            else:
                self._quiet = 0 if hot else self._quiet + 1
            past = end
            if self._start >= 0:
                self._private_key(atom)
                most = PEM_LONGEST if self._key else OPEN
                if (self._quiet >= QUIET and not self._key) or end - self._start >= most:
                    released.append(self._closed(text, end))
                    done = end
        else:
            if self._start >= 0 and not self._key and (line := text.find("\n", past)) >= 0:
                released.append(self._closed(text, line + 1))
                done = past = line + 1
            if last:
                if self._start >= 0:
                    released.append(self._closed(text, size))
                    done = size
                past = size
        if self._start < 0:
            # A blank or a mark after the last atom is as plain as the word that comes.
            upto = past if _unfinished(text, past) else size
            released.append(self._plain(text[done:upto]))
            done = upto
            past = max(past, upto)
        self._text = text[done:]
        self._at = past - done
        if self._start >= 0:
            self._start -= done
        return "".join(released)

    def _private_key(self, atom: str) -> None:
        if "-----" in atom:
            if "-----END" in atom:
                self._key = 2
            elif self._key == 2:
                self._key = 0
            elif "-----BEGIN" in atom:
                self._key = 1

    def _plain(self, text: str) -> str:
        if text:
            if self._json is not None:
                self._json.feed(text)
            self.shifts.keep(len(text))
            self._before = (self._before + text)[-BEFORE:]
        return text

    def _closed(self, text: str, end: int) -> str:
        """Look at the stretch that ends here; return it with what was decided on the values in it."""
        stretch = text[self._start : end]
        self._start, self._quiet, self._key = -1, 0, 0
        return self._replaced(stretch)

    def _replaced(self, stretch: str) -> str:
        known = len(self._before)
        findings = self._scanner.find(self._before + stretch)
        self._before = (self._before + stretch)[-BEFORE:]
        shifted = [Finding(max(0, one.start - known), one.end - known, one.kind) for one in findings if one.end > known]
        return _replaced(stretch, shifted, self._decide, self._json, self.shifts)


class Ahead:
    """Looks at a text for what one of the operator's finders finds, which is at most `longest` characters long."""

    __slots__ = ("_finder", "_longest", "_decide", "_holding", "_json", "_text", "_done", "shifts")

    def __init__(self, finder: Finder, decide: Decide, json: bool, holding: bool = True) -> None:
        self._finder = finder
        self._longest = finder.longest
        self._decide = decide
        self._holding = holding
        self._json = InString() if json else None
        self._text = ""
        self._done = 0
        self.shifts = Shifts()

    def take(self, text: str, last: bool) -> str:
        """Add text, return what can be released; all that is left if it is the last."""
        released = self._take(text, last)
        return released if self._holding else text

    def _take(self, text: str, last: bool) -> str:
        text = self._text + text
        done = self._done
        # A finding that begins before this can neither grow nor vanish when more follows.
        limit = len(text) if last else len(text) - self._longest - 1
        released = ""
        if limit > done:
            certain: list[Finding] = []
            upto = limit
            for one in self._finder.find(text, done):
                if one.start >= limit:
                    break
                certain.append(Finding(one.start - done, one.end - done, one.kind))
                upto = max(limit, one.end)
            released = _replaced(text[done:upto], certain, self._decide, self._json, self.shifts)
            done = upto
        trim = max(0, done - self._longest - 1)
        self._text = text[trim:]
        self._done = done - trim
        return released


def _replaced(text: str, findings: Iterable[Finding], decide: Decide, json: InString | None, shifts: Shifts) -> str:
    pieces: list[str] = []
    done = 0
    for one in findings:
        start, end = one.start, one.end
        if start < done:
            continue
        new = decide(one.kind, text[start:end])
        if new is None:
            continue
        if json is not None:
            json.feed(text[done:start])
            if json.inside:
                json.feed(text[start:end])
            else:
                # A number that stands for itself: all of it, and a string instead.
                while start > done and text[start - 1] in "+-.0123456789eE":
                    start -= 1
                while end < len(text) and text[end] in "+-.0123456789eE":
                    end += 1
                new = f'"{new}"'
        pieces += text[done:start], new
        shifts.add(start - done, end - start, len(new))
        done = end
    if json is not None:
        json.feed(text[done:])
    shifts.keep(len(text) - done)
    pieces.append(text[done:])
    return "".join(pieces)


def _single(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uac00" <= character <= "\uffef" and not character.isalnum()


def _unfinished(text: str, at: int) -> bool:
    """Tell whether an atom that may go on begins at `text[at]`."""
    return at < len(text) and _ATOM.match(text, at) is not None
