"""The command line: `lockgate serve | check | plugins | providers | models | keys | db | …`."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

# Every command imports what it needs: `lockgate serve` must not pay for the database, nor `--help` for anything.
from proxy import serving

if TYPE_CHECKING:
    from proxy.catalog import Catalog
    from proxy.settings import Settings


#: The commands that have a module of their own: its name in this package. It has a command of the command's name.
MODULES = {
    "audit": "audit",
    "admin": "admin",
    "contents": "contents",
    "counters": "counters",
    "db": "db",
    "keys": "keys",
    "ledger": "ledger",
    "limits": "limits",
    "openapi": "openapi",
    "prices": "prices",
    "redact": "redact",
    "requests": "requests",
    "teams": "teams",
    "usage": "usage",
}


class Group(click.Group):
    """The commands below, and those of `MODULES`, which are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return sorted([*super().list_commands(ctx), *MODULES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        if cmd_name not in MODULES:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"proxy.cli.{MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"lockgate {version('lockgate')}")
    except PackageNotFoundError:
        click.echo("lockgate (a source tree that is not installed)")
    ctx.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """Lockgate, a gateway for LLM traffic that speaks OpenAI's API.

    Exit codes: 0 all is well, 1 something is wrong, 2 the command was not understood.
    """


config_option = click.option(
    "--config", "path", type=click.Path(path_type=Path), help="The file; else $LOCKGATE_CONFIG, else ./lockgate.toml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command(context_settings={"ignore_unknown_options": False})
@config_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- GUNICORN OPTIONS]")
def serve(path: Path | None, arguments: tuple[str, ...]) -> None:
    """Start the gateway: gunicorn with Lockgate's settings."""
    if path is not None:
        os.environ["LOCKGATE_CONFIG"] = os.path.abspath(path)
    command = serving.command(arguments)
    sys.stdout.flush()
    os.execv(command[0], command)


@main.command()
@config_option
@click.option("--print", "shown", is_flag=True, help="Show the effective settings, secrets as ***.")
@click.option("--live", is_flag=True, help="Ask each target's upstream too, with the gateway's credentials.")
@json_option
def check(path: Path | None, shown: bool, live: bool, as_json: bool) -> None:
    """Check the configuration and the plugins, as a start and a reload do."""
    if as_json and not live:
        raise click.UsageError("--json goes with --live")
    path = Path(os.path.abspath(path)) if path else serving.locate()
    flight = serving.Flight(path, show=shown)
    report = flight.report
    flight.close()
    if report["problems"]:
        serving.refuse(path, report["problems"])
    if live:
        return _live(path, as_json)
    click.echo(report["shown"] if shown else f"{path or 'The built-in configuration'} is right.", nl=not shown)


@main.command()
@config_option
@json_option
def plugins(path: Path | None, as_json: bool) -> None:
    """List the plugins there are: from where, with which hooks and options."""
    from proxy.cli import listing

    rows = listing.plugins(*_load(path))
    if as_json:
        return _echo_json(rows)
    from proxy.cli import tables

    tables.found(rows, "hooks")


@main.command()
@config_option
@json_option
def providers(path: Path | None, as_json: bool) -> None:
    """List the providers there are: from where, with which options."""
    from proxy.cli import listing

    rows = listing.providers(*_load(path))
    if as_json:
        return _echo_json(rows)
    from proxy.cli import tables

    tables.found(rows, "native")


@main.command()
@config_option
@json_option
def models(path: Path | None, as_json: bool) -> None:
    """List the models: where each goes, and through which plugins in which order."""
    from proxy.cli import listing

    rows = listing.models(*_load(path))
    if as_json:
        return _echo_json(rows)
    from proxy.cli import tables

    tables.models(rows)


@main.command("new-plugin")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path(), help="Where to; here by default.")
def new_plugin(name: str, folder: Path) -> None:
    """Write a plugin file and its test, both working."""
    from proxy.cli import scaffold

    try:
        written = scaffold.write(name, folder)
    except ValueError as failure:
        raise click.UsageError(str(failure)) from None
    except OSError as failure:
        _fail([f"{failure.filename}: {failure.strerror}"])
    click.echo("\n".join(f"wrote {path}" for path in written))
    click.echo(scaffold.NEXT.format(name=name, folder=folder.absolute(), test=written[-1]))


def _load(path: Path | None) -> tuple[Settings, Catalog]:
    from proxy import config
    from proxy.errors import ConfigError

    path = path or serving.locate()
    try:
        return config.assemble(path)
    except ConfigError as failure:
        serving.refuse(path, failure.problems)


def _live(path: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from proxy.cli import tables
    from proxy.upstreams import probes

    found = probes.findings(*_load(path))
    if as_json:
        _echo_json([asdict(finding) for finding in found])
    else:
        tables.probed(found)
    if not all(finding.ok for finding in found):
        sys.exit(1)


def _echo_json(rows: Any) -> None:
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def _fail(problems: list[str]) -> NoReturn:
    click.echo("\n".join(f"lockgate: {problem}" for problem in problems), err=True)
    sys.exit(1)
