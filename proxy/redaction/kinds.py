"""The kinds of values that are looked for, what can be done with each, and a finding of one."""

from __future__ import annotations

from typing import Literal, NamedTuple

COUNTRIES = ("us", "uk", "de", "fr", "es", "it", "nl", "pl", "br", "in")
IDS = tuple(f"national_id_{country}" for country in COUNTRIES)

LABELS = {
    "email": "EMAIL",
    "phone": "PHONE",
    "card": "CARD",
    "iban": "IBAN",
    "ip": "IP",
    "url_credentials": "LOGIN",
    "birth_date": "BIRTHDATE",
    "passport": "PASSPORT",
    "driving_licence": "LICENCE",
    "secret": "SECRET",
    **{kind: "ID" + kind[-2:].upper() for kind in IDS},
}
"""The kinds that need no configuration, each with what its placeholders begin with."""

NAMED = {"person": "PERSON", "place": "PLACE", "organisation": "ORGANISATION"}
"""The kinds that a named-entity model finds."""

LITERAL = "LITERAL"
"""What the placeholder begins with that stands for a caller's own text in the shape of a placeholder."""

Action = Literal["restore", "mask", "block", "observe", "off"]
UP: tuple[Action, ...] = ("restore", "mask", "block", "observe", "off")
DOWN: tuple[Action, ...] = ("mask", "block", "observe", "off")


class Finding(NamedTuple):
    """A value of a kind, at `text[start:end]`; of two that overlap the one of the lower `rank` holds."""

    start: int
    end: int
    kind: str
    rank: int = 5


REASONS = {
    "email": "an address with a domain",
    "phone": "valid in a country's plan of numbers, by its writing or words beside it",
    "card": "an issuer's range and a right Luhn check digit",
    "iban": "a country's length and right check digits (mod 97)",
    "ip": "an address, and no version or section number by the words before it",
    "url_credentials": "a name and a password within a URL",
    "birth_date": "a date beside words that say so",
    "passport": "a number beside words that say so",
    "driving_licence": "a number beside words that say so",
    "secret": "the published shape of a key, or a random value after a telling name",
    "person": "the model for names",
    "place": "the model for names",
    "organisation": "the model for names",
    **dict.fromkeys(IDS, "right check digits or ranges, and its writing or words beside it"),
}
"""What told a value of each kind, for people to read."""
