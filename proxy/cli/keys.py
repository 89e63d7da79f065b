"""`lockgate keys`: makes, lists and revokes API keys."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy import config, serving
from proxy.cli import config_option, json_option
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.keys import Key
    from proxy.records.database import Database
    from proxy.settings import Settings

UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def expiry(value: str) -> float:
    """Return seconds since 1970 for `90d`, `12h`, `30m`, `2w` from now, or for a date, in UTC if it does not say."""
    span = re.fullmatch(r"([0-9]{1,4})([mhdw])", value)
    if span:
        when = time.time() + int(span[1]) * UNITS_S[span[2]]
    else:
        try:
            date = datetime.fromisoformat(value)
            when = (date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as failure:
            example = "a span such as 90d or 12h nor a date such as 2030-01-31"
            raise click.BadParameter(f"{value!r} is neither {example}") from failure
    if when <= time.time():
        raise click.BadParameter(f"{value!r} is not in the future")
    return when


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. A running gateway follows within 2 seconds."""


@keys.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option("--team", help="The team that it belongs to.")
@click.option("--owner", help="Who answers for it.")
@click.option("--note", help="Anything else.")
@click.option("--expires", type=expiry, metavar="90d|DATE", help="When it ends; never, if not given.")
@config_option
@json_option
def create(path: Path | None, as_json: bool, **details: Any) -> None:
    """Make a key and print it, this once."""
    from proxy.keys import create, pepper

    with _opened(path) as (settings, database), database.write() as connection:
        try:
            key, text = create(connection, pepper(settings), **details)
        except ValueError as problem:
            raise click.UsageError(f"--{problem}") from problem
    if as_json:
        click.echo(json.dumps({**_shown(key), "key": text}))
    else:
        click.echo(text)
        click.echo(f"Key {key.id} for {key.name}. It is not kept and cannot be shown again: store it now.", err=True)


@keys.command("list")
@config_option
@json_option
def list_(path: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from proxy.keys import read_all

    with _opened(path) as (_, database), database.read() as connection:
        rows = [_shown(key) for key in read_all(connection)]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        _print_table(rows)


@keys.command()
@click.argument("id")
@config_option
@json_option
def revoke(path: Path | None, id: str, as_json: bool) -> None:
    """End the key with this ID, for good."""
    from proxy.keys import revoke

    with _opened(path) as (_, database), database.write() as connection:
        try:
            key = revoke(connection, id)
        except KeyError as problem:
            raise ConfigError([f"no key has the id {id!r}: `lockgate keys list` shows all"]) from problem
    if as_json:
        click.echo(json.dumps(_shown(key)))
    else:
        click.echo(f"Key {key.id} ({key.name}) is revoked since {_time(key.revoked)}.")


@contextmanager
def _opened(path: Path | None) -> Iterator[tuple[Settings, Database]]:
    # Imported here: `lockgate --help` imports this file, and has no use for the database's library.
    from proxy.records.database import Database, explained, location, migrate

    path = path or config.locate()
    try:
        settings, _ = config.assemble(path)
    except ConfigError as failure:
        serving.refuse(path, failure.problems)
    try:
        migrate(settings)
        with closing(Database(location(settings))) as database, explained(database):
            yield settings, database
    except ConfigError as failure:
        click.echo("\n".join(f"lockgate: {problem}" for problem in failure.problems), err=True)
        sys.exit(1)


def _shown(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "team": key.team,
        "owner": key.owner,
        "note": key.note,
        "grants": dict(key.grants),
        "limits": dict(key.limits),
        "created": _time(key.created),
        "expires": _time(key.expires),
        "revoked": _time(key.revoked),
        "state": key.state(time.time()),
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = ("id", "name", "team", "owner", "state", "created", "expires")
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(row[column] or "") for column in columns))  # Text: a name is not markup
    # A pipe has no width: there a row stays on its line.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
