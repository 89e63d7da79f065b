"""The ways in which countries write the numbers of driving licences, and which of them need no more than a hint.

Sources: DVLA's guide to driver numbers, AAMVA's list of card formats by state, the annexes of Regulation (EU) 2016/1106
and of Germany's FeV, Brazil's CONTRAN resolution 886, India's Sarathi numbering, Japan's and China's police ministries.
"""

from __future__ import annotations

import re

_BRITAIN = (
    r"[A-Z][A-Z9]{4}[ -]?[0-9](?:[05][1-9]|[16][0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9][ -]?[A-Z][A-Z9][A-Z0-9][A-Z]{2}"
    r"(?: [0-9]{2}(?![0-9]))?"
)
#: What says by itself what it is, once a word such as "licence" stands before it.
_DISTINCT = (
    _BRITAIN,
    r"[A-Z][A-Z9]{4}[0-9]{6}[A-Z0-9]{5}",  # the same as people copy it, with days that there are not
    r"U1[0-9A-Z]{7}[A-Z]|[A-Z]{2}[0-9]{7}[A-Z]",  # Italy, since 2013 and before
    r"[A-Z][0-9A-Z]{2}[0-9][0-9A-Z]{5}[0-9X][0-9]",  # Germany: authority, number, check digit, copy
    r"[0-9]{2}[A-Z]{2}[0-9]{5}",  # France, since 2013
    r"[0-9]{5}/[0-9]{2}/[0-9]{4}",  # Poland
    r"[A-Z]{2}[ -]?[0-9]{2}[A-Z]?[ /-]?(?:19|20)[0-9]{2}[ -]?[0-9]{7}|[A-Z]{2}[ -]?[0-9]{13}",  # India
    # The United States and Canada: a letter or two and 6 to 14 digits, in the groups that their cards show.
    r"[A-Z]{1,2}[ -]?[0-9]{3}(?:[ -][0-9]{3}){3}|[A-Z][0-9]{3}[ -][0-9]{3}[ -][0-9]{2}[ -][0-9]{3}[ -][0-9]",
    r"[A-Z][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}(?:[ -][0-9]{2})?|[A-Z][0-9]{4}[ -][0-9]{5}[ -][0-9]{5}",
    r"[A-Z][0-9]{4}[ -][0-9]{6}[ -][0-9]{2}|[A-Z][0-9]{2}[ -][0-9]{2}[ -][0-9]{4}|[A-Z]{1,2}[0-9]{6,14}",
    r"[0-9]{2}[A-Z]{3}[0-9]{5}|[0-9]{3}[A-Z]{2}[0-9]{4}|[A-Z]{3}[0-9]{6}|[A-Z]{2}[0-9]{6}[A-Z]",
    r"NHL[0-9]{8}|WDL[0-9A-Z]{9}|[A-Z*]{7}[0-9]{3}[A-Z0-9]{2}",
)
#: What many other numbers look like too.
_COMMON = (
    r"[0-9]{2}(?:[ .-]?[0-9]{2}){2}[ .-]?[0-9]{6}",  # France, until 2013: 12 digits; Japan and China have as many
    r"[0-9]{4}(?:[ -][0-9]{4}){2}",
    r"[0-9]{3}(?:[ .-][0-9]{3}){2}(?:[ .-][0-9]{1,3})?|[0-9]{2} [0-9]{3} [0-9]{3}|[0-9]{2}-[0-9]{3}-[0-9]{4}",
    r"[0-9]{4}-[0-9]{2}-[0-9]{4}|[0-9]{4,5}(?:[ .][0-9]{3}){2}|[0-9]{10}[ -][0-9]{1}|[0-9]{9}[ -/][0-9]{2}",
    r"[0-9]{17}[0-9X]|[0-9]{7,12}|[0-9]{8}-?[A-Z]",  # Spain has the number of the identity card
)
_EITHER_CASE = "(?i:{})"
_END = r"(?![A-Za-z0-9])"

DISTINCT = re.compile(f"(?:{_EITHER_CASE.format('|'.join(_DISTINCT))}){_END}")
"""Numbers of a form that hardly anything else has."""
PUBLISHED = re.compile(f"(?:{_EITHER_CASE.format('|'.join((*_DISTINCT, *_COMMON)))}){_END}")
"""Numbers of a published form."""


def brazilian(digits: str) -> bool:
    """Tell whether 11 digits have the two check digits of a CNH."""
    if len(digits) != 11 or not digits.isdigit() or len(set(digits)) == 1:
        return False
    numbers = list(map(int, digits))
    first = sum(number * weight for number, weight in zip(numbers, range(9, 0, -1), strict=False)) % 11
    second = sum(number * weight for number, weight in zip(numbers, range(1, 10), strict=False)) % 11
    # A first digit of ten is written 0 and taken off the second.
    less = 2 if first > 9 else 0
    first = 0 if first > 9 else first
    second = 0 if second > 9 else second - less + (11 if second - less < 0 else 0)
    return numbers[9:] == [first, second]
