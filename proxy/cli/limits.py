"""`lockgate limits`: shows what is used of limits and budgets, and forgets it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from proxy.cli import config_option, json_option, opening
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.counters import Status, Store


@click.group()
def limits() -> None:
    """Show or reset what is used of limits and budgets."""


@limits.command()
@click.argument("key")
@config_option
@json_option
def show(key: str, path: Path | None, as_json: bool) -> None:
    """Show each bucket of KEY: the id of a key, a token's subject, or the name of a team, a model or an address."""
    with _opened(path) as store:
        rows = [_shown(status) for status in _of(store, key)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("Nothing is used.", err=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = ("bucket", "used", "limit", "left", "ends")
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text("–" if row[column] is None else str(row[column])) for column in columns))
    # A pipe has no width: there a row stays on its line.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


@limits.command()
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Reset every bucket there is.")
@config_option
def reset(key: str | None, everything: bool, path: Path | None) -> None:
    """Forget what KEY has used, money too: the window of a budget begins anew. KEY is as for `show`."""
    if (key is None) is not everything:
        raise click.UsageError("Which? Give a KEY, or --all.")
    from proxy.cli.administration import audit

    with _opened(path) as store:
        statuses = store.read() if key is None else _of(store, key)
        audit(opening.read(path), "limits.reset", of=key, buckets=len(statuses))
        count = store.reset([status.name for status in statuses])
    click.echo(f"{count} {'bucket' if count == 1 else 'buckets'} reset.")


@contextmanager
def _opened(path: Path | None) -> Iterator[Store]:
    from proxy.counters import Unavailable, open_store

    settings = opening.read(path)
    with opening.told(), closing(open_store(settings)) as store:
        try:
            yield store
        except Unavailable as failure:
            raise ConfigError([str(failure)]) from failure


def _of(store: Store, key: str) -> list[Status]:
    """Return the buckets whose scope names `key`: `…/key=KEY+model=…`."""
    value = quote(key, safe=":*.")
    return [status for status in store.read("=" + value) if value in map(_value, _whose(status.name).split("+"))]


def _whose(name: str) -> str:
    return (name.split("/", 3) + ["", "", ""])[2]


def _value(part: str) -> str:
    return part.partition("=")[2]


def _shown(status: Status) -> dict[str, Any]:
    most = status.burst or status.limit
    money = status.kind == "window"
    figures: dict[str, float | None] = {
        "used": status.used,
        "limit": status.limit,
        "left": None if most is None else max(0, most - status.used),
    }
    if money:
        figures = {name: value if value is None else value / 1e6 for name, value in figures.items()}
    ends = None if status.ends is None else datetime.fromtimestamp(status.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = status.name.encode("utf-8", "replace").decode()
    return {"bucket": name, "kind": status.kind, "unit": "USD" if money else None, **figures, "ends": ends}
