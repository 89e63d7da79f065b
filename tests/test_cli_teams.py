"""`lockgate teams`: what it prints, and which teams it leaves alone."""

from __future__ import annotations

import json

import pytest
from commands import lockgate_in, told
from states import settings_in

from proxy.records import audit

FIXED = """
[teams.fixed]
grants = { models = ["gpt-*"] }
limits = { budget = { usd = 5, window = "day" } }
"""


@pytest.fixture
def lockgate(tmp_path):
    """Run `lockgate …` with a configuration that has the team `fixed`."""
    return lockgate_in(tmp_path, FIXED)


def answer(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_team_is_made_shown_changed_and_deleted(lockgate, tmp_path):
    made = answer(
        lockgate("teams", "create", "web", "--models", "a,b*", "--budget", "50/month", "--note", "n", "--json")
    )
    expected = {"name": "web", "source": "database", "note": "n", "grants": {"models": ["a", "b*"]}}
    assert made == {**expected, "limits": {"budget": {"usd": 50, "window": "month"}}}
    lockgate("keys", "create", "--name", "app", "--team", "web")
    assert answer(lockgate("teams", "show", "web", "--json")) == {**made, "keys": 1}
    options = ["--capabilities", "none", "--concurrent", "2", "--clear", "models", "--clear", "note"]
    changed = answer(lockgate("teams", "update", "web", *options, "--json"))
    assert (changed["grants"], changed["note"]) == ({"capabilities": []}, None)
    assert changed["limits"] == {"budget": {"usd": 50, "window": "month"}, "concurrent": 2}
    deleted = lockgate("teams", "delete", "web")
    assert deleted.stdout == "Team web is deleted. Keys refused from now on: 1.\n"
    assert "there is no team 'web': `lockgate teams list` shows all" in told(lockgate("teams", "show", "web"))
    assert "there is no team 'web'" in told(lockgate("teams", "update", "web", "--n", "1"))
    assert "there is no team 'web'" in told(lockgate("teams", "delete", "web"))
    acts = [act["act"] for act in audit.acts(settings_in(tmp_path / "state"))]
    assert acts == ["team.create", "key.create", "team.update", "team.delete"]


def test_a_team_of_the_configuration_is_shown_and_changed_there(lockgate):
    [fixed] = answer(lockgate("teams", "list", "--json"))
    assert fixed == {
        "name": "fixed",
        "source": "configuration",
        "note": None,
        "grants": {"models": ["gpt-*"]},
        "limits": {"budget": {"usd": 5, "window": "day"}},
        "keys": 0,
    }
    assert answer(lockgate("teams", "show", "fixed", "--json")) == fixed
    for command in (["create", "fixed"], ["update", "fixed", "--n", "1"]):
        assert "the team 'fixed' is in the configuration: change it there" in told(lockgate("teams", *command))
    assert "there is no team 'fixed'" in told(lockgate("teams", "delete", "fixed"))


def test_a_team_in_both_is_the_configurations_and_the_list_says_so(lockgate, tmp_path):
    config = tmp_path / "lockgate.toml"
    lockgate("teams", "create", "web", "--n", "9")
    lockgate("keys", "create", "--name", "app", "--team", "web")
    config.write_text(config.read_text() + "[teams.web]\ngrants = { n = 2 }\n")
    rows = [(row["name"], row["source"], row["grants"]) for row in answer(lockgate("teams", "list", "--json"))]
    assert rows == [
        ("fixed", "configuration", {"models": ["gpt-*"]}),
        ("web", "configuration", {"n": 2}),
        ("web", "database, not in use: the configuration has this team too", {"n": 9}),
    ]
    assert answer(lockgate("teams", "show", "web", "--json"))["grants"] == {"n": 2}
    assert lockgate("teams", "delete", "web").stdout == "Team web is deleted.\n"
    assert answer(lockgate("teams", "show", "web", "--json"))["keys"] == 1


def test_the_list_is_a_line_a_team(lockgate):
    lockgate("teams", "create", "[red]web[/red]", "--models", "a")
    heading, first, second = lockgate("teams", "list").stdout.splitlines()
    assert heading.split() == ["name", "source", "keys", "grants", "limits"]
    assert first.split()[:2] == ["[red]web[/red]", "database"] and '{"models": ["a"]}' in first
    assert second.split()[:3] == ["fixed", "configuration", "0"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["create", " "], "name: 1 to 200 printable characters are needed"),
        (["create", "a\nb"], "name: 1 to 200 printable characters are needed"),
        (["create", "web", "--note", "\t"], "note: 1 to 1000 printable characters are needed"),
        (["create", "web", "--n", "0"], "grants.n: must be greater than or equal to 1"),
        (["create", "web", "--budget", "1/hour"], "limits.budget: its window must be one of day, week, month"),
        (["create", "taken"], "there is a team 'taken' already"),
    ],
)
def test_what_is_no_team_is_refused_by_name(lockgate, arguments, problem):
    lockgate("teams", "create", "taken")
    assert told(lockgate("teams", *arguments)).startswith(f"lockgate: {problem}")
    assert [row["name"] for row in answer(lockgate("teams", "list", "--json"))] == ["fixed", "taken"]


def test_a_change_of_nothing_is_a_mistake(lockgate):
    lockgate("teams", "create", "web")
    assert lockgate("teams", "update", "web").exit_code == 2


def test_the_effective_settings_show_teams_as_a_file_has_them(lockgate, tmp_path):
    shown = lockgate("check", "--print").stdout
    assert '[teams.fixed]\ngrants = { models = ["gpt-*"] }\nlimits = { budget = { usd = 5, window = "day" } }' in shown
    assert "[keys]\nstale_hours = 24.0" in shown
    (tmp_path / "lockgate.toml").write_text(shown)
    assert lockgate("check", "--print").stdout == shown
