"""What the admin application tells of the ledger: the answers of `lockgate usage` and `lockgate requests` as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from proxy.cli import times
from proxy.errors import Reject
from proxy.records.database import Database
from proxy.records.history import History, Search
from proxy.records.ledger import BY, used
from proxy.records.rows import DAY_S

#: The query's names and the ledger's columns.
EQUAL = {
    "id": "id",
    "key": "subject",
    "team": "team",
    "model": "model",
    "target": "target",
    "status": "status",
    "error": "code",
    "state": "state",
    "client": "client",
}
MOST = 1000


def usage(database: Database, keep_days: int, query: Mapping[str, str]) -> dict[str, Any]:
    """Return sums `by` (of `team,model` unless it says) `since` (`7d`) and `until`, of one `team`, `key` or `model`.

    Raises `Reject` (400) for a query that cannot be answered, and one of `Database.failures`.
    """
    _known(query, ("by", "since", "until", "team", "key", "model"))
    by = [name for name in query.get("by", "team,model").split(",") if name]
    if not set(by) <= BY.keys() or len(set(by)) < len(by):
        raise _wrong("by", f"must be some of {', '.join(BY)}, with commas")
    equal = {name: query[name] for name in ("team", "key", "model") if name in query}
    since = _moment(query, "since", "7d")
    assert since is not None
    with database.read() as connection:
        try:
            rows = used(connection, by, since, _moment(query, "until"), hourly_s=keep_days * DAY_S, equal=equal)
        except ValueError as problem:
            raise _wrong("by", str(problem)) from None
    return {"object": "list", "data": rows}


def requests(history: History, query: Mapping[str, str]) -> dict[str, Any]:
    """Return `limit` requests (100) behind the cursor `after`, newest first, as the ledger has them.

    The others of the query choose: `EQUAL`, `since`, `until`, and a part of the user agent, `agent`. Raises `Reject`
    (400) for a query that cannot be answered.
    """
    _known(query, (*EQUAL, "since", "until", "agent", "limit", "after"))
    limit = _whole(query, "limit", "100")
    if not 1 <= limit <= MOST:
        raise _wrong("limit", f"must be a whole number from 1 to {MOST}")
    equal: dict[str, Any] = {column: query[name] for name, column in EQUAL.items() if name in query}
    if "status" in query:
        equal["status"] = _whole(query, "status", "")
    search = Search(equal, _moment(query, "since"), _moment(query, "until"), query.get("agent"))
    page = history.page(search, limit, query.get("after"))
    more = page.cursor is not None
    return {"object": "list", "data": page.rows, "has_more": more, "next_cursor": page.cursor, "source": page.source}


def _known(query: Mapping[str, str], names: tuple[str, ...]) -> None:
    unknown = sorted(query.keys() - set(names))
    if unknown:
        raise _wrong(unknown[0][:64], f"is not known here; known: {', '.join(names)}")
    for name, value in query.items():
        # No record has such a text, and PostgreSQL fails where it is asked for some of them.
        if not value.isprintable():
            raise _wrong(name, "must be of printable characters")


def _moment(query: Mapping[str, str], name: str, default: str | None = None) -> float | None:
    value = query.get(name, default)
    try:
        return None if value is None else times.ago(value)
    except click.BadParameter:
        raise _wrong(name, "must be a span such as 7d or 24h, or a date such as 2030-01-31") from None


def _whole(query: Mapping[str, str], name: str, default: str) -> int:
    value = query.get(name, default)
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise _wrong(name, "must be a whole number")
    return int(value)


def _wrong(name: str, what: str) -> Reject:
    return Reject(400, "invalid_query", f"`{name}` {what}.", param=name)
