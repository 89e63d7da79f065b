"""Codes of letters and digits: IBAN, codice fiscale, National Insurance and Permanent Account Numbers."""

from __future__ import annotations

import re
from functools import cache

from stdnum import iban, numdb
from stdnum.it import codicefiscale

from proxy.redaction.scan import Scan

IBAN = r"\b[A-Za-z]{2}[0-9]{2}[ \-]?[A-Za-z0-9]{4}[ \-]?[A-Za-z0-9]{3}"
FISCAL = (
    r"\b[A-Za-z]{3}[ .-]?[A-Za-z]{3}[ .-]?[0-9L-Vl-v]{2}[ .-]?[A-EHLMPR-Ta-ehlmpr-t][ .-]?[0-9L-Vl-v]{2}[ .-]?"
    r"[A-Za-z][ .-]?[0-9L-Vl-v]{3}[ .-]?[A-Za-z]"
)
INSURANCE = (
    r"[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z][A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]"
)
ACCOUNT = r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]"

_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ \-]?[A-Za-z0-9]){11,30}")
_FISCAL = re.compile(FISCAL)
_INSURANCE = re.compile(INSURANCE)
_ACCOUNT = re.compile(ACCOUNT)
#: Never allocated. Source: HMRC's National Insurance Manual, NIM39110.
_NEVER = frozenset(("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"))


def inspect(scan: Scan, start: int) -> int:
    """Look at what may be such a code, at `text[start:]`; return where it ends, or `start`."""
    text = scan.text
    if start and text[start - 1].isascii() and (text[start - 1].isalnum() or text[start - 1] == "_"):
        return start
    return _iban(scan, start) or _fiscal(scan, start) or _insurance(scan, start) or _account(scan, start) or start


def _whole(text: str, end: int) -> bool:
    beside = text[end : end + 1]
    return not (beside.isascii() and (beside.isalnum() or beside == "_"))


def _iban(scan: Scan, start: int) -> int:
    text = scan.text
    match = _IBAN.match(text, start)
    if match is None or not _countries().info(match[0][:2].upper())[0][1]:
        return 0
    # Its country says how long it is; words that follow it do not belong to it.
    for end in range(match.end(), start + 14, -1):
        if text[end - 1] not in " -" and _whole(text, end) and iban.is_valid(text[start:end], check_country=False):
            scan.add(start, end, "iban", 1)
            return end
    return 0


@cache
def _countries() -> numdb.NumDB:
    return numdb.get("iban")


def _fiscal(scan: Scan, start: int) -> int:
    match = _FISCAL.match(scan.text, start)
    if match and _whole(scan.text, match.end()) and codicefiscale.is_valid(re.sub("[ .-]", "", match[0])):
        scan.add(start, match.end(), "national_id_it", 2)
        return match.end()
    return 0


def _insurance(scan: Scan, start: int) -> int:
    match = _INSURANCE.match(scan.text, start)
    if match and _whole(scan.text, match.end()) and match[0][:2].upper() not in _NEVER:
        spoken = (
            match[0].isupper() or match[0].islower() and scan.distance("uk", start, match.end(), 80, 40) is not None
        )
        if spoken:
            scan.add(start, match.end(), "national_id_uk", 3)
            return match.end()
    return 0


def _account(scan: Scan, start: int) -> int:
    match = _ACCOUNT.match(scan.text, start)
    if match and _whole(scan.text, match.end()):
        scan.add(start, match.end(), "national_id_in", 3)
        return match.end()
    return 0
