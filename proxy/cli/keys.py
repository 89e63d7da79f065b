"""`lockgate keys`: makes, shows, changes and ends API keys."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import config_option, json_option, opening, permissions, times
from proxy.cli.administration import asked, audit, known, print_facts, print_table

if TYPE_CHECKING:
    from proxy.access.keys import Key

TEXTS = ("team", "owner", "note")
ONCE = "It is not kept and cannot be shown again: store it now."


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. A running gateway follows within 2 seconds."""


def described(required: bool) -> Callable[[Any], Any]:
    """Give a command the options that say what a key is."""

    def decorate(command: Any) -> Any:
        for option in (
            click.option("--expires", type=times.expiry, metavar="90d|DATE", help="When it ends."),
            click.option("--note", help="Anything else."),
            click.option("--owner", help="Who answers for it."),
            click.option("--team", help="The team that it belongs to, of those that `lockgate teams list` shows."),
            click.option("--name", required=required, help="What the key is for."),
        ):
            command = option(command)
        return command

    return decorate


@keys.command()
@described(required=True)
@permissions.options
@config_option
@json_option
def create(path: Path | None, as_json: bool, **details: Any) -> None:
    """Make a key and print it, this once."""
    from proxy.access.keys import create
    from proxy.access.pepper import agreed

    with opening.opened(path) as (settings, database), asked("key"):
        details["grants"], details["limits"] = permissions.taken(details)
        pepper = agreed(settings, database)
        with database.write() as connection:
            known(settings, connection, details["team"])
            key, text = create(connection, pepper, **details)
            audit(settings, "key.create", key=key.id, team=key.team)
    _print_new(key, text, as_json)


@keys.command("list")
@config_option
@json_option
def list_(path: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from proxy.access.keys import read_all

    with opening.opened(path) as (_, database), database.read() as connection:
        rows = [key_facts(key) for key in read_all(connection)]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        print_table(("id", "name", "team", "owner", "state", "created", "expires"), rows)


@keys.command()
@click.argument("id")
@config_option
@json_option
def show(path: Path | None, id: str, as_json: bool) -> None:
    """Show all about the key with this ID, without its secret."""
    from proxy.access.keys import read, retiring

    with opening.opened(path) as (_, database), asked("key", id), database.read() as connection:
        facts = key_facts(read(connection, id))
        facts["retiring"] = [times.stamp(end) for end in retiring(connection, id, time.time())]
    print_facts(facts, as_json)


@keys.command()
@click.argument("id")
@described(required=False)
@permissions.options
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice([*TEXTS, "expires", *permissions.NAMES]),
    help="Take back what was said; may be given several times.",
)
@config_option
@json_option
def update(path: Path | None, id: str, clear: tuple[str, ...], as_json: bool, **details: Any) -> None:
    """Change the key with this ID. What is not named stays as it is."""
    from proxy.access.keys import change, read

    with opening.opened(path) as (settings, database), asked("key", id):
        grants, limits = permissions.taken(details)
        changes = {name: value for name, value in details.items() if value is not None or name in clear}
        if not (changes or grants or limits or clear):
            raise click.UsageError("nothing to change: name what, e.g. --team NAME")
        with database.write() as connection:
            old = read(connection, id)
            known(settings, connection, changes.get("team"))
            changes["grants"] = permissions.merged(old.grants, grants, clear)
            changes["limits"] = permissions.merged(old.limits, limits, clear)
            key = change(connection, id, **changes)
            named = {*changes, *clear, *grants, *limits} - {"grants", "limits"}
            audit(settings, "key.update", key=id, changed=sorted(named))
    print_facts(key_facts(key), as_json)


@keys.command()
@click.argument("id")
@click.option(
    "--grace", type=times.span, default="0", metavar="24h", help="How long the old secret stays good; 0 if not given."
)
@config_option
@json_option
def rotate(path: Path | None, id: str, grace: float, as_json: bool) -> None:
    """Give the key with this ID a new secret and print it, this once."""
    from proxy.access.keys import rotate
    from proxy.access.pepper import agreed

    with opening.opened(path) as (settings, database), asked("key", id):
        pepper = agreed(settings, database)
        with database.write() as connection:
            key, text = rotate(connection, pepper, id, grace_s=grace)
            audit(settings, "key.rotate", key=id, grace_s=grace)
    _print_new(key, text, as_json)


@keys.command()
@click.argument("id")
@config_option
@json_option
def revoke(path: Path | None, id: str, as_json: bool) -> None:
    """End the key with this ID, for good."""
    from proxy.access.keys import revoke

    with opening.opened(path) as (settings, database), asked("key", id):
        with database.write() as connection:
            key = revoke(connection, id)
            audit(settings, "key.revoke", key=id)
    if as_json:
        click.echo(json.dumps(key_facts(key)))
    else:
        click.echo(f"Key {key.id} ({key.name}) is revoked since {times.stamp(key.revoked)}.")


@keys.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"), default="-")
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), help="By the file's name, else jsonl.")
@config_option
@json_option
def import_(path: Path | None, file: Any, kind: str | None, as_json: bool) -> None:
    """Take over keys from FILE or standard input: all of them, or none if one line is wrong.

    Each line has the columns that `create` has as options, and an `id` if it should keep one. `key` is the key itself,
    of any gateway, `digest` its digest under the same pepper, in hexadecimal; without both a new key is made and shown.
    """
    from proxy.access.pepper import agreed
    from proxy.cli import imports

    kind = kind or ("csv" if str(getattr(file, "name", "")).endswith(".csv") else "jsonl")
    with opening.opened(path) as (settings, database):
        pepper = agreed(settings, database)
        rows = imports.parse(file, kind)
        with database.write() as connection:
            made = imports.add(connection, pepper, rows, settings)
            audit(settings, "key.import", count=len(made))
    if as_json:
        click.echo(json.dumps([{**key_facts(key), **({"key": text} if text else {})} for key, text in made]))
        return
    for key, text in made:
        if text:
            click.echo(f"{key.id},{key.name},{text}")
    new = sum(text is not None for _, text in made)
    click.echo(f"{len(made)} keys were imported." + (f" {new} of them are new. {ONCE}" if new else ""), err=True)


@keys.command()
@click.confirmation_option(prompt="Every key will be revoked, for good. Go on?")
@config_option
@json_option
def reset(path: Path | None, as_json: bool) -> None:
    """Revoke every key and begin anew with the pepper there is; for the case that the old one is lost."""
    from proxy.access.keys import revoke_all
    from proxy.access.pepper import pepper, settle

    with opening.opened(path) as (settings, database):
        with database.write() as connection:
            count = revoke_all(connection)
            settle(connection, pepper(settings), anew=True)
            audit(settings, "key.reset", count=count)
    click.echo(json.dumps({"revoked": count}) if as_json else f"{count} keys are revoked.")


def key_facts(key: Key) -> dict[str, Any]:
    """Return a key as JSON has it, without its digest."""
    return {
        **{name: getattr(key, name) for name in ("id", "name", *TEXTS)},
        **permissions.facts(key.grants, key.limits),
        **{name: times.stamp(getattr(key, name)) for name in ("created", "expires", "revoked")},
        "state": key.state(time.time()),
    }


def _print_new(key: Key, text: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**key_facts(key), "key": text}))
    else:
        click.echo(text)
        click.echo(f"Key {key.id} for {key.name}. {ONCE}", err=True)
