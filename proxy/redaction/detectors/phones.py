"""Telephone numbers: international ones anywhere, national ones by their country's writing or beside a telling word."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from proxy.redaction.scan import Scan

#: National numbers that their writing tells, each with its country.
_WRITTEN = (
    ("FR", re.compile(r"0[1-9](?:([ .\-])[0-9]{2})(?:\1[0-9]{2}){3}")),
    ("US", re.compile(r"\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[-. ][0-9]{4}")),
    ("US", re.compile(r"[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4}")),
    ("BR", re.compile(r"\(0?[1-9][0-9]\) ?9?[0-9]{4}[- ][0-9]{4}")),
    ("CN", re.compile(r"1[3-9][0-9]([ \-])[0-9]{4}\1[0-9]{4}")),
    ("JP", re.compile(r"0[5789]0([ \-])[0-9]{4}\1[0-9]{4}")),
    ("JP", re.compile(r"0[1-9][0-9]?-[0-9]{3,4}-[0-9]{4}")),
    ("GB", re.compile(r"0(?:1[0-9]{2,3}|2[0-9]|7[0-9]{3}|11[0-9]) [0-9]{3,4} ?[0-9]{3,4}")),
    ("DE", re.compile(r"0[1-9][0-9]{1,4}/[0-9]{3,5} ?[0-9]{1,5}")),
    ("NL", re.compile(r"0(?:6[ \-][0-9]{8}|[1-9][0-9]{1,2}[ \-][0-9]{3} ?[0-9]{4})")),
)

#: Beside a telling word: how long a national number is and how it begins, by country.
_SHAPES = (
    ("US", re.compile(r"1?[2-9][0-9]{2}[2-9][0-9]{6}")),
    ("GB", re.compile(r"0[1-9][0-9]{8,9}")),
    ("DE", re.compile(r"0[1-9][0-9]{5,11}")),
    ("FR", re.compile(r"0[1-9][0-9]{8}")),
    ("ES", re.compile(r"[6-9][0-9]{8}")),
    ("IT", re.compile(r"0[1-9][0-9]{4,9}|3[0-9]{8,9}")),
    ("NL", re.compile(r"0[1-9][0-9]{8}")),
    ("PL", re.compile(r"[1-9][0-9]{8}")),
    ("BR", re.compile(r"0?[1-9][1-9]9?[2-9][0-9]{7}|9?[2-9][0-9]{7}")),
    ("IN", re.compile(r"0?[6-9][0-9]{9}|0[1-9][0-9]{9}")),
    ("CN", re.compile(r"1[3-9][0-9]{9}|0[1-9][0-9]{8,10}|[2-8][0-9]{7}")),
    ("JP", re.compile(r"0[1-9][0-9]{8,9}")),
    ("AT", re.compile(r"0[1-9][0-9]{4,11}")),
    ("CH", re.compile(r"0[1-9][0-9]{8}")),
    ("PT", re.compile(r"[239][0-9]{8}")),
    ("BE", re.compile(r"0[1-9][0-9]{7,8}")),
)
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}[-./][01]?[0-9][-./][0-3]?[0-9]\b|[0-3]?[0-9]([-./])[01]?[0-9]\1(?:19|20)[0-9]{2}\b"
)

_YEARED = re.compile(r"[0-9]{3,7}/(?:19|20)[0-9]{2}\b|(?:19[89]|20[0-4])[0-9][-/][0-9]{3}")

NEAR = 48
"""How far, in characters, a telling word may stand before a national number."""
BEHIND = 12
"""How far behind it."""


@cache
def _library() -> Any:
    # Its tables take a tenth of a second to load.
    import phonenumbers

    return phonenumbers


def _valid(number: str, country: str | None) -> bool:
    library = _library()
    try:
        parsed = library.parse(number, country)
    except library.NumberParseException:
        return False
    return bool(library.is_valid_number(parsed)) or _fictional(parsed)


def _fictional(parsed: Any) -> bool:
    """Tell whether a number is of a range that plans of numbers keep for drama and examples, which is none in use."""
    code, number = parsed.country_code, str(parsed.national_number)
    if code == 33:
        return len(number) == 9 and number[:5] in ("19900", "26191", "35301", "46571", "53649", "63998")
    return code == 1 and len(number) == 10 and number[0] >= "2" and number[3:8] == "55501"


def inspect(scan: Scan, groups: list[tuple[int, int]]) -> None:
    """Look for telephone numbers among neighbouring groups of digits."""
    if "phone" not in scan.kinds:
        return
    text = scan.text
    if len(groups) == 1 and text[groups[0][0] - 1 : groups[0][0]] != "+" and not text.startswith("00", groups[0][0]):
        # Nothing but a telling word could make it one.
        if not scan.tells("phone"):
            return
    at = 0
    while at < len(groups):
        at += _international(scan, groups, at) or _national(scan, text, groups, at) or 1


def _extents(text: str, groups: list[tuple[int, int]], at: int, most: int, least: int) -> list[tuple[int, int, str]]:
    """Return the numbers that may begin with a group, the longest first: how many groups, the end, the digits."""
    found = []
    digits = ""
    for index in range(at, min(at + 8, len(groups))):
        start, stop = groups[index]
        if (
            index > at
            and len(text[groups[index - 1][1] : start]) == 2
            and "(" not in text[groups[index - 1][1] : start]
        ):
            if ")" not in text[groups[index - 1][1] : start]:
                break
        digits += text[start:stop]
        if len(digits) > most:
            break
        if len(digits) >= least and _ends(text, stop):
            found.append((index - at + 1, stop, digits))
    found.reverse()
    return found


def _ends(text: str, at: int) -> bool:
    beside = text[at : at + 1]
    if beside.isascii() and (beside.isalnum() or beside in ("_", "@")):
        return False
    return not (beside in (".", ",", "/", "-") and text[at + 1 : at + 2].isdigit() and False)


def _begins(text: str, at: int) -> bool:
    beside = text[at - 1 : at] if at else ""
    return not (beside.isascii() and (beside.isalnum() or beside in ("_", "#", "$", "§", "/", "."))) or not beside


def _international(scan: Scan, groups: list[tuple[int, int]], at: int) -> int:
    text = scan.text
    first = groups[at][0]
    before = text[max(0, first - 2) : first]
    if before.endswith("+") or before in ("+ ", "+("):
        start = first - (1 if before.endswith("+") else 2)
        prefix = ""
    elif text.startswith("00", first) and _begins(text, first):
        start, prefix = first, "00"
    else:
        return 0
    if start and text[start - 1].isascii() and (text[start - 1].isalnum() or text[start - 1] in "+_"):
        return 0
    for count, end, digits in _extents(text, groups, at, 17, 8):
        if _valid("+" + digits.removeprefix(prefix), None):
            scan.add(start, end, "phone", 4)
            return count
        # The (0) of +49 (0)160, and the one that some write without.
        plain = re.sub(r"\(0\)", "", text[start:end])
        if plain != text[start:end] and _valid("+" + "".join(re.findall("[0-9]", plain)).removeprefix(prefix), None):
            scan.add(start, end, "phone", 4)
            return count
    return 0


def _national(scan: Scan, text: str, groups: list[tuple[int, int]], at: int) -> int:
    first = groups[at][0]
    start = first - 1 if text[first - 1 : first] == "(" and ")" in text[first : first + 6] else first
    if not _begins(text, start) or (at and text[first - 1] in "-./" and groups[at - 1][1] == first - 1):
        return 0
    for country, written in _WRITTEN if at + 1 < len(groups) else ():
        match = written.match(text, start)
        if match and _ends(text, match.end()) and not _goes_on(text, match.end()) and _valid(match[0], country):
            scan.add(start, match.end(), "phone", 6)
            return sum(1 for group in groups[at:] if group[1] <= match.end())
    extents = _extents(text, groups, at, 13, 6)
    if not extents:
        return 0
    away = scan.distance("phone", start, extents[0][1], NEAR, BEHIND)
    if away is None or _DATE.match(text, first) or _YEARED.match(text, first):
        return 0
    for count, end, digits in extents:
        if _goes_on(text, end):
            continue
        for country, shape in _SHAPES:
            if shape.fullmatch(digits) and _valid(digits, country):
                scan.add(start, end, "phone", 7)
                return count
    return 0


def _goes_on(text: str, at: int) -> bool:
    """Tell whether more of a number follows: a fraction, a date or a longer reference."""
    return text[at : at + 1] in ("-", ".", "/", ",") and text[at + 1 : at + 2].isdigit()
