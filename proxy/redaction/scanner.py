"""Finds values in texts: one linear pass for anchors, detectors around these, and the operator's own on top."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import re2

from proxy.redaction import placeholders, scan, telling, views
from proxy.redaction.detectors import addresses, codes, commands, documents, encoded, numbers, passwords, shapes
from proxy.redaction.kinds import IDS, LITERAL, Finding
from proxy.redaction.scan import Scan


class Finder(Protocol):
    """Something of the operator's that finds values of at most `longest` characters: a list of words, a pattern."""

    kind: str
    longest: int

    def find(self, text: str, begin: int = 0) -> Iterable[Finding]:
        """Return what is found from `begin` on, ascending and apart."""


#: Anchors in their order, for of two that begin at one place the first counts: name, pattern, the kinds that need it.
_ANCHORS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("prefix", shapes.PREFIXES, frozenset(("secret",))),
    ("name", telling.SECRETS, frozenset(("secret",))),
    ("birth", telling.BIRTH, frozenset(("birth_date",))),
    ("passport", telling.PASSPORT, frozenset(("passport",))),
    ("driving_licence", telling.LICENCE, frozenset(("driving_licence",))),
    (
        "code",
        "|".join((codes.IBAN, codes.FISCAL, codes.INSURANCE, codes.ACCOUNT)),
        frozenset(("iban", "national_id_it", "national_id_uk", "national_id_in")),
    ),
    ("number", numbers.RUN, frozenset(("card", "phone", "ip", "secret", *IDS))),
    ("four", addresses.FOUR, frozenset(("ip",))),
    ("six", addresses.SIX, frozenset(("ip",))),
    ("at", "@", frozenset(("email", "url_credentials", "secret"))),
    ("option", commands.OPTIONS, frozenset(("secret",))),
    ("azure", "[0-9A-Za-z]Q~", frozenset(("secret",))),
)
#: Runs of base64 come last: whatever else begins at the same place is told by more than its length.
_RUN = ("run", encoded.RUN, frozenset(("secret",)))
_ODD = "odd"
_NUMBER = re.compile(numbers.RUN)
_ESCAPES = r'\\["\\/bfnrtu]|%[2-7][0-9A-Fa-f]'


class Scanner:
    """Finds the values of some kinds in a text, in time linear in it. Made once, shared by threads."""

    def __init__(
        self,
        kinds: Iterable[str],
        finders: Iterable[Finder] = (),
        allowed: Callable[[str], bool] | None = None,
        labels: Iterable[str] = (),
    ) -> None:
        self.kinds = frozenset(kinds)
        self._finders = tuple(finders)
        self._allowed = allowed
        labels = tuple(labels)
        inner = [("token", placeholders.pattern(labels))] if labels else []
        inner += [(name, pattern) for name, pattern, kinds in _ANCHORS if self.kinds & kinds]
        runs = [(name, pattern) for name, pattern, kinds in (_RUN,) if self.kinds & kinds]
        escapes = [("escape", _ESCAPES)]
        self._which = re.compile(
            # The word boundaries of re2, which knows those of ASCII alone.
            "|".join(f"(?P<{name}>{pattern})" for name, pattern in [*inner, *escapes, *runs]).replace(r"\b", r"(?a:\b)")
        )
        everything = [pattern for _, pattern in [*inner, *escapes, *runs]]
        self._anchors = _union(everything)
        self._beyond_ascii = _union([f"[{views.odd_class()}]", *everything])
        self._inner = _union(pattern for _, pattern in [*inner, *escapes])

    def find(self, text: str) -> list[Finding]:
        """Return what is found, ascending and apart."""
        # Nothing that is built in is shorter than `a@b.io`.
        found = self._layers(text) if len(text) > 4 or self._finders else []
        if self._allowed is not None and found:
            found = [one for one in found if not self._allowed(text[one.start : one.end])]
        return scan.settled(found)

    def _layers(self, text: str) -> list[Finding]:
        view, plain = None, text
        if text.isascii():
            found, escapes = self._scan(text, None)
        else:
            plain = views.typeset(text)
            found, escapes = self._scan(plain, None, self._beyond_ascii)
            if _ODD in escapes:
                view = views.normalised(plain)
                plain = plain if view is None else view.text
                found, escapes = self._scan(plain, view)
        if "\\" in escapes:
            layer = views.unescaped(plain, view)
            # JSON within JSON within JSON: each layer has escapes of its own.
            for _ in range(3):
                if layer is None:
                    break
                found += self._scan(layer.text, layer)[0]
                layer = views.unescaped(layer.text, layer)
        if "%" in escapes:
            layer = views.unpercented(plain, view)
            if layer is not None:
                found += self._scan(layer.text, layer)[0]
        return found

    def _scan(self, text: str, view: views.View | None, anchors: Any = None) -> tuple[list[Finding], set[str]]:
        run, escapes = Scan(text, self.kinds), set[str]()
        past = 0
        for match in (anchors or self._anchors).finditer(text):
            start = match.start()
            if anchors is not None and text[start] in views.plain():
                # Spelled otherwise than it reads: begin again with what it reads as.
                return [], {_ODD}
            if start >= past:
                past = self._inspect(run, start, match.end(), escapes)
        found = run.found
        for finder in self._finders:
            found += finder.find(text)
        if view is not None:
            found = [Finding(*view.span(one.start, one.end), one.kind, one.rank) for one in found]
        return found, escapes

    def _inspect(self, run: Scan, start: int, end: int, escapes: set[str]) -> int:
        """Hand an anchor to the detectors that can make something of it; return up to where anchors were looked at."""
        which = self._which.match(run.text, start)
        name = which.lastgroup if which is not None else None
        if name == "token":
            run.found.append(Finding(start, end, LITERAL, -1))
            return end
        if name == "number":
            numbers.inspect(run, start, end)
            if run.text[end : end + 1] == ":":
                shapes.inspect_bot(run, start, end)
        elif name == "escape":
            escapes.add(run.text[start])
        elif name == "run":
            encoded.inspect(run, start, end)
            # A piece of the text, with a character before it: the engine encodes all that it is given.
            base = max(0, start - 1)
            for match in self._inner.finditer(run.text[base : end + 48], start - base):
                self._inspect(run, base + match.start(), base + match.end(), escapes)
        elif name == "name":
            passwords.inspect(run, start, end)
        elif name == "prefix":
            past = shapes.inspect(run, start)
            if past == start and run.text.startswith("secret_", start):
                passwords.inspect(run, start, start + 6)  # secret_key is a name, where it begins no key
            return past
        elif name == "birth":
            documents.inspect_birth(run, start, end)
        elif name == "passport" or name == "driving_licence":
            documents.inspect_number(run, start, end, name)
        elif name == "at":
            addresses.inspect_at(run, start)
        elif name == "code":
            past = codes.inspect(run, start)
            if past == start and not run.text[start:end].isalnum():
                # No such code: what stands behind its blank may be the number of something else.
                match = _NUMBER.search(run.text, start + 3, end + 48)
                if match and match.start() < end:
                    numbers.inspect(run, match.start(), match.end())
            return past
        elif name == "four":
            addresses.inspect_v4(run, start, end)
        elif name == "six":
            addresses.inspect_v6(run, start)
        elif name == "option":
            commands.inspect(run, start)
        elif name == "azure":
            shapes.inspect_azure(run, start + 1)
        return start


def _union(patterns: Iterable[str]) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20  # the default lets its automaton be thrown away and made anew on long texts
    return re2.compile("|".join(patterns) or "[^\\x00-\\x{10ffff}]", options)
