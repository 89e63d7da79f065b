"""`lockgate …` in this process, on a configuration of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from gateways import ECHO

from proxy.cli import main


def lockgate_in(folder: Path, more: str, *first: str) -> Callable[..., Result]:
    """Return what runs `lockgate FIRST …` on a file with the embedded provider and `more`; its state is in `state`."""
    path = folder / "lockgate.toml"
    path.write_text(f'{ECHO}\n[server]\nstate = "state"\n{more}')

    def run(*arguments: str, **how: Any) -> Result:
        return CliRunner().invoke(main, [*first, *arguments, "--config", str(path)], **how)

    return run


def listed(lockgate: Callable[..., Result]) -> list[dict[str, Any]]:
    """Return what `list` lists."""
    rows: list[dict[str, Any]] = json.loads(lockgate("list", "--json").stdout)
    return rows


def told(result: Result) -> str:
    """Return what a command has said that was refused."""
    assert result.exit_code == 1 and result.stdout == "", result.output
    return result.stderr
