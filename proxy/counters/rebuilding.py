"""Counts the windows of all budgets again, from what journal and ledger say of each exchange."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from proxy.access import keys, teams
from proxy.access.grants import matches
from proxy.counters.buckets import Window
from proxy.counters.windows import window as around
from proxy.records.reading import Records, files
from proxy.records.tables import requests

if TYPE_CHECKING:
    from proxy.catalog import Catalog
    from proxy.records.database import Database
    from proxy.settings import Settings

#: No window is longer: what lies further back is in none of today's.
LONGEST_S = 32 * 86400
COLUMNS = ("key", "time", "subject", "team", "model", "client", "cost")


def spent(settings: Settings, catalog: Catalog, database: Database, now: float | None = None) -> Counter[Any]:
    """Return the micro-dollars that were spent, by window and the time at which it begins.

    Which windows an exchange counts in the plugins say that have `windows` (see `plugins/budget.py`). One that has not
    ended counts with what was set aside for it.
    """
    since = (time.time() if now is None else now) - LONGEST_S
    budgets = {
        name: catalog.plugins[own.use].cls(own.options)
        for name, own in settings.plugins.items()
        if hasattr(catalog.plugins[own.use].cls, "windows")
    }
    own_budgets = _own_budgets(settings, database)
    sums: Counter[Any] = Counter()
    for record in _records(settings, database, since):
        facts = {
            "subject": record["subject"],
            "team": record["team"],
            "model": _pattern(settings, record["model"]),
            "address": record["client"],
            "budget": own_budgets.get(record["subject"]),
        }
        for name, plugin in budgets.items():
            for bucket in plugin.windows(name, **facts):
                sums[bucket, around(bucket.every, bucket.zone, record["time"])[1]] += record["cost"] or 0
    return sums


def entries(sums: Mapping[tuple[Window, float], int]) -> list[tuple[Window, float, int]]:
    """Return the sums as `Store.restore` takes them."""
    return [(bucket, begins, used) for (bucket, begins), used in sums.items() if used > 0]


def _records(settings: Settings, database: Database, since: float) -> Iterator[dict[str, Any]]:
    """Yield each exchange once: those of this host's journal, then those that are in the ledger alone."""
    seen: set[str] = set()
    for file in files(settings.server.state / "journal"):
        reader = Records(file)
        while some := reader.read():
            yield from _new(some, seen, since)
        yield from _new(reader.rest(), seen, since)
    with database.read() as connection:
        for row in connection.execute(select(*(requests.c[name] for name in COLUMNS)).where(requests.c.time >= since)):
            yield from _new([dict(row._mapping)], seen, since)


def _new(records: list[dict[str, Any]], seen: set[str], since: float) -> Iterator[dict[str, Any]]:
    for record in records:
        if record["key"] not in seen and (record["time"] or 0) >= since:
            seen.add(record["key"])
            yield record


def _own_budgets(settings: Settings, database: Database) -> dict[str | None, Any]:
    """Return the budgets of keys by their ids: their own, or else their team's."""
    with database.read() as connection:
        limits = {team.name: team.limits for team in teams.read_all(connection)}
        limits |= {name: team.limits for name, team in settings.teams.items()}
        return {
            key.id: key.limits.get("budget") or limits.get(key.team or "", {}).get("budget")
            for key in keys.read_all(connection)
        }


def _pattern(settings: Settings, name: str | None) -> str | None:
    """Return the name in the configuration of the model that clients call `name`, as `Gateway.model` finds it."""
    if name is None or name in settings.models:
        return name
    return next((found for found in sorted(settings.models, key=len, reverse=True) if matches(found, name)), None)
