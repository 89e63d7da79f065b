"""What the commands that manage keys and teams have in common: refusals, the audit's note, and what they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from proxy.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from proxy.settings import Settings


@contextmanager
def asked(kind: str, name: str | None = None) -> Iterator[None]:
    """Turn a `ValueError` of the block, or a `KeyError` for a `name` that is unknown, into what the command says."""
    try:
        yield
    except (KeyError, UnicodeEncodeError) as problem:  # what is no text is no id either
        raise ConfigError([f"there is no {kind} {name!r}: `lockgate {kind}s list` shows all"]) from problem
    except ValueError as problem:
        raise ConfigError(str(problem).splitlines()) from problem


def known(settings: Settings, connection: Connection, team: str | None) -> None:
    """Raise `ValueError` if there is no such team: its keys would be refused."""
    from proxy.access.teams import names

    if team is not None and team not in names(settings, connection):
        raise ValueError(f"team: there is no team {team!r}: `lockgate teams create` makes one")


def audit(settings: Settings, act: str, **details: Any) -> None:
    """Note an act in the audit's journal. Called before the act is committed: none is ever missing there."""
    from proxy.records.audit import note

    try:
        note(settings, act, **details)
    except OSError as failure:
        raise ConfigError([f"nothing was done, since the audit cannot be written: {failure}"]) from failure


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print one key or team, a line for each thing that is said about it."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, {}, []):
            click.echo(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")


def print_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Print keys or teams, one a line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))  # Text: a name is not markup
    # A pipe has no width: there a row stays on its line.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _cell(value: Any) -> str:
    return "" if value in (None, {}) else value if isinstance(value, str) else json.dumps(value)
