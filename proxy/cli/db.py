"""`lockgate db`: shows and upgrades the database."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from proxy.cli import config_option, json_option, opening


@click.group()
def db() -> None:
    """Show and upgrade the database of keys, teams and the ledger."""


@db.command()
@config_option
@json_option
def status(path: Path | None, as_json: bool) -> None:
    """Say where the database is and whether it has this version's tables; exit code 1 if not."""
    from proxy.errors import ConfigError
    from proxy.records.database import Database, explained, location, revision
    from proxy.records.tables import HEAD

    settings = opening.read(path)
    facts: dict[str, Any] = {"revision": None, "needed": HEAD}
    with closing(Database(location(settings))) as database:
        facts["database"] = database.store.name
        try:
            with explained(database):
                found = revision(database)
        except ConfigError as failure:
            facts |= {"state": "unusable", "problem": failure.problems[0]}
        else:
            state = "empty" if found is None else "current" if found == HEAD else "old" if found < HEAD else "newer"
            facts |= {"revision": found, "state": state}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        click.echo("\n".join(f"{name:<9} {value}" for name, value in facts.items() if value is not None))
    sys.exit(facts["state"] != "current")


@db.command()
@config_option
@json_option
def upgrade(path: Path | None, as_json: bool) -> None:
    """Bring the database to this version's tables.

    SQLite is also upgraded by a start; PostgreSQL is not, for several hosts may use it: upgrade it once, before the
    first of them starts the new version. Those that still run the old one go on meanwhile.
    """
    from proxy.records.database import upgrade

    settings = opening.read(path)
    with opening.told():
        before, after = upgrade(settings)
    if as_json:
        click.echo(json.dumps({"before": before, "after": after}))
    else:
        click.echo(f"The database is at revision {after}" + ("." if before == after else f", before: {before or '–'}."))
