"""`lockgate teams`: makes, shows, changes and deletes teams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import config_option, json_option, opening, permissions
from proxy.cli.administration import asked, audit, print_facts, print_table

if TYPE_CHECKING:
    from proxy.access.teams import Team
    from proxy.settings import Settings


@click.group()
def teams() -> None:
    """Make, list and delete teams. A running gateway follows within 2 seconds.

    Those of the configuration, [teams.NAME], are shown too, and are changed there.
    """


@teams.command()
@click.argument("name")
@click.option("--note", help="Anything to remember.")
@permissions.options
@config_option
@json_option
def create(path: Path | None, name: str, as_json: bool, **details: Any) -> None:
    """Make a team called NAME: bounds of what its keys may use, limits of those that have none of their own."""
    from proxy.access.teams import create

    with opening.opened(path) as (settings, database), asked("team", name):
        grants, limits = permissions.taken(details)
        _ours(settings, name)
        with database.write() as connection:
            team = create(connection, name, note=details["note"], grants=grants, limits=limits)
            audit(settings, "team.create", team=name)
    print_facts(team_facts(team), as_json)


@teams.command("list")
@config_option
@json_option
def list_(path: Path | None, as_json: bool) -> None:
    """List the teams."""
    from proxy.access.teams import key_counts, read_all

    with opening.opened(path) as (settings, database), database.read() as connection:
        counts = key_counts(connection)
        rows = [*_configured(settings), *(team_facts(team) for team in read_all(connection))]
    for row in rows:
        row["keys"] = counts.get(row["name"], 0)
        if row["source"] == "database" and row["name"] in settings.teams:
            row["source"] = "database, not in use: the configuration has this team too"
    rows.sort(key=lambda row: (row["name"], row["source"] != "configuration"))
    if as_json:
        click.echo(json.dumps(rows))
    else:
        print_table(("name", "source", "keys", "grants", "limits"), rows)


@teams.command()
@click.argument("name")
@config_option
@json_option
def show(path: Path | None, name: str, as_json: bool) -> None:
    """Show all about the team called NAME, as it is in use."""
    from proxy.access.teams import key_counts, read

    with opening.opened(path) as (settings, database), asked("team", name), database.read() as connection:
        configured = [row for row in _configured(settings) if row["name"] == name]
        facts = configured[0] if configured else team_facts(read(connection, name))
        facts["keys"] = key_counts(connection).get(name, 0)
    print_facts(facts, as_json)


@teams.command()
@click.argument("name")
@click.option("--note", help="Anything to remember.")
@permissions.options
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["note", *permissions.NAMES]),
    help="Take back what was said; may be given several times.",
)
@config_option
@json_option
def update(path: Path | None, name: str, clear: tuple[str, ...], as_json: bool, **details: Any) -> None:
    """Change the team called NAME. What is not named stays as it is."""
    from proxy.access.teams import change, read

    with opening.opened(path) as (settings, database), asked("team", name):
        grants, limits = permissions.taken(details)
        note = {"note": details["note"]} if details["note"] is not None or "note" in clear else {}
        if not (note or grants or limits or clear):
            raise click.UsageError("nothing to change: name what, e.g. --models 'gpt-*'")
        _ours(settings, name)
        with database.write() as connection:
            old = read(connection, name)
            changes = {
                "grants": permissions.merged(old.grants, grants, clear),
                "limits": permissions.merged(old.limits, limits, clear),
            }
            team = change(connection, name, **note, **changes)
            audit(settings, "team.update", team=name, changed=sorted({*note, *clear, *grants, *limits}))
    print_facts(team_facts(team), as_json)


@teams.command()
@click.argument("name")
@config_option
@json_option
def delete(path: Path | None, name: str, as_json: bool) -> None:
    """Delete the team called NAME. Its keys are refused until there is a team of this name again."""
    from proxy.access.teams import key_counts, remove

    with opening.opened(path) as (settings, database), asked("team", name), database.write() as connection:
        # One that the configuration has too may go: it is not in use.
        team = remove(connection, name)
        count = 0 if name in settings.teams else key_counts(connection).get(name, 0)
        audit(settings, "team.delete", team=name)
    if as_json:
        click.echo(json.dumps({**team_facts(team), "keys": count}))
    else:
        click.echo(f"Team {name} is deleted." + (f" Keys refused from now on: {count}." if count else ""))


def team_facts(team: Team, source: str = "database") -> dict[str, Any]:
    """Return a team as JSON has it."""
    return {"name": team.name, "source": source, "note": team.note, **permissions.facts(team.grants, team.limits)}


def _configured(settings: Settings) -> list[dict[str, Any]]:
    from proxy.access.teams import Team

    return [team_facts(Team(own.name, own.grants, own.limits), "configuration") for own in settings.teams.values()]


def _ours(settings: Settings, name: str) -> None:
    if name in settings.teams:
        raise ValueError(f"the team {name!r} is in the configuration: change it there")
