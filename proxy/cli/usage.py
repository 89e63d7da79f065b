"""`lockgate usage`: what was used and what it cost, from the ledger's sums."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from proxy.cli import config_option, json_option, opening, times

SHOWN = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost")
FORMULAS = ("=", "+", "-", "@")


def _groups(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    from proxy.records.ledger import BY

    names = [name for name in value.split(",") if name]
    unknown = [name for name in names if name not in BY]
    if unknown or len(set(names)) < len(names):
        raise click.BadParameter(f"each of {', '.join(BY)} once at most, with commas")
    return names


@click.command()
@click.option("--by", callback=_groups, default="team,model", show_default=True, help="team, key, model, hour, day.")
@click.option("--since", default="7d", show_default=True, metavar="7d|DATE", help="From the hour or day of then on.")
@click.option("--until", metavar="1d|DATE", help="To then.")
@click.option("--team", help="Of one team.")
@click.option("--key", help="Of the key with this id, or one subject.")
@click.option("--model", help="Of one model.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@config_option
@json_option
def usage(
    path: Path | None, by: list[str], since: str, until: str | None, as_csv: bool, as_json: bool, **equal: str | None
) -> None:
    """Show requests, tokens and costs, by team and model or otherwise. Days and hours are UTC's.

    Costs are dollars in the table, and micro-dollars (`cost`) in CSV and JSON.
    """
    from proxy.errors import ConfigError
    from proxy.records.ledger import used
    from proxy.records.rows import DAY_S

    begin, end = times.ago(since), until and times.ago(until)
    chosen = {name: value for name, value in equal.items() if value is not None}
    with opening.opened(path) as (settings, database), database.read() as connection:
        try:
            rows = used(connection, by, begin, end or None, hourly_s=settings.ledger.keep_days * DAY_S, equal=chosen)
        except ValueError as problem:
            raise ConfigError([f"--by: {problem}"]) from problem
    for row in rows:
        row |= {name: times.stamp(row[name]) for name in ("hour", "day") if name in row}
    if as_json:
        click.echo(json.dumps(rows))
    elif as_csv:
        _print_csv(rows)
    else:
        _print_table(by, rows)


def _print_csv(rows: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    # What a spreadsheet would take for a formula gets an apostrophe.
    writer.writerows([f"'{cell}" if str(cell).startswith(FORMULAS) else cell for cell in row.values()] for row in rows)


def _print_table(by: list[str], rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*by, box=None)
    for name in SHOWN:
        table.add_column(name.replace("_", " "), justify="right")
    total = dict.fromkeys(SHOWN, 0)
    for row in rows:
        table.add_row(*(Text(str(row[name] or "–")) for name in by), *_cells(row))
        total = {name: total[name] + row[name] for name in SHOWN}
    if by and len(rows) > 1:
        table.add_row(*(["all"] + [""] * (len(by) - 1)), *_cells(total))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    return [dollars(row[name]) if name == "cost" else f"{row[name]:,}" for name in SHOWN]


def dollars(cost: int | None) -> str:
    """Return micro-dollars as dollars, with the digits that they have."""
    return "–" if cost is None else f"${cost / 1_000_000:,.6f}".rstrip("0").rstrip(".") if cost else "$0"
