"""Teams: what the keys and tokens of one have in common, from the configuration or the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, insert, select, update

from proxy.access.keys import next_version, printable
from proxy.records.tables import keys, teams

if TYPE_CHECKING:
    from proxy.records.snapshot import Snapshot
    from proxy.settings import Settings, TeamSettings


@dataclass(frozen=True, slots=True)
class Team:
    """A team. `grants` bound what its keys may use; `limits` are those of its keys that have none of their own."""

    name: str
    grants: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


class Teams:
    """The teams that one worker knows, from memory: those of the configuration, then those of the database.

    Of two teams with one name the configuration's counts, and the other is as if it were not there.
    """

    def __init__(self, configured: Mapping[str, TeamSettings], snapshot: Snapshot) -> None:
        self._configured = {name: Team(name, own.grants, own.limits) for name, own in configured.items()}
        self._snapshot = snapshot

    def get(self, name: str) -> Team | None:
        """Return the team of this name, `None` where there is none.

        Raises `Reject` (503) where only the database could tell and has not been read for too long.
        """
        return self._configured.get(name) or self._snapshot.team(name)


def create(
    connection: Connection,
    name: str,
    *,
    note: str | None = None,
    grants: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> Team:
    """Make a team, or make a deleted one again. `connection` is one of `Database.write`.

    Raises `ValueError` where there is one of this name, and for a name or a note that cannot be shown.
    """
    printable(name=name, note=note)
    found = connection.execute(select(teams.c.removed).where(teams.c.name == name)).one_or_none()
    if found is not None and found.removed is None:
        raise ValueError(f"there is a team {name!r} already")
    row = {"note": note, "grants": dict(grants or {}), "limits": dict(limits or {}), "created": clock()}
    row |= {"removed": None, "version": next_version(connection)}
    made = insert(teams).values(name=name) if found is None else update(teams).where(teams.c.name == name)
    return _team(connection.execute(made.values(**row).returning(*teams.c)).one())


def read_all(connection: Connection) -> list[Team]:
    """Return the teams of the database, by name."""
    return [_team(row) for row in connection.execute(select(teams).where(teams.c.removed.is_(None)).order_by("name"))]


def read(connection: Connection, name: str) -> Team:
    """Return one team of the database; raises `KeyError` if it is unknown."""
    found = connection.execute(select(teams).where(teams.c.name == name, teams.c.removed.is_(None))).one_or_none()
    if found is None:
        raise KeyError(name)
    return _team(found)


def change(connection: Connection, name: str, **changes: Any) -> Team:
    """Change note, grants or limits; every worker knows within 2 s. Raises `KeyError` if the team is unknown."""
    read(connection, name)
    printable(note=changes.get("note"))
    changed = update(teams).where(teams.c.name == name).values(**changes, version=next_version(connection))
    return _team(connection.execute(changed.returning(*teams.c)).one())


def remove(connection: Connection, name: str, *, clock: Callable[[], float] = time.time) -> Team:
    """Delete a team: its keys are refused from then on. Raises `KeyError` if it is unknown."""
    return change(connection, name, removed=clock())


def key_counts(connection: Connection) -> dict[str, int]:
    """Return how many keys that are not revoked each team has; teams without any are left out."""
    counted = select(keys.c.team, func.count()).where(keys.c.revoked.is_(None), keys.c.team.is_not(None))
    return {str(team): int(count) for team, count in connection.execute(counted.group_by(keys.c.team))}


def names(settings: Settings, connection: Connection) -> set[str]:
    """Return the names of all teams there are."""
    return settings.teams.keys() | set(
        connection.execute(select(teams.c.name).where(teams.c.removed.is_(None))).scalars()
    )


def _team(row: Row[Any]) -> Team:
    return Team(row.name, row.grants, row.limits, row.note)
