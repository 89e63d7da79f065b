"""Labelled sentences to measure detectors with, in three sets of like composition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETS = ("first", "second", "third")
COUNTRIES = ("us", "uk", "de", "fr", "es", "it", "nl", "pl", "br", "in")
KINDS = frozenset(
    {"email", "phone", "card", "iban", "ip", "url_credentials", "birth_date", "passport", "driving_licence", "secret"}
    | {f"national_id_{country}" for country in COUNTRIES}
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text and what in it must not leave: spans of (start, end, kind) in code points, ascending, apart."""

    text: str
    spans: tuple[tuple[int, int, str], ...]
    lang: str
    note: str = ""


def load(name: str) -> list[Sentence]:
    """Return the sentences of the set `first`, `second` or `third`; raise ValueError on a label that is none."""
    if name not in SETS:
        raise ValueError(f"no set {name!r}: there are {', '.join(SETS)}")
    lines = (Path(__file__).parent / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [_sentence(json.loads(line), f"{name}.jsonl:{at}") for at, line in enumerate(lines, 1) if line]


def _sentence(row: dict[str, Any], where: str) -> Sentence:
    sentence = Sentence(row["text"], tuple(map(tuple, row["spans"])), row["lang"], row.get("note", ""))
    past = 0
    for start, end, kind in sentence.spans:
        if kind not in KINDS:
            raise ValueError(f"{where}: unknown kind {kind!r}")
        if not past <= start < end <= len(sentence.text):
            raise ValueError(f"{where}: span {start}-{end} overlaps another, is empty or leaves the text")
        past = end
    return sentence
