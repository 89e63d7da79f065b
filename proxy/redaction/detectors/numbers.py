"""Numbers in groups of digits: payment cards, national numbers with check digits, and what else a run may be."""

from __future__ import annotations

import re
from collections.abc import Callable

from stdnum import luhn, verhoeff
from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.us import ssn

from proxy.redaction.detectors import addresses, phones
from proxy.redaction.scan import Scan

RUN = r"[0-9](?:[ ./()\-]{0,2}[0-9]){6,}"
"""Seven digits or more with little between them: what any number of these detectors has."""

FAR = 400
"""How far before a number with check digits a word may stand that tells what it is."""
NEAR = 60
"""How far behind any number it may stand, and before one that has no check digits."""

_DIGITS = re.compile(r"[0-9]+")

#: First digits of cards, from issuers' published ranges: how many digits are compared, lowest, highest, lengths.
_ISSUERS = (
    (1, 4, 4, (13, 16, 19)),  # Visa
    (2, 51, 55, (16,)),  # Mastercard
    (4, 2221, 2720, (16,)),
    (2, 34, 34, (15,)),  # American Express
    (2, 37, 37, (15,)),
    (3, 300, 305, (14, 16, 17, 18, 19)),  # Diners Club
    (4, 3095, 3095, (14, 16, 17, 18, 19)),
    (2, 36, 36, (14, 16, 17, 18, 19)),
    (2, 38, 39, (14, 16, 17, 18, 19)),
    (4, 6011, 6011, (16, 17, 18, 19)),  # Discover
    (3, 644, 649, (16, 17, 18, 19)),
    (2, 65, 65, (16, 17, 18, 19)),
    (4, 3528, 3589, (16, 17, 18, 19)),  # JCB
    (2, 62, 62, (16, 17, 18, 19)),  # UnionPay
    (2, 50, 50, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (2, 56, 58, (12, 13, 14, 15, 16, 17, 18, 19)),
    (6, 636297, 636297, (16,)),  # Elo; its others are within Visa's, Maestro's and Discover's
    (6, 636368, 636368, (16,)),
    (6, 606282, 606282, (16,)),  # Hipercard
    (3, 637, 639, (16,)),  # InstaPayment, and Hipercard
    (4, 6304, 6304, (12, 13, 14, 15, 16, 17, 18, 19)),
    (4, 6759, 6763, (12, 13, 14, 15, 16, 17, 18, 19)),
    (4, 2200, 2204, (16, 17, 18, 19)),  # Mir
    (4, 5082, 5085, (16,)),  # RuPay
    (4, 6069, 6085, (16,)),
    (4, 8172, 8201, (16,)),
)
_CARD_GROUPS = frozenset(((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 4, 4, 4, 3), (4, 4, 4, 3), (4, 4, 4, 1)))

Valid = Callable[[str], bool]

#: By sizes of groups: kind, check, rank; and the topic that must be told of, `None` where the writing tells.
_FORMS: dict[tuple[int, ...], tuple[tuple[str, Valid, str | None], ...]] = {
    (3, 2, 4): (("us", ssn.is_valid, None),),
    (9,): (("us", ssn.is_valid, "us"), ("nl", bsn.is_valid, "nl")),
    (3, 3, 3): (("nl", bsn.is_valid, "nl"),),
    (4, 2, 3): (("nl", bsn.is_valid, None),),
    (10,): (("uk", nhs.is_valid, "uk"),),
    (3, 3, 4): (("uk", nhs.is_valid, "uk"),),
    (11,): (("de", idnr.is_valid, "de"), ("pl", pesel.is_valid, "pl"), ("br", cpf.is_valid, "br")),
    (2, 3, 3, 3): (("de", idnr.is_valid, None),),
    (3, 3, 3, 2): (("br", cpf.is_valid, None),),
    (9, 2): (("br", cpf.is_valid, "br"),),
    (6, 5): (("pl", pesel.is_valid, "pl"),),
    (12,): (("in", lambda number: number[0] not in "01" and verhoeff.is_valid(number), "in"),),
    (4, 4, 4): (("in", lambda number: number[0] not in "01" and verhoeff.is_valid(number), "in"),),
    (15,): (("fr", nir.is_valid, None),),
    (1, 2, 2, 2, 3, 3, 2): (("fr", nir.is_valid, None),),
    (13, 2): (("fr", nir.is_valid, None),),
}
_LONGEST = max(map(len, _FORMS))
_SEPARATORS = frozenset((" ", "-", ".", "/"))
#: Written with two kinds of separators.
_MIXED = frozenset(((3, 3, 3, 2), (4, 2, 3), (9, 2), (13, 2)))

_SPANISH = re.compile(r"[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}[- ]?[A-Za-z](?![A-Za-z0-9])")
_FOREIGNER = re.compile(r"[XYZxyz][- ]?[0-9]{7}[- ]?[A-Za-z](?![A-Za-z0-9])")
_CORSICAN = re.compile(r"[12] ?[0-9]{2} ?[0-9]{2} ?2 ?[ABab] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?![A-Za-z0-9])")


def inspect(scan: Scan, start: int, end: int) -> None:
    """Look at a run of digits at `text[start:end]`, whatever is inside it."""
    text = scan.text
    groups = [match.span() for match in _DIGITS.finditer(text, start, end)]
    if text[end : end + 2].strip("- ")[:1].isalpha() or text[max(0, start - 2) : start].strip("- ")[-1:].isalpha():
        _letters(scan, start, groups)
    if len(groups) > 3:
        addresses.inspect_v4(scan, start, end)
    at = 0
    while at < len(groups):
        if _edge(text, groups[at][0], before=True):
            taken = _card(scan, groups, at) or _numbered(scan, groups, at)
            if taken:
                at += taken
                continue
        at += 1
    phones.inspect(scan, groups)


def _edge(text: str, at: int, before: bool) -> bool:
    """Tell whether a number may begin, or end, here: not inside a word, a fraction or a longer number."""
    if before:
        beside, beyond = text[at - 1 : at] if at else "", text[max(0, at - 3) : max(0, at - 1)]
        if beside == "," and beyond.endswith("0") and not beyond[:-1].isdigit():
            return False  # 0,123 as most of Europe writes it; any other comma may part the cells of a row
        fraction = beside == "." and beyond[-1:].isdigit()
    else:
        beside, beyond = text[at : at + 1], text[at + 1 : at + 2]
        fraction = beside == "." and beyond.isdigit()
    return not fraction and not (beside.isascii() and (beside.isalnum() or beside == "_"))


def _card(scan: Scan, groups: list[tuple[int, int]], at: int) -> int:
    text = scan.text
    sizes: list[int] = []
    digits = ""
    separator = ""
    best = 0
    for index in range(at, min(at + 5, len(groups))):
        start, stop = groups[index]
        if sizes:
            between = text[groups[index - 1][1] : start]
            if between not in (" ", "-", "  ") or (separator and between != separator):
                break
            separator = between
        sizes.append(stop - start)
        digits += text[start:stop]
        if len(digits) > 19:
            break
        if len(digits) >= 12 and (len(sizes) == 1 or tuple(sizes) in _CARD_GROUPS):
            if _issued(digits) and luhn.is_valid(digits) and _edge(text, stop, before=False):
                # Numbers of companies and devices have the same check digit and these lengths: without groups a word
                # must tell, unless it is one of the two lengths that nearly all cards have.
                usual = len(digits) == 16 or (len(digits) == 15 and digits[0] == "3")
                grouped = len(sizes) > 1 and len(digits) > 13
                if usual or grouped or scan.distance("card", groups[at][0], stop, 60, 30) is not None:
                    best = len(sizes)
    if best:
        scan.add(groups[at][0], groups[at + best - 1][1], "card", 2)
    return best


def _issued(digits: str) -> bool:
    return any(low <= int(digits[:count]) <= high and len(digits) in lengths for count, low, high, lengths in _ISSUERS)


def _numbered(scan: Scan, groups: list[tuple[int, int]], at: int) -> int:
    text = scan.text
    sizes: tuple[int, ...] = ()
    separators: set[str] = set()
    forms = []
    for index in range(at, min(at + _LONGEST, len(groups))):
        if sizes:
            separators.add(text[groups[index - 1][1] : groups[index][0]])
            if not separators <= _SEPARATORS:
                break
        sizes += (groups[index][1] - groups[index][0],)
        if sizes in _FORMS and (len(separators) < 2 or sizes in _MIXED):
            forms.append(sizes)
    # The longest that fits: 250.225.723 may be the beginning of 250.225.723-97.
    for form in reversed(forms):
        if _national(scan, groups[at][0], groups[at + len(form) - 1][1], _FORMS[form]):
            return len(form)
    return 0


def _national(scan: Scan, start: int, end: int, forms: tuple[tuple[str, Valid, str | None], ...]) -> bool:
    text = scan.text
    if not _edge(text, end, before=False) or text[start - 1 : start] == "+":
        return False
    if text[end : end + 1] in ("-", "/") and text[end + 1 : end + 2].isdigit():
        return False
    digits = "".join(_DIGITS.findall(text, start, end))
    nearest: tuple[int, str] | None = None
    for country, valid, topic in forms:
        if "national_id_" + country not in scan.kinds or not (topic is None or scan.tells(topic)):
            continue
        if valid(digits):
            away = 0 if topic is None else scan.distance(topic, start, end, NEAR if topic == "us" else FAR, NEAR // 2)
            if away is not None and (nearest is None or away < nearest[0]):
                nearest = away, country
    if nearest is None:
        return False
    scan.add(start, end, "national_id_" + nearest[1], 3)
    return True


def _letters(scan: Scan, start: int, groups: list[tuple[int, int]]) -> None:
    """Numbers that have letters at an end or inside."""
    text = scan.text
    for index, (begin, stop) in enumerate(groups):
        # Its letter stands right behind the run, or behind one more separator.
        if index >= len(groups) - 1 or text[stop : stop + 1].isalpha():
            for first in (index, index - 2):
                if first >= 0:
                    match = _SPANISH.match(text, groups[first][0])
                    if match and _edge(text, match.start(), before=True) and dni.is_valid(re.sub("[ .]", "", match[0])):
                        scan.add(match.start(), match.end(), "national_id_es", 3)
        if stop - begin == 7:
            for first in (begin - 1, begin - 2):
                match = _FOREIGNER.match(text, first) if first >= 0 else None
                if match and _edge(text, match.start(), before=True) and nie.is_valid(match[0].replace(" ", "")):
                    scan.add(match.start(), match.end(), "national_id_es", 3)
    if text[max(0, start - 2) : start].strip(" ")[-1:] in ("A", "B", "a", "b"):
        for first in range(max(0, start - 12), max(0, start - 6)):
            match = _CORSICAN.match(text, first)
            if match and _edge(text, first, before=True) and nir.is_valid(match[0]):
                scan.add(first, match.end(), "national_id_fr", 3)
                return
