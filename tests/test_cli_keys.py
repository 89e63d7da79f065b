"""`lockgate keys`: what it prints, and what it says when it cannot."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import pytest
from commands import listed, lockgate_in, told
from states import database_in, settings_in

from proxy.access import teams
from proxy.access.pepper import pepper
from proxy.records import audit
from proxy.records.snapshot import Snapshot


@pytest.fixture
def lockgate(tmp_path):
    """Run `lockgate keys …` with a configuration whose state is in a new directory, and a team `search`."""
    return lockgate_in(tmp_path, "[teams.search]\n", "keys")


def made(lockgate, *arguments):
    return json.loads(lockgate("create", "--name", "app", *arguments, "--json").stdout)


def live(tmp_path, *tokens):
    """Tell of each key whether a gateway would let it in."""
    with database_in(tmp_path / "state") as database:
        snapshot = Snapshot(database, pepper(settings_in(tmp_path / "state")))
        snapshot.refresh()
        return [snapshot.find(token) is not None for token in tokens]


def test_create_prints_a_working_key_once(lockgate, tmp_path):
    made = lockgate("create", "--name", "app", "--team", "search", "--owner", "jo", "--note", "n", "--expires", "90d")
    assert (made.exit_code, made.stdout.count("\n")) == (0, 1)
    key = made.stdout.strip()
    [row] = listed(lockgate)
    assert f"Key {row['id']} for app" in made.stderr and key not in made.stderr
    assert (row["name"], row["team"], row["owner"], row["note"], row["state"]) == ("app", "search", "jo", "n", "active")
    with database_in(tmp_path / "state") as database:
        snapshot = Snapshot(database, pepper(settings_in(tmp_path / "state")))
        snapshot.refresh()
        found = snapshot.find(key)
    assert (found.subject, found.name, found.team) == (row["id"], "app", "search")
    assert found.expires == pytest.approx(time.time() + 90 * 86400, abs=60)
    assert key.rpartition("_")[2] not in lockgate("list").stdout + lockgate("list", "--json").stdout


def test_create_can_answer_in_json(lockgate):
    made = json.loads(lockgate("create", "--name", "app", "--json").stdout)
    assert made["key"].startswith(f"lg_{made['id']}_")
    assert {name: value for name, value in made.items() if name != "key"} == listed(lockgate)[0]
    assert "digest" not in made


def test_list_shows_one_key_a_line_and_takes_no_name_for_markup(lockgate):
    lockgate("create", "--name", "[red]first[/red] " + "x" * 150, "--team", "search")
    lockgate("create", "--name", "second")
    heading, first, second = lockgate("list").stdout.splitlines()
    assert heading.split() == ["id", "name", "team", "owner", "state", "created", "expires"]
    assert "[red]first[/red] " + "x" * 150 in first and "search" in first and "active" in first
    assert second.split()[1:3] == ["second", "active"]


def test_revoke_ends_a_key_and_names_an_unknown_one(lockgate):
    id = json.loads(lockgate("create", "--name", "app", "--json").stdout)["id"]
    revoked = lockgate("revoke", id)
    assert (revoked.exit_code, revoked.stdout.startswith(f"Key {id} (app) is revoked since 2")) == (0, True)
    assert json.loads(lockgate("revoke", id, "--json").stdout) == listed(lockgate)[0]
    assert listed(lockgate)[0]["state"] == "revoked"
    unknown = lockgate("revoke", "nobody")
    assert unknown.exit_code == 1
    assert unknown.stderr == "lockgate: there is no key 'nobody': `lockgate keys list` shows all\n"
    assert "there is no key '\\udcff'" in lockgate("show", "\udcff").stderr


@pytest.mark.parametrize("expires", ["30m", "12h", "2w", "2999-01-31", "2999-01-31T12:00:00+02:00"])
def test_an_expiry_is_a_span_or_a_date(lockgate, expires):
    made = lockgate("create", "--name", "app", "--expires", expires)
    assert made.exit_code == 0
    if expires.startswith("2999"):
        assert listed(lockgate)[0]["expires"] in ("2999-01-31T00:00:00Z", "2999-01-31T10:00:00Z")


@pytest.mark.parametrize("expires", ["", "0d", "-1d", "90", "90 days", "d", "2001-01-31", "9999999999d", "soon"])
def test_an_expiry_that_is_none_is_refused(lockgate, expires):
    refused = lockgate("create", "--name", "app", "--expires", expires)
    assert refused.exit_code == 2 and "Invalid value for '--expires'" in refused.stderr
    assert listed(lockgate) == []


def test_a_command_says_what_is_wrong_with_a_name_the_configuration_or_the_database(lockgate, tmp_path):
    assert "lockgate: name: 1 to 200 printable characters are needed" in lockgate("create", "--name", "\t").stderr
    (tmp_path / "state" / "pepper").chmod(0o644)
    assert "pepper is open to other users" in lockgate("create", "--name", "app").stderr
    (tmp_path / "state" / "lockgate.db").write_bytes(b"no database" * 100)
    assert "lockgate.db is not a database" in lockgate("list").stderr
    (tmp_path / "lockgate.toml").write_text("chian = []")
    refused = lockgate("list")
    assert refused.exit_code == 1 and "chian" in refused.stderr


def test_grants_and_limits_are_given_as_options_and_shown_in_dollars(lockgate):
    given = ["--models", "gpt-5,llama*", "--capabilities", "web_search, tools", "--max-tokens", "500", "--n", "2"]
    given += ["--service-tier", "auto", "--parameters", "top_k", "--requests-per-minute", "60"]
    given += ["--tokens-per-minute", "1000", "--concurrent", "3", "--budget", "12.5/week"]
    id = made(lockgate, *given)["id"]
    shown = json.loads(lockgate("show", id, "--json").stdout)
    assert shown["grants"] == {
        "models": ["gpt-5", "llama*"],
        "capabilities": ["web_search", "tools"],
        "max_tokens": 500,
        "n": 2,
        "service_tier": ["auto"],
        "parameters": ["top_k"],
    }
    assert shown["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "concurrent": 3,
        "budget": {"usd": 12.5, "window": "week"},
    }
    assert made(lockgate, "--capabilities", "none")["grants"] == {"capabilities": []}


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--models", "a,,b", "grants.models[1]: must not be empty"),
        ("--models", "", "grants.models[0]: must not be empty"),
        ("--models", "\udcff", "grants.models[0]: must be Unicode text"),
        ("--capabilities", "websearch", "grants.capabilities[0]: must be one of audio,"),
        ("--n", "0", "grants.n: must be greater than or equal to 1"),
        ("--max-tokens", "many", "grants.max_tokens: must be a whole number"),
        ("--requests-per-minute", "-1", "limits.requests_per_minute: must be a whole number"),
        ("--concurrent", "1.5", "limits.concurrent: must be a whole number"),
        ("--concurrent", "9" * 30, "limits.concurrent: must be a whole number"),
        ("--budget", "50", "limits.budget: its window must be one of day, week, month"),
        ("--budget", "-5/month", "limits.budget: its usd must be a number above 0"),
        ("--budget", "nan/month", "limits.budget: its usd must be a number above 0"),
        ("--team", "nobody", "team: there is no team 'nobody': `lockgate teams create` makes one"),
    ],
)
def test_what_is_no_grant_limit_or_team_is_refused_and_no_key_made(lockgate, option, value, problem):
    assert told(lockgate("create", "--name", "app", option, value)).startswith(f"lockgate: {problem}")
    assert listed(lockgate) == []


def test_update_changes_what_is_named_and_takes_back_what_is_cleared(lockgate):
    id = made(lockgate, "--owner", "jo", "--models", "a", "--concurrent", "3", "--expires", "1d")["id"]
    changed = lockgate("update", id, "--team", "search", "--n", "1", "--clear", "models", "--clear", "owner", "--json")
    row = json.loads(changed.stdout)
    assert (row["name"], row["team"], row["owner"]) == ("app", "search", None)
    assert (row["grants"], row["limits"]) == ({"n": 1}, {"concurrent": 3})
    assert row["expires"] and row == listed(lockgate)[0]
    assert json.loads(lockgate("update", id, "--clear", "expires", "--json").stdout)["expires"] is None
    assert "limits   {" not in lockgate("update", id, "--clear", "concurrent").stdout
    assert lockgate("update", id).exit_code == 2
    assert "there is no team 'x'" in told(lockgate("update", id, "--team", "x"))
    assert "there is no key 'nobody'" in told(lockgate("update", "nobody", "--name", "x"))
    lockgate("revoke", id)
    assert f"the key {id} is revoked, for good" in told(lockgate("update", id, "--name", "x"))


def test_rotate_prints_the_new_secret_and_the_old_one_lives_for_its_grace(lockgate, tmp_path):
    key = made(lockgate)
    rotated = json.loads(lockgate("rotate", key["id"], "--grace", "24h", "--json").stdout)
    assert rotated["id"] == key["id"] and rotated["key"] != key["key"]
    assert live(tmp_path, key["key"], rotated["key"]) == [True, True]
    shown = json.loads(lockgate("show", key["id"], "--json").stdout)
    [end] = shown["retiring"]
    assert end > shown["created"] and "key" not in shown
    last = lockgate("rotate", key["id"])
    assert last.stdout.startswith(f"lg_{key['id']}_") and "store it now" in last.stderr
    assert live(tmp_path, key["key"], rotated["key"], last.stdout.strip()) == [False, False, True]
    lockgate("revoke", key["id"])
    assert "is revoked, for good" in told(lockgate("rotate", key["id"]))
    assert "there is no key 'nobody'" in told(lockgate("rotate", "nobody"))
    assert lockgate("rotate", key["id"], "--grace", "soon").exit_code == 2


def test_show_prints_a_line_for_each_thing_that_is_known(lockgate):
    id = made(lockgate, "--team", "search", "--models", "a")["id"]
    lines = dict(line.split(maxsplit=1) for line in lockgate("show", id).stdout.splitlines())
    assert (lines["id"], lines["team"], lines["grants"], lines["state"]) == (
        id,
        "search",
        '{"models": ["a"]}',
        "active",
    )
    assert "owner" not in lines and "retiring" not in lines
    assert "there is no key 'nobody'" in told(lockgate("show", "nobody"))


def test_a_lost_pepper_stops_new_keys_until_all_is_begun_anew(lockgate, tmp_path):
    old = made(lockgate)["key"]
    (tmp_path / "state" / "pepper").unlink()
    for command in (["create", "--name", "b"], ["rotate", "x"], ["import"]):
        assert "pepper is missing, and without that no key can be recognised" in told(lockgate(*command, input=""))
    assert lockgate("list").exit_code == 0
    assert lockgate("reset", input="n\n").exit_code == 1
    assert json.loads(lockgate("reset", "--yes", "--json").stdout) == {"revoked": 1}
    assert live(tmp_path, old, made(lockgate)["key"]) == [False, True]


def test_each_act_is_in_the_audit_without_any_secret(lockgate, tmp_path):
    key = made(lockgate, "--team", "search")
    rotated = json.loads(lockgate("rotate", key["id"], "--grace", "1h", "--json").stdout)
    lockgate("update", key["id"], "--models", "a", "--note", "n")
    lockgate("revoke", key["id"])
    lockgate("import", input='{"name": "b"}')
    lockgate("update", key["id"], "--note", "refused")
    lockgate("reset", "--yes")
    found = list(audit.acts(settings_in(tmp_path / "state")))
    assert [act["act"] for act in found] == [
        f"key.{what}" for what in "create rotate update revoke import reset".split()
    ]
    assert found[2]["details"] == {"key": key["id"], "changed": ["models", "note"]}
    written = json.dumps(found)
    assert not any(secret["key"].rpartition("_")[2] in written for secret in (key, rotated))


def test_an_act_that_cannot_be_noted_is_not_done(lockgate, monkeypatch):
    key = made(lockgate)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "note", full)
    assert "No space left on device" in told(lockgate("revoke", key["id"]))
    assert "No space left on device" in told(lockgate("create", "--name", "b"))
    assert [row["state"] for row in listed(lockgate)] == ["active"]


def test_keys_of_a_team_in_the_database_are_made_too(lockgate, tmp_path):
    lockgate("list")
    with database_in(tmp_path / "state") as database, database.write() as connection:
        teams.create(connection, "web")
    assert made(lockgate, "--team", "web")["team"] == "web"


def test_a_database_of_a_newer_version_or_one_that_is_gone_or_held_is_refused_by_name(lockgate, tmp_path, monkeypatch):
    made(lockgate)
    path = tmp_path / "state" / "lockgate.db"
    monkeypatch.setattr("proxy.records.sqlite.BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "lockgate.db is locked by another process" in told(lockgate("create", "--name", "b"))
        other.execute("ROLLBACK")
        other.execute("UPDATE alembic_version SET version_num = '9000'")
    assert "was made by a newer Lockgate" in told(lockgate("list"))
