"""What stands for a value while it is away: `[EMAIL_7K2Q9DHT]`, the same for the same value of one tenant."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy.redaction.kinds import LABELS, LITERAL, NAMED

if TYPE_CHECKING:
    from proxy.exchange import Identity

#: No vowels, so that no code is a word, and none of 0, 1 and L, which are read for others.
ALPHABET = "23456789BCDFGHJKMNPQRSTVWXYZ"
LENGTH = 8

_CODE = f"[{ALPHABET}{ALPHABET[8:].lower()}]{{{LENGTH}}}"
_UPPER = f"[{ALPHABET}]{{{LENGTH}}}"


class Placeholders:
    """Makes the placeholders of one tenant. Whoever does not have the key can neither make nor check one."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes, tenant: str) -> None:
        self._key = hmac.digest(key, b"placeholders of " + tenant.encode(errors="surrogatepass"), "sha256")

    def code(self, label: str, value: str) -> str:
        """Return the eight characters that tell a value from others of its label: 38 bits of a keyed hash."""
        digest = hmac.digest(self._key, f"{label}\0{value}".encode(errors="surrogatepass"), "sha256")
        number = int.from_bytes(digest[:8], "big")
        code = ""
        for _ in range(LENGTH):
            number, at = divmod(number, len(ALPHABET))
            code += ALPHABET[at]
        return code


class Known:
    """The values that one exchange may have put back, by label and code; shows nothing of them."""

    __slots__ = ("values", "_placeholders")

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self.values: dict[str, str] = {}

    def name(self, label: str, value: str, restore: bool) -> str:
        """Return `LABEL_CODE` for a value, and remember it if it is to be restored."""
        code = self._placeholders.code(label, value)
        name = f"{label}_{code}"
        if restore:
            # Two values with one code are one in 10^11 pairs; the later one gets another code, and stays restorable.
            while self.values.setdefault(name, value) != value:
                code = self._placeholders.code(label, f"{code} {value}")
                name = f"{label}_{code}"
        return name

    def __bool__(self) -> bool:
        return bool(self.values)

    def __repr__(self) -> str:
        return f"<{len(self.values)} values>"


def tenant(identity: Identity | None) -> str:
    """Return whose placeholders a caller gets: the team's, without a team the caller's own."""
    if identity is None:
        return "nobody"
    return f"subject {identity.subject}" if identity.team is None else f"team {identity.team}"


def all_labels(own: Iterable[str] = ()) -> list[str]:
    """Return what placeholders may begin with: of the kinds there are, and of the operator's `own`."""
    return sorted({*LABELS.values(), *NAMED.values(), *own, LITERAL}, key=lambda label: (-len(label), label))


def pattern(labels: Iterable[str]) -> str:
    r"""Return, for re2 too, all forms in which a placeholder is understood.

    In brackets in any case, with a blank, a dash or `\_` for the underscore, the brackets as `\[…\]`, `【…】` or
    `%5B…%5D`; without brackets only as it was written, letter by letter.
    """
    label = "|".join(labels)
    loose = rf"(?i:{label})(?:\\{{0,2}}_|[- ])(?:{_CODE})"
    return (
        rf"[\[【] ?(?:{loose}) ?[\]】]|\\{{1,2}}\[(?:{loose})\\{{1,2}}\]|%5[Bb](?:{loose})%5[Dd]"
        rf"|\b(?:{label})\\{{0,2}}_(?:{_UPPER})\b"
    )


def normal(token: str) -> str:
    """Return what a token says, whatever its form: `EMAIL_7K2Q9DHT`."""
    plain = token.upper().replace("%5B", "").replace("%5D", "")
    label, code = plain.strip("\\[]【】 ")[:-LENGTH].rstrip("\\_- "), plain.strip("\\[]【】 ")[-LENGTH:]
    return f"{label}_{code}"


def compiled(labels: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of all forms for Python's own engine."""
    return re.compile(pattern(labels), re.ASCII)


def beginnings(labels: Iterable[str]) -> str:
    """Return what matches every unfinished beginning of every form that `pattern` has, at the end of a text."""
    labels = list(labels)
    label = "|".join(labels)
    started = "|".join(_started(label) for label in labels)

    def loose(closing: str) -> str:
        whole = rf"(?i:{label})(?:(?:\\{{0,2}}_|[- ])(?:{_CODE}{closing}|{_part(_CODE)})|\\{{0,2}})"
        return rf"(?:{whole}|(?i:{started}))?"

    forms = (
        rf"[\[【] ?{loose(' ?')}",
        rf"\\{{1,2}}(?:\[{loose(chr(92) * 2 + '{0,2}')})?",
        rf"%(?:5(?:[Bb]{loose('(?:%5?)?')})?)?",
        rf"\b(?:(?:{label})\\{{0,2}}(?:_{_UPPER[:-3]}{{0,{LENGTH}}})?|{started})",
    )
    return rf"(?:{'|'.join(forms)})\Z"


def _part(code: str) -> str:
    """Return what matches fewer characters of a code than it has."""
    return code.replace(f"{{{LENGTH}}}", f"{{0,{LENGTH - 1}}}")


def _started(label: str) -> str:
    """Return what matches a beginning of a label: its first letter, or more."""
    part = ""
    for letter in reversed(label[:-1]):
        part = f"{letter}(?:{part})?" if part else letter
    return part or label
