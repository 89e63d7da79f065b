"""`lockgate audit`: verifies, anchors and shows the journal's chain."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from proxy.cli import config_option, json_option
from proxy.cli.opening import read, told
from proxy.cli.times import ago, stamp

if TYPE_CHECKING:
    from proxy.records.index import Index

#: How long the command that takes an anchor may run, in seconds.
COMMAND_S = 60


@click.group()
def audit() -> None:
    """Verify that no record was changed or removed, and show what was done to the gateway."""


@audit.command()
@click.option("--anchor", type=click.Path(path_type=Path), help="A file that `anchor --to` has written.")
@click.option("--journal", type=click.Path(path_type=Path), help="The folder, e.g. a copy; else the configured one.")
@click.option("--key-file", type=click.Path(path_type=Path), help="The journal's key, with --journal.")
@config_option
@json_option
def verify(path: Path | None, as_json: bool, anchor: Path | None, journal: Path | None, key_file: Path | None) -> None:
    """Check the whole journal; needs no gateway. Exit code 1 where something was changed or is missing."""
    from proxy.records import verify as verification

    if (journal is None) != (key_file is None):
        raise click.UsageError("--journal and --key-file belong together")
    try:
        if journal is not None and key_file is not None:
            folder, key = journal, key_file.read_bytes().strip()
        else:
            index = _index(path)
            folder, key = index.directory, index.key
        report = verification.verify(folder, key, None if anchor is None else _last_line(anchor))
    except OSError as failure:
        _fail(f"{failure.filename}: {failure.strerror}")
    except ValueError as failure:
        _fail(f"{anchor}: {failure}")
    facts = {name: getattr(report, name) for name in ("problems", "notes", "files", "lines", "dropped", "anchored")}
    if as_json:
        import json

        click.echo(json.dumps(facts))
    else:
        _print(facts)
    sys.exit(1 if report.problems else 0)


@audit.command()
@click.option("--to", type=click.Path(path_type=Path), help="Append it to this file, on another machine's disk.")
@click.option("--command", help="Run this with the anchor on its standard input.")
@config_option
def anchor(path: Path | None, to: Path | None, command: str | None) -> None:
    """Write how far the journal is, and bring that to where nobody can change it: `verify` compares."""
    if (to is None) == (command is None):
        raise click.UsageError("one of --to and --command is needed")
    index = _index(path)
    try:
        line = index.anchor()
        if to is not None:
            with open(os.open(to, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        else:
            subprocess.run(shlex.split(command or ""), input=line, check=True, timeout=COMMAND_S)
    except OSError as failure:
        _fail(f"{failure.filename}: {failure.strerror}")
    except (subprocess.SubprocessError, ValueError) as failure:
        _fail(f"--command: {failure}")


@audit.command()
@click.option("--since", type=ago, metavar="7d|DATE", help="From then on; all, if not given.")
@config_option
@json_option
def show(path: Path | None, as_json: bool, since: float | None) -> None:
    """Show what was done: keys, teams, configurations, starts and stops, workers that died, files removed."""
    from proxy.records.audit import acts

    with told():
        found = [act for act in acts(read(path)) if act["time"] >= (since or 0)]
    if as_json:
        import json

        click.echo(json.dumps(found))
        return
    for act in found:
        said = {**{f"by_{name}": value for name, value in act["by"].items()}, **act["details"]}
        details = " ".join(f"{name}={value}" for name, value in said.items())
        click.echo(f"{stamp(act['time'])}  {act['act']}  {details}")


def _index(path: Path | None) -> Index:
    from proxy.records.index import of

    settings = read(path)
    with told():
        return of(settings)


def _last_line(path: Path) -> bytes:
    lines = path.read_bytes().splitlines()
    if not lines:
        raise ValueError("holds no anchor")
    return lines[-1]


def _print(facts: dict[str, Any]) -> None:
    for problem in facts["problems"]:
        click.echo(f"BROKEN  {problem}")
    for note in facts["notes"]:
        click.echo(f"note    {note}")
    anchored = stamp(facts["anchored"]) or "never"
    verdict = "does not verify" if facts["problems"] else "verifies"
    click.echo(
        f"The journal {verdict}: {facts['lines']} lines in {facts['files']} files, {facts['dropped']} removed by "
        f"retention, last anchored: {anchored}."
    )


def _fail(problem: str) -> NoReturn:
    click.echo(f"lockgate: {problem}", err=True)
    sys.exit(1)
