"""Teams: those of the database as rows, those of the configuration as a section."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from states import PEPPER, both_databases, database_in, settings_in

from proxy import config
from proxy.access import keys, teams
from proxy.errors import ConfigError
from proxy.records import database as module
from proxy.settings import TeamSettings


@pytest.fixture
def database(tmp_path, database_url):
    with database_in(tmp_path / "state", database_url) as opened:
        yield opened


def write(database, function, *arguments, **details):
    with database.write() as connection:
        return function(connection, *arguments, **details)


def read(database, function, *arguments):
    with database.read() as connection:
        return function(connection, *arguments)


@both_databases
def test_a_team_is_made_changed_deleted_and_made_again(database):
    made = write(database, teams.create, "search", grants={"models": ["a"]}, limits={"concurrent": 2}, note="n")
    assert read(database, teams.read_all) == [made] == [read(database, teams.read, "search")]
    changed = write(database, teams.change, "search", grants={})
    assert (changed.grants, changed.limits, changed.note) == ({}, {"concurrent": 2}, "n")
    write(database, teams.remove, "search")
    assert read(database, teams.read_all) == []
    again = write(database, teams.create, "search")
    assert (again.grants, again.limits, again.note) == ({}, {}, None)
    with database.read() as connection:
        assert connection.execute(text("SELECT version FROM versions")).scalar_one() == 4


def test_a_team_that_is_there_already_or_not_at_all_is_refused_by_name(database):
    write(database, teams.create, "search")
    with pytest.raises(ValueError, match="there is a team 'search' already"):
        write(database, teams.create, "search")
    for refused in (teams.change, teams.remove):
        with pytest.raises(KeyError):
            write(database, refused, "unknown")
        with pytest.raises(KeyError):
            write(database, refused, "' OR 1=1 --")
    for name in ("", " ", "a\nb", "x" * 201):
        with pytest.raises(ValueError, match="name: 1 to 200 printable"):
            write(database, teams.create, name)


@both_databases
def test_the_keys_of_a_team_are_counted_without_the_revoked_ones(database):
    for team in ("a", "a", "b", None):
        write(database, keys.create, PEPPER, name="app", team=team)
    gone, _ = write(database, keys.create, PEPPER, name="app", team="b")
    write(database, keys.revoke, gone.id)
    assert read(database, teams.key_counts) == {"a": 2, "b": 1}


def test_the_names_of_all_teams_are_those_of_the_database_and_of_the_configuration(database):
    write(database, teams.create, "here")
    write(database, teams.create, "gone")
    write(database, teams.remove, "gone")
    settings = settings_in("unused")
    settings.teams["there"] = TeamSettings("there")
    with database.read() as connection:
        assert teams.names(settings, connection) == {"here", "there"}


def test_the_teams_that_existing_keys_name_come_into_being_with_the_upgrade(tmp_path, database):
    write(database, keys.create, PEPPER, name="app", team="search")
    with database.write() as connection:
        for table in ("retired", "teams"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("ALTER TABLE versions DROP COLUMN pepper"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        wanted = Config()
        wanted.set_main_option("script_location", str(module.__file__).replace("database.py", "migrations"))
        wanted.attributes["connection"] = connection
        command.upgrade(wanted, "0003")
    [team] = read(database, teams.read_all)
    assert (team.name, team.grants, team.limits) == ("search", {}, {})


ECHO = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[providers.echo]
use = "echo"
[models.echo]
targets = ["echo"]
"""


def test_a_team_of_the_configuration_has_grants_and_limits(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_text(
        ECHO
        + """
        [teams."Search & Co"]
        grants = { models = ["gpt-*"], capabilities = ["tools"] }
        limits = { requests_per_minute = 60, budget = { usd = 50, window = "month" } }
        [teams.web]
        """
    )
    settings, _ = config.assemble(path)
    assert settings.teams == {
        "Search & Co": TeamSettings(
            "Search & Co",
            {"models": ["gpt-*"], "capabilities": ["tools"]},
            {"requests_per_minute": 60, "budget": {"amount": 50_000_000, "window": "month"}},
        ),
        "web": TeamSettings("web"),
    }


def test_what_is_wrong_with_teams_in_the_configuration_is_listed(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_text(
        ECHO
        + """
        [keys]
        stale_hours = 0
        [teams]
        flat = 1
        [teams.a]
        grant = {}
        limits = { concurrent = 0, budget = { usd = 1, window = "year" } }
        [teams."b\\n"]
        grants = { capabilities = ["search"] }
        """
    )
    with pytest.raises(ConfigError) as refused:
        config.assemble(path)
    problems = "\n".join(refused.value.problems)
    for problem in (
        "keys.stale_hours: must be greater than 0",
        "teams.flat: must be a table of its own",
        "teams.a.grant: unknown key; did you mean 'grants'?",
        "teams.a.limits.concurrent: must be greater than or equal to 1",
        "teams.a.limits.budget: its window must be one of day, week, month",
        "a team's name has 1 to 200 printable characters",
        "grants.capabilities[0]: must be one of audio,",
    ):
        assert problem in problems
