"""Writes docs/configuration.md from the schemas; with `--check` tells by the exit code whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy.catalog import Catalog
from proxy.config import sections
from proxy.config.connection import ConnectionSchema
from proxy.config.document import DEFAULT
from proxy.config.grants import TeamSchema
from proxy.config.models import ModelSchema
from proxy.config.prices import PriceSchema
from proxy.config.reference import Option, options
from proxy.shelf import Found

PATH = Path(__file__).with_name("configuration.md")

HEAD = f"""\
# Configuration

<!-- Written by docs/generate.py from the schemas: change those. -->

Lockgate reads `lockgate.toml` in the working directory, or the file that `$LOCKGATE_CONFIG` names. `lockgate check`
lists every mistake in it, `lockgate check --print` shows what it comes to. Unknown keys are mistakes. Relative paths
start at the file's folder.

A reload (`systemctl reload`, or SIGHUP to the master process) checks the file first. A file with a mistake is refused
and changes nothing; a good one is live for the next request. `server.worker` is the one key that needs a restart.

Without a file Lockgate runs as if there were this one, and makes a first key:

```toml
{DEFAULT}```

## Secrets

A secret is not written into the file. It is `{{ env = "NAME" }}`, an environment variable, or `{{ file = "/path" }}`, a
file with nothing else in it. Both are read once, at the start and at a reload, and are shown nowhere.
"""

PARTS = [
    ("Top level", "", sections.FileSchema(only=("chain",))),
    ("`[server]`", "", sections.ServerSchema()),
    (
        "`[egress]`",
        "How upstreams are reached. The same keys in `[providers.NAME]` replace these for one provider.",
        ConnectionSchema(),
    ),
    ("`[keys]`", "", sections.KeysSchema()),
    *((f"`[{name}]`", "", schema()) for name, (schema, _) in sections.SIMPLE.items()),
    (
        "`[teams.NAME]`",
        "What the keys of a team may use. Teams may be in the database instead: `lockgate teams`.",
        TeamSchema(),
    ),
    (
        '`[prices."PROVIDER/MODEL"]`',
        "What a target costs, in dollars, in place of the shipped prices: `lockgate prices` shows those in force. In"
        " the name `*` stands for any text; the exact name goes first, then the longest pattern that fits.",
        PriceSchema(),
    ),
    (
        "`[models.NAME]`",
        'What clients may name as `model`. In a name `*` stands for any text: `[models."gpt-*"]`. The exact name goes'
        " first, then the longest pattern that fits.",
        ModelSchema(),
    ),
]


def text() -> str:
    """Return the whole page."""
    catalog = Catalog.discover(None)
    parts = [HEAD]
    for title, note, schema in PARTS:
        parts.append(f"## {title}\n\n" + (f"{note}\n\n" if note else "") + table(options(schema)))
    parts.append(
        "## `[plugins.NAME]`\n\n`use` names the plugin; the other keys are its own. `NAME` is what a chain lists.\n"
    )
    parts += [entry(found) for found in bundled(catalog.plugins)]
    parts.append(
        "## `[providers.NAME]`\n\n`use` names the provider; the other keys are its own and those of `[egress]`. `NAME`"
        " is what a target names.\n"
    )
    parts += [entry(found) for found in bundled(catalog.providers)]
    return "\n".join(parts)


def bundled(shelf: dict[str, Found]) -> list[Found]:
    """Return what Lockgate brings itself, by name."""
    return [shelf[name] for name in sorted(shelf) if shelf[name].source == "bundled"]


def entry(found: Found) -> str:
    """Return the part about one plugin or provider."""
    rows = options(getattr(found.cls, "Config", None))
    return f'### `use = "{found.name}"`\n\n{found.summary}\n\n' + (table(rows) if rows else "It has no options.\n")


def table(rows: list[Option]) -> str:
    """Return options as a Markdown table."""
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        default = "required" if row.required else f"`{row.default}`" if row.default is not None else "–"
        cells = (f"`{row.key}`", row.type, default, row.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PATH.read_text("utf-8") != text())
    PATH.write_text(text(), "utf-8")
