"""`lockgate keys`: what it prints, and what it says when it cannot."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner
from states import database_in, settings_in

from proxy import keys
from proxy.cli import keys as cli_keys
from proxy.records.snapshot import Snapshot


@pytest.fixture
def lockgate(tmp_path):
    """Run `lockgate keys …` with a configuration whose state is in a new directory."""
    path = tmp_path / "lockgate.toml"
    path.write_text(
        """
        chain = ["keys"]
        [server]
        state = "state"
        [plugins.keys]
        use = "api_keys"
        [providers.echo]
        use = "echo"
        [models.echo]
        targets = ["echo"]
        """
    )

    def run(*arguments):
        return CliRunner().invoke(cli_keys.keys, [*arguments, "--config", str(path)])

    return run


def listed(lockgate):
    return json.loads(lockgate("list", "--json").stdout)


def test_create_prints_a_working_key_once(lockgate, tmp_path):
    made = lockgate("create", "--name", "app", "--team", "search", "--owner", "jo", "--note", "n", "--expires", "90d")
    assert (made.exit_code, made.stdout.count("\n")) == (0, 1)
    key = made.stdout.strip()
    [row] = listed(lockgate)
    assert f"Key {row['id']} for app" in made.stderr and key not in made.stderr
    assert (row["name"], row["team"], row["owner"], row["note"], row["state"]) == ("app", "search", "jo", "n", "active")
    with database_in(tmp_path / "state") as database:
        snapshot = Snapshot(database, keys.pepper(settings_in(tmp_path / "state")))
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
    assert unknown.stderr == "lockgate: no key has the id 'nobody': `lockgate keys list` shows all\n"


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
    assert "--name: 1 to 200 printable characters are needed" in lockgate("create", "--name", "\t").stderr
    (tmp_path / "state" / "pepper").chmod(0o644)
    assert "pepper is open to other users" in lockgate("create", "--name", "app").stderr
    (tmp_path / "state" / "lockgate.db").write_bytes(b"no database" * 100)
    assert "lockgate.db is not a database" in lockgate("list").stderr
    (tmp_path / "lockgate.toml").write_text("chian = []")
    refused = lockgate("list")
    assert refused.exit_code == 1 and "chian" in refused.stderr
