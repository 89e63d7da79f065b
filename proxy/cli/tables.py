"""The listings as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from proxy.upstreams.probes import Finding


def found(rows: list[dict[str, Any]], extra: str) -> None:
    """Print plugins or providers: what each is, and under it its options."""
    console = Console(highlight=False)
    for row in rows:
        version = f" {row['version']}" if row["version"] else ""
        console.print(f"[bold]{escape(row['name'])}[/]{version}  {escape(row['summary'])}")
        facts = Table.grid(padding=(0, 2))
        value = row[extra]
        facts.add_row(extra, escape(", ".join(value) if isinstance(value, list) else "yes" if value else "no"))
        facts.add_row("configured as", escape(", ".join(row["configured"]) or "–"))
        facts.add_row("from", escape(f"{row['source']}: {row['origin']}"))
        console.print(Padding(facts, (0, 0, 0, 2)))
        if row["options"]:
            console.print(Padding(_options(row["options"]), (0, 0, 0, 2)))
        console.print()


def models(rows: list[dict[str, Any]]) -> None:
    """Print models with their targets and chains."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("model", "targets, tried in order", "chain: plugin (hooks)", "callers may"):
        table.add_column(title, overflow="fold")
    for row in rows:
        chain = (f"{entry['name']} ({', '.join(entry['hooks'])})" for entry in row["chain"])
        may = [what for what in ("public", "web_search") if row[what]] + row["parameters"]
        cells = (row["pattern"], "\n".join(row["targets"]), "\n".join(chain) or "–", ", ".join(may) or "–")
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)


def probed(found: list[Finding]) -> None:
    """Print what was found of each target."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("target", "found", "ms"):
        table.add_column(title, overflow="fold")
    for finding in found:
        ms = "–" if finding.milliseconds is None else str(finding.milliseconds)
        table.add_row(escape(finding.target), escape(finding.said), ms)
    Console(highlight=False).print(table)


def _options(options: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("option", "type", "default", "meaning"):
        table.add_column(title, overflow="fold")
    for option in options:
        default = "required" if option["required"] else option["default"] or "–"
        table.add_row(*map(escape, (option["key"], option["type"], default, option["help"])))
    return table
