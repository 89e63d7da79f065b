"""`lockgate contents`: shows and removes the prompts and answers that the plugin `contents` has kept."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli import config_option, opening

if TYPE_CHECKING:
    from proxy.records.contents import ContentStore


@click.group()
def contents() -> None:
    """Show and remove the prompts and answers that were kept."""


@contents.command()
@click.argument("id")
@config_option
def show(path: Path | None, id: str) -> None:
    """Decrypt what was kept of the exchange with this ID, as JSON."""
    from proxy.records.contents import WrongKey

    locked: WrongKey | None = None
    found = []
    stores = _stores(path)
    for store in stores:
        try:
            found = list(store.find(id))
            break
        except WrongKey as problem:
            locked = problem
        except ValueError as problem:
            _fail(str(problem))
    for record in found:
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    if not found:
        _fail(str(locked) if locked else f"nothing is kept of {id!r}" if stores else "no plugin keeps contents here")


@contents.command()
@click.option("--before", type=click.DateTime(["%Y-%m-%d"]), help="Remove the days (UTC) before this one.")
@click.option("--all", "everything", is_flag=True, help="Remove all days, today included.")
@config_option
def purge(path: Path | None, before: datetime | None, everything: bool) -> None:
    """Remove what is older than the configuration says, or than a date, or everything."""
    if before is not None and everything:
        raise click.UsageError("--before and --all exclude each other")
    from proxy.records.contents import ContentStore

    settings = opening.read(path)
    kept = [
        plugin.options["days"] for plugin in settings.plugins.values() if plugin.use == "contents" and plugin.options
    ]
    today = datetime.now(UTC).date()
    if everything:
        last = date.max
    elif before is not None:
        last = before.date()
    elif kept:
        last = today - timedelta(days=max(kept) - 1)
    else:
        raise click.UsageError("no plugin keeps contents here: say --before or --all")
    gone = ContentStore(settings.server.state / "contents", "").purge(last)
    click.echo(f"Removed {', '.join(gone)}." if gone else "There was nothing to remove.")


def _stores(path: Path | None) -> list[ContentStore]:
    from proxy.records.contents import ContentStore

    settings = opening.read(path)
    options = [plugin.options for plugin in settings.plugins.values() if plugin.use == "contents" and plugin.options]
    return [ContentStore(settings.server.state / "contents", each["key"].reveal()) for each in options]


def _fail(problem: str) -> None:
    click.echo(f"lockgate: {problem}", err=True)
    sys.exit(1)
