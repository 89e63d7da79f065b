"""What the ledger says: usage by team, key, model, hour or day."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from proxy.records.rows import DAY_S, HOUR_S, SUMS
from proxy.records.tables import usage

#: What usage is told by, and the column that has it.
BY = {"team": "team", "key": "subject", "model": "model", "hour": "start", "day": "start"}


def used(
    connection: Connection,
    by: Sequence[str],
    since: float,
    until: float | None = None,
    *,
    hourly_s: float,
    equal: Mapping[str, str] | None = None,
    now: float | None = None,
) -> list[dict[str, Any]]:
    """Return the sums from the hour of `since` to `until` (seconds since 1970), one for each group, dearest first.

    `by` and `equal` name some of `BY`. Hours are kept for `hourly_s` seconds: what began before is summed by whole
    days. A sum has what it is by (`hour` and `day` as seconds since 1970), `requests`, `errors`, `lost`, `estimated`
    (how many costs were), tokens by kind, and `cost` in micro-dollars. Raises `ValueError` for hours that are gone.
    """
    now = time.time() if now is None else now
    span, length_s = ("hour", HOUR_S) if since >= now - hourly_s and "day" not in by else ("day", DAY_S)
    if "hour" in by and span == "day":
        raise ValueError("hours are not kept for so long, or cannot be told along with days")
    columns = [usage.c[BY[name]].label(name) for name in by]
    query = select(*columns, *(func.sum(usage.c[name]).label(name) for name in SUMS))
    query = query.where(usage.c.span == span, usage.c.start >= int(since // length_s * length_s))
    if until is not None:
        query = query.where(usage.c.start < until)
    for name, value in (equal or {}).items():
        query = query.where(usage.c[BY[name]] == value)
    times = [usage.c.start for name in by if BY[name] == "start"]
    query = query.group_by(*(usage.c[BY[name]] for name in by)).order_by(*times, func.sum(usage.c.cost).desc())
    rows = [dict(zip((*by, *SUMS), row, strict=True)) for row in connection.execute(query)]
    # PostgreSQL's sums of 64-bit numbers are decimals.
    return [row | {name: int(row[name]) for name in SUMS if row[name] is not None} for row in rows if row["requests"]]
