"""From the journal's records to the ledger's rows: whatever a record holds becomes what both databases can keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from sqlalchemy import JSON, BigInteger, Boolean, Double, String

from proxy.records.reading import Record
from proxy.records.tables import TOKENS, requests, usage

LARGEST = (1 << 63) - 1
HOUR_S, DAY_S = 3600, 86400
#: What is added up in the table of usage. SQLAlchemy's names are a kind of text of their own, which orjson refuses.
SUMS = tuple(str(column.name) for column in usage.c if not column.primary_key)

Row = dict[str, Any]


def row(record: Record, host: str) -> Row:
    """Return a record as a row of `requests`.

    A value of the wrong type becomes `NULL`, a text is cut to its column, characters that cannot be printed are
    replaced: PostgreSQL refuses some of them, and a refused row would hold up all that come after it.
    """
    used = record["usage"] if isinstance(record["usage"], dict) else {}
    said = record | {name: used.get(name.removesuffix("_tokens")) for name in TOKENS} | {"host": host}
    made = {name: None if (value := said.get(name)) is None else fit(value) for name, fit in _FITS}
    made["time"] = made["time"] or made["ended"] or 0.0
    return made


def sums(rows: Iterable[Row]) -> list[Row]:
    """Return what the rows add up to, as rows of `usage`.

    A model that nobody answered for is not named: callers can ask for any number of them.
    """
    added: dict[tuple[Any, ...], dict[str, int]] = {}
    for one in rows:
        model = one["model"] if one["target"] or one["status"] == 200 else None
        counts = {name: one[name] or 0 for name in (*TOKENS, "cost")} | {
            "requests": 1,
            "errors": int(one["code"] is not None),
            "lost": int(one["state"] == "lost"),
            "estimated": int(bool(one["estimated"])),
        }
        for span, length_s in (("hour", HOUR_S), ("day", DAY_S)):
            start = int(one["time"] // length_s * length_s)
            key = (span, start, one["team"] or "", one["subject"] or "", model or "")
            total = added.setdefault(key, dict.fromkeys(SUMS, 0))
            for name, count in counts.items():
                total[name] += count
    names = ("span", "start", "team", "subject", "model")
    # In one order, so that writers of several hosts lock rows in the same.
    return [dict(zip(names, key, strict=True)) | added[key] for key in sorted(added)]


def printable(text: str) -> str:
    """Return the text with what no terminal and no database should be given replaced."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _fit(type: Any) -> Callable[[Any], Any]:
    """Return what makes a column's value of any that is not `None`."""
    if isinstance(type, JSON):
        return _plain
    if isinstance(type, String):
        longest = type.length
        return lambda value: printable(value[:longest]) if isinstance(value, str) else None
    if isinstance(type, Boolean):
        return lambda value: value if isinstance(value, bool) else None
    if isinstance(type, BigInteger):
        return lambda value: max(-LARGEST, min(LARGEST, int(value))) if _is_number(value) else None
    assert isinstance(type, Double)
    return lambda value: float(value) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """Return what came from JSON with printable texts only."""
    whole = orjson.dumps(value)
    return value if whole.isascii() and b"\\u" not in whole and b"\x7f" not in whole else _replaced(value)


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): _replaced(item) for key, item in value.items()}
    return [_replaced(item) for item in value] if isinstance(value, list) else value


_FITS = tuple((str(column.name), _fit(column.type)) for column in requests.c)
