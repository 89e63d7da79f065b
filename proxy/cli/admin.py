"""`lockgate admin`: starts the admin application and manages its keys."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from proxy import serving
from proxy.cli import config_option, json_option, opening
from proxy.cli.administration import asked, audit, print_table
from proxy.cli.times import stamp
from proxy.errors import ConfigError


@click.group(invoke_without_command=True)
@config_option
@click.pass_context
def admin(ctx: click.Context, path: Path | None) -> None:
    """Start the admin application: health, metrics, usage and requests, on the address of `[admin]`."""
    if ctx.invoked_subcommand is not None:
        return
    if path is not None:
        os.environ["LOCKGATE_CONFIG"] = os.path.abspath(path)
    path = serving.locate()
    flight = serving.Flight(path, quick=True)
    report = flight.report
    flight.close()
    if report["problems"]:
        serving.refuse(path, report["problems"])
    os.environ.pop("GUNICORN_CMD_ARGS", None)  # they are meant for the gateway
    command = serving.command(("--bind", report["admin"]["bind"]), serving.PACKAGE / "admin" / "server.py")
    sys.stdout.flush()
    os.execv(command[0], command)


@admin.group()
def key() -> None:
    """Make, list and revoke admin keys. They open the admin application and nothing else."""


@key.command()
@click.option("--name", required=True, help="What the key is for.")
@config_option
@json_option
def create(path: Path | None, name: str, as_json: bool) -> None:
    """Make a key and print it, this once."""
    from proxy.access.keys import new_id, printable
    from proxy.admin.keys import AdminKeys

    settings, id = opening.read(path), new_id()
    with opening.told(), asked("key"):
        printable(name=name)
        audit(settings, "admin_key.create", id=id)
        text = AdminKeys(settings).create(id, name)
    if as_json:
        click.echo(json.dumps({"id": id, "name": name, "key": text}))
    else:
        click.echo(text)
        click.echo(f"Admin key {id} for {name}. It is not kept and cannot be shown again: store it now.", err=True)


@key.command("list")
@config_option
@json_option
def list_(path: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from proxy.admin.keys import AdminKeys

    settings = opening.read(path)
    with opening.told():
        rows: list[dict[str, Any]] = [asdict(key) for key in AdminKeys(settings).read()]
    for row in rows:
        del row["digest"]
        row["created"] = stamp(row["created"])
    if as_json:
        click.echo(json.dumps(rows))
    else:
        print_table(("id", "name", "created"), rows)


@key.command()
@click.argument("id")
@config_option
def revoke(path: Path | None, id: str) -> None:
    """End the key with this ID, at once."""
    from proxy.admin.keys import AdminKeys

    settings = opening.read(path)
    with opening.told():
        keys = AdminKeys(settings)
        if id not in {key.id for key in keys.read()}:
            raise ConfigError([f"there is no admin key {id!r}: `lockgate admin key list` shows all"])
        audit(settings, "admin_key.revoke", id=id)
        keys.revoke(id)
    click.echo(f"Admin key {id} is revoked.")
