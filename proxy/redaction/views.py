"""A text as a reader sees it: without invisible characters, wide digits, escapes or percent signs, and the way back."""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache


class View:
    """`text`, made from an original in which each position of it can be found."""

    __slots__ = ("text", "_at", "_from", "_under")

    def __init__(self, text: str, at: list[int], origin: list[int], under: View | None) -> None:
        # Where `text` passes at[i] the original passes origin[i]; from there on both go on character by character.
        self.text = text
        self._at = at
        self._from = origin
        self._under = under

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where in the original `text[start:end]` comes from; what was taken out inside belongs to it."""
        begin, finish = self._origin(start), self._origin(end - 1, last=True)
        return self._under.span(begin, finish) if self._under is not None else (begin, finish)

    def _origin(self, position: int, last: bool = False) -> int:
        piece = bisect_right(self._at, position) - 1
        within = position - self._at[piece]
        if not last:
            return self._from[piece] + within
        # The end of a character's origin is where the next one begins, for an escape stands for one character.
        if piece + 1 < len(self._at) and self._at[piece + 1] == position + 1 and piece % 2:
            return self._from[piece + 1]
        return self._from[piece] + within + 1


def _edited(text: str, edits: Iterator[tuple[int, int, str]], under: View | None) -> View | None:
    """Return a view of `text` after `edits` (start, end, at most one character or more instead); `None` if none."""
    pieces: list[str] = []
    # Even pieces are stretches that were left alone, odd ones what was put instead of something.
    at, origin = [0], [0]
    done = length = 0
    for start, end, new in edits:
        kept = text[done:start]
        length += len(kept)
        pieces += kept, new
        at.append(length)
        origin.append(start)
        length += len(new)
        at.append(length)
        origin.append(end)
        done = end
    if not pieces:
        return None
    pieces.append(text[done:])
    return View("".join(pieces), at, origin, under)


def normalised(text: str) -> View | None:
    """Return `text` with digits, letters, blanks and dashes in their plain forms, and nothing that cannot be seen.

    Full-width, mathematical, circled and other scripts' digits become ASCII ones; zero-width characters, soft hyphens
    and combining marks go. `None` where nothing of that kind is in it.
    """
    table = plain()
    found = ((match.start(), match.end(), table.get(match[0])) for match in _RARE.finditer(text))
    return _edited(text, ((start, end, new) for start, end, new in found if new is not None), None)


def typeset(text: str) -> str:
    """Return `text` with the dashes and blanks of good typography in their plain forms, all where they were.

    These are in much prose, and put right far sooner than what `normalised` has to find a way back from.
    """
    for odd, usual in _TYPESET:
        if odd in text:
            text = text.replace(odd, usual)
    return text


def unescaped(text: str, under: View | None) -> View | None:
    r"""Return `text` with JSON's escapes resolved (`\"`, `\n`, `\u0041`); `None` where there are none."""
    return _edited(text, ((m.start(), m.end(), _character(m)) for m in _ESCAPE.finditer(text)), under)


def unpercented(text: str, under: View | None) -> View | None:
    """Return `text` with its percent escapes of ASCII characters resolved; `None` where there are none."""
    return _edited(text, ((m.start(), m.end(), chr(int(m[1], 16))) for m in _PERCENT.finditer(text)), under)


def odd_class() -> str:
    """Return, as the inside of a class for re2, the characters that `normalised` would change."""
    return "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in _ranges(plain()))


#: Not in the letters of Europe, kana, Chinese characters or Hangul, among which is nothing to change.
_RARE = re.compile("[^\x00-\x7f\u00c0-\u024f\u0370-\u052f\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/bfnrt]))')
_PERCENT = re.compile(r"%([2-7][0-9A-Fa-f])")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _character(match: re.Match[str]) -> str:
    if match[1]:
        code = int(match[1], 16)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    return _CONTROLS.get(match[2], match[2])


#: Each one character for one, of which `plain` knows more.
_TYPESET = (
    *((dash, "-") for dash in "\u2013\u2014\u2010\u2011\u2012\u2212"),
    *((blank, " ") for blank in "\u00a0\u202f\u2009\u200a\u3000"),
)

#: Where such characters are; elsewhere none is looked for.
_BLOCKS = (
    range(0xA0, 0x3100),
    range(0xA620, 0xABFA),
    range(0xFE00, 0xFFF0),
    range(0x104A0, 0x104AA),
    range(0x11060, 0x11DAA),
    range(0x1D400, 0x1D800),
    range(0x1F100, 0x1F190),
    range(0x1FBF0, 0x1FBFA),
)


@cache
def plain() -> dict[str, str]:
    """Return what is put instead of each odd character: one ASCII character, or nothing."""
    table = {}
    for code in itertools.chain(*_BLOCKS):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cf", "Mn") or character in "\u115f\u1160\u3164":
            # Indic vowel signs and the like are letters of their words.
            if category != "Mn" or unicodedata.combining(character) >= 200 or character in _VARIATIONS:
                table[character] = ""
        elif category == "Nd":
            table[character] = str(unicodedata.decimal(character))
        elif category == "Zs" or character == "\u2028":
            table[character] = " "
        elif category == "Pd" or character == "\u2212":
            table[character] = "-"
        elif category in ("Lu", "Ll", "No", "So", "Sm", "Po", "Pc") and not 0xA0 <= code < 0x2000:
            plain = unicodedata.normalize("NFKC", character)
            if len(plain) == 1 and plain.isascii() and (plain.isalnum() or plain in "@.+/_"):
                table[character] = plain
    return table


_VARIATIONS = frozenset(map(chr, (*range(0xFE00, 0xFE10), 0x34F)))


def _ranges(characters: dict[str, str]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = ranges[-1][0], code
        else:
            ranges.append((code, code))
    return ranges
