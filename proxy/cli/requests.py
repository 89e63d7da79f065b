"""`lockgate requests`: what was asked, by whom and how it went, from the ledger."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import config_option, json_option, opening, times
from proxy.cli.usage import dollars

if TYPE_CHECKING:
    from proxy.records.history import History, Page

COLUMNS = ("time", "id", "key", "team", "model", "target", "status", "error", "tokens", "cost", "s")
#: How often `tail --follow` looks, and how long a request may need to come to the ledger, in seconds.
LOOK_S, LATE_S = 1.0, 60.0
MOST = 1000


@click.group()
def requests() -> None:
    """Show requests. They come to the ledger a second or two after their end.

    While the database cannot be reached, the end of this host's journal is shown instead, and said so.
    """


@requests.command()
@click.option("-n", "count", type=click.IntRange(1, MOST), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones as they come.")
@config_option
@json_option
def tail(path: Path | None, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest requests, the newest last."""
    from proxy.records.history import Search

    with _history(path) as history:
        rows = _said(history.page(Search(), count)).rows[::-1]
        seen = {row["key"]: row["time"] for row in rows}
        _print(rows, as_json)
        while follow:
            time.sleep(LOOK_S)
            newest = max(seen.values(), default=time.time() - LATE_S)
            found = history.page(Search(since=newest - LATE_S), MOST).rows[::-1]
            fresh = [row for row in found if row["key"] not in seen]
            seen = {row["key"]: row["time"] for row in found} or seen
            if fresh:
                _print(fresh, as_json, head=False)


@requests.command()
@click.argument("id")
@config_option
@json_option
def show(path: Path | None, id: str, as_json: bool) -> None:
    """Show all that is known of the request with this ID, which its answer had as x-request-id."""
    from proxy.errors import ConfigError
    from proxy.records.history import Search

    with _history(path) as history:
        rows = _said(history.page(Search({"id": id}), MOST)).rows
        if not rows:
            raise ConfigError([f"no request has the id {id!r}; those under way are not in the ledger yet"])
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows))
        return
    for row in rows:
        for name, value in row.items():
            if value not in (None, [], {}, ""):
                click.echo(f"{name:<18}  {_fact(name, value)}")


@requests.command()
@click.option("--key", help="Of the key with this id, or one subject.")
@click.option("--team", help="Of one team.")
@click.option("--model", help="For one model.")
@click.option("--target", help="Answered by one target.")
@click.option("--status", type=int, help="Answered with this status.")
@click.option("--error", help="With this error code.")
@click.option("--state", type=click.Choice(["ended", "settled", "lost"]), help="That ended so.")
@click.option("--client", help="From this address.")
@click.option("--agent", help="With this text in the user agent.")
@click.option("--since", metavar="7d|DATE", help="From then on.")
@click.option("--until", metavar="1d|DATE", help="Before then.")
@click.option("-n", "count", type=click.IntRange(1, MOST), default=100, show_default=True, help="At most so many.")
@config_option
@json_option
def search(
    path: Path | None,
    since: str | None,
    until: str | None,
    agent: str | None,
    count: int,
    as_json: bool,
    **equal: Any,
) -> None:
    """Show the requests that fit everything asked for, the newest first."""
    from proxy.records.history import Search

    names = {"key": "subject", "error": "code"}
    chosen = {names.get(name, name): value for name, value in equal.items() if value is not None}
    begin, end = (None if value is None else times.ago(value) for value in (since, until))
    with _history(path) as history:
        page = _said(history.page(Search(chosen, begin, end, agent), count))
    _print(page.rows, as_json)
    if page.cursor is not None:
        click.echo(f"There are more than {count}: give -n, or --until the last one shown.", err=True)


@contextmanager
def _history(path: Path | None) -> Iterator[History]:
    from proxy.records.database import Database, location
    from proxy.records.history import History

    settings = opening.read(path)
    with opening.told(), closing(Database(location(settings))) as database:
        yield History(lambda: database, settings.server.state / "journal")


def _said(page: Page) -> Page:
    if page.source != "ledger":
        click.echo("The ledger cannot be read (`lockgate db status` tells why): this is from the journal.", err=True)
    return page


def _print(rows: list[dict[str, Any]], as_json: bool, head: bool = True) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=None, show_header=head)
    for row in rows:
        tokens = None if row["prompt_tokens"] is None else f"{row['prompt_tokens']}+{row['completion_tokens'] or 0}"
        ended = row["code"] or (row["state"] if row["state"] != "ended" else None)
        cells = (times.stamp(row["time"]), row["id"], row["subject"], row["team"], row["model"], row["target"])
        seconds = None if row["duration_s"] is None else f"{row['duration_s']:.2f}"
        more = (row["status"], ended, tokens, dollars(row["cost"]), seconds)
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in (*cells, *more)))
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def _fact(name: str, value: Any) -> str:
    if name in ("time", "settled", "ended"):
        return str(times.stamp(value))
    if name == "cost":
        return dollars(value)
    return value if isinstance(value, str) else json.dumps(value)
