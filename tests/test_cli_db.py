"""`lockgate db`: what it says of each database, and how it brings one up."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from postgresqls import PASSWORD

from proxy.cli import main
from proxy.records.tables import HEAD


@pytest.fixture
def lockgate(tmp_path):
    """Run `lockgate …` on a configuration with this `[database]`."""
    path = tmp_path / "lockgate.toml"
    base = '[providers.echo]\nuse = "echo"\n[models.echo]\ntargets = ["echo"]\n[server]\ninsecure = true\n'

    def run(*arguments, database=""):
        path.write_text(base + database)
        return CliRunner().invoke(main, [*arguments, "--config", str(path)])

    return run


def test_the_database_in_the_state_folder_is_made_and_shown(lockgate, tmp_path):
    before = lockgate("db", "status")
    assert before.exit_code == 1
    assert "unusable" in before.stdout
    assert lockgate("db", "upgrade").stdout == f"The database is at revision {HEAD}, before: –.\n"
    after = lockgate("db", "status", "--json")
    path = str(tmp_path / "var" / "lockgate.db")
    assert json.loads(after.stdout) == {"revision": HEAD, "needed": HEAD, "database": path, "state": "current"}
    assert after.exit_code == 0


def test_postgresql_is_upgraded_by_the_command_and_used_after_it(lockgate, postgres, monkeypatch):
    monkeypatch.setenv("DATABASE", postgres)
    section = '[database]\nurl = { env = "DATABASE" }\n'
    empty = lockgate("db", "status", "--json", database=section)
    assert (json.loads(empty.stdout)["state"], empty.exit_code) == ("empty", 1)
    refused = lockgate("keys", "list", database=section)
    assert (refused.exit_code, "run `lockgate db upgrade` once" in refused.stderr) == (1, True)
    assert json.loads(lockgate("db", "upgrade", "--json", database=section).stdout) == {"before": None, "after": HEAD}
    assert lockgate("db", "status", database=section).exit_code == 0
    assert lockgate("keys", "create", "--name", "app", database=section).exit_code == 0
    monkeypatch.setenv("DATABASE", postgres + "_gone")
    gone = [lockgate("db", what, database=section) for what in ("status", "upgrade")]
    assert [done.exit_code for done in gone] == [1, 1]
    assert not any(PASSWORD in done.output for done in gone)
