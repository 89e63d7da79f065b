"""`lockgate prices`: shows what targets cost, as shipped and as configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import _echo_json, _load, config_option, json_option

if TYPE_CHECKING:
    from proxy.costs.prices import Price

COLUMNS = ("input", "cached_input", "cache_write", "output", "reasoning", "audio_input", "audio_output")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also vendors that no provider here leads to.")
@config_option
@json_option
def prices(path: Path | None, as_json: bool, everything: bool) -> None:
    """Show prices in dollars: for a million tokens, and for one request or search.

    The configuration's own come first, and go first.
    """
    from proxy.costs.prices import priced, shipped

    settings, _ = _load(path)
    rows = [_row(target, priced(said), "lockgate.toml", None) for target, said in settings.prices.items()]
    for shelf in shipped():
        providers = [name for name, provider in settings.providers.items() if shelf.sells(provider)]
        for name in providers or ([shelf.vendor] if everything else []):
            rows += [_row(f"{name}/{model}", price, shelf.source, shelf.dated) for model, price in shelf.models.items()]
    if as_json:
        return _echo_json(rows)
    _print(rows)


def _row(target: str, price: Price, source: str, dated: str | None) -> dict[str, Any]:
    from proxy.costs.prices import in_dollars

    row: dict[str, Any] = {"target": target, **in_dollars(price)}
    if price.long is not None:
        row |= {"long_above": price.long_above, "long": in_dollars(price.long)}
    return row | {"source": source, "dated": dated}


def _print(rows: list[dict[str, Any]]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("target", *(name.replace("_", " ") for name in (*COLUMNS, "request", "search")), "dated", box=None)
    for row in rows:
        for prompt, prices in ((row["target"], row), (f"  above {row.get('long_above')}", row.get("long"))):
            if prices is not None:
                cells = (prices.get(name) for name in (*COLUMNS, "request", "search"))
                dated = row["dated"] or row["source"]
                table.add_row(Text(prompt), *("" if cell is None else f"{cell:g}" for cell in cells), dated)
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
