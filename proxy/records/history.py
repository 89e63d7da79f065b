"""What was asked lately: from the ledger, or from this host's journal while the ledger cannot be reached."""

from __future__ import annotations

import base64
import binascii
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select, tuple_

from proxy.errors import Reject
from proxy.records.database import Database
from proxy.records.reading import Records, alive, files
from proxy.records.rows import Row, row
from proxy.records.tables import requests

log = logging.getLogger("lockgate")

#: How much of the journal's end is read, in bytes, and for how long what was read serves all: it takes half a second.
JOURNAL_BYTES, KEPT_S = 8 << 20, 5.0
#: How long the ledger is left alone after a failure.
REST_S = 10.0
LEDGER, JOURNAL = "ledger", "journal"
#: The columns of a row, as plain texts.
COLUMNS = tuple(str(column.name) for column in requests.c)
#: The routes of the history itself, of which nobody wants one.
OWN_PATHS = ("/v1/requests", "/requests")


@dataclass(frozen=True, slots=True)
class Search:
    """Which requests: `equal` by column, `since` and `until` (seconds since 1970), a part of the user agent's text."""

    equal: dict[str, Any] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None
    agent: str | None = None
    own_paths: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of the ledger, newest first; `cursor` leads to the next page, `None` behind the last."""

    rows: list[Row]
    cursor: str | None
    source: str


class History:
    """Pages of requests. `database` opens the ledger; it is asked for at each use, so that it may fail."""

    def __init__(self, database: Callable[[], Database], journal: Path) -> None:
        self._database = database
        self._journal = journal
        self._again = 0.0
        self._turn = threading.Lock()
        self._kept: list[Row] = []
        self._kept_until = 0.0

    def page(self, search: Search, limit: int, cursor: str | None = None) -> Page:
        """Return at most `limit` requests behind `cursor`; raises `Reject` for one that no page gave."""
        before = None if cursor is None else _place(cursor)
        if time.monotonic() >= self._again:
            try:
                page = _page(self._from_ledger(search, limit + 1, before), limit, LEDGER)
                self._kept, self._kept_until = [], 0.0
                return page
            except Database.failures as failure:
                self._again = time.monotonic() + REST_S
                log.warning("history: the ledger cannot be read: %s", type(failure).__name__)
        return _page(self._from_journal(search, limit + 1, before), limit, JOURNAL)

    def _from_ledger(self, search: Search, limit: int, before: tuple[float, str] | None) -> list[Row]:
        columns = requests.c
        query = select(requests).order_by(columns.time.desc(), columns.key.desc()).limit(limit)
        for name, value in search.equal.items():
            query = query.where(columns[name] == value)
        if search.since is not None:
            query = query.where(columns.time >= search.since)
        if search.until is not None:
            query = query.where(columns.time < search.until)
        if search.agent is not None:
            query = query.where(columns.agent.contains(search.agent, autoescape=True))
        if not search.own_paths:
            query = query.where(columns.path.not_in(OWN_PATHS))
        if before is not None:
            query = query.where(tuple_(columns.time, columns.key) < before)
        with self._database().read() as connection:
            return [dict(zip(COLUMNS, found, strict=True)) for found in connection.execute(query)]

    def _from_journal(self, search: Search, limit: int, before: tuple[float, str] | None) -> list[Row]:
        found = [
            one
            for one in self._kept_rows()
            if _fits(one, search) and (before is None or (one["time"], one["key"]) < before)
        ]
        return sorted(found, key=lambda one: (one["time"], one["key"]), reverse=True)[:limit]

    def _kept_rows(self) -> list[Row]:
        with self._turn:
            if time.monotonic() >= self._kept_until:
                self._kept = list(self._journalled())
                self._kept_until = time.monotonic() + KEPT_S
            return self._kept

    def _journalled(self) -> Iterator[Row]:
        left = JOURNAL_BYTES
        for path in reversed(files(self._journal)):
            try:
                size = path.stat().st_size
                dead = not alive(path)
                records = Records(path, _line_start(path, size - left))
                ended = records.read(1 << 30)
            except FileNotFoundError:
                continue
            yield from (row(record, "") for record in (*ended, *(records.rest() if dead else ())))
            left -= size
            if left <= 0:
                return


def _fits(one: Row, search: Search) -> bool:
    return (
        all(one[name] == value for name, value in search.equal.items())
        and (search.since is None or one["time"] >= search.since)
        and (search.until is None or one["time"] < search.until)
        and (search.agent is None or search.agent in (one["agent"] or ""))
        and (search.own_paths or one["path"] not in OWN_PATHS)
    )


def _line_start(path: Path, offset: int) -> int:
    """Return where the first whole line behind `offset` begins."""
    if offset <= 0:
        return 0
    with path.open("rb") as file:
        file.seek(offset - 1)
        file.readline()
        return file.tell()


def _page(found: list[Row], limit: int, source: str) -> Page:
    shown = found[:limit]
    place = [shown[-1]["time"], shown[-1]["key"]] if len(found) > limit else None
    cursor = base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=") if place else None
    return Page(shown, cursor, source)


def _place(cursor: str) -> tuple[float, str]:
    try:
        when, key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(key, str) and key.isprintable() and type(when) in (int, float) and math.isfinite(when):
            return float(when), key
    except (ValueError, TypeError, OverflowError, binascii.Error):
        pass
    raise Reject(400, "invalid_cursor", "The cursor is not one that a page gave as `next_cursor`.", param="after")


def told(one: Row) -> dict[str, Any]:
    """Return a row as its caller is shown it: `cost` in micro-dollars, times in seconds."""
    prompt, completion = one["prompt_tokens"], one["completion_tokens"]
    return {
        "id": one["id"],
        "object": "request",
        "created": int(one["time"]),
        "path": one["path"],
        "model": one["model"],
        "status": one["status"],
        "state": one["state"],
        "error": one["code"],
        "streamed": bool(one["stream"]),
        "user_agent": one["agent"],
        "usage": None
        if prompt is None or completion is None
        else {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "cached_tokens": one["cached_tokens"],
            "reasoning_tokens": one["reasoning_tokens"],
        },
        "cost": one["cost"],
        "estimated": bool(one["estimated"]),
        "duration": one["duration_s"],
    }
