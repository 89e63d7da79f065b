"""`lockgate usage`, `requests` and `ledger`: what they print of what was journalled."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from states import both_databases
from test_shipping import exchange, refused, whole

from proxy.cli import main
from proxy.records import host
from proxy.records.journal import Journal

NOW = time.time()
BASE = """
[providers.echo]
use = "echo"
[models.echo]
targets = ["echo"]
[server]
insecure = true
state = "state"
"""


@pytest.fixture
def lockgate(tmp_path, database_url):
    """Run `lockgate …` with a ledger in either database."""
    path = tmp_path / "lockgate.toml"
    path.write_text(BASE + ('[database]\nurl = { file = "url" }\n' if database_url else ""))
    (tmp_path / "url").write_text(database_url or "-")

    def run(*arguments, code=0):
        done = CliRunner().invoke(main, [*arguments, "--config", str(path)])
        assert done.exit_code == code, done.output
        return done

    run("db", "upgrade")
    return run


@pytest.fixture
def journal(tmp_path, lockgate):
    from proxy.config import assemble
    from proxy.records.index import key

    settings, _ = assemble(tmp_path / "lockgate.toml")
    (tmp_path / "state" / "journal").mkdir(parents=True, exist_ok=True)
    opened = Journal(tmp_path / "state" / "journal", key(settings))
    yield opened
    opened.close()


@pytest.fixture
def filled(journal, lockgate):
    """A ledger with some requests in it."""
    for number in range(3):
        whole(journal, number=number, at=NOW - 60 + number, cost=1_500_000)
    whole(journal, number=3, team="=cmd", model="n", subject="k2", at=NOW - 30)
    refused(journal, 9, NOW - 20)
    lost = exchange(5, at=NOW - 10)
    lost.cost_estimate = 42
    journal.start(lost)
    journal.close()
    lockgate("ledger", "ship", "--once")
    return lockgate


@both_databases
def test_usage_is_told_by_whatever_is_asked_for(filled):
    rows = json.loads(filled("usage", "--json").stdout)
    assert [(row["team"], row["model"], row["requests"], row["cost"]) for row in rows] == [
        ("search", "m", 4, 4_500_042), ("=cmd", "n", 1, 7), ("", "", 1, 0),
    ]  # fmt: skip
    assert (rows[0]["lost"], rows[0]["estimated"], rows[0]["prompt_tokens"]) == (1, 1, 30)
    [only] = json.loads(filled("usage", "--by", "key", "--team", "search", "--since", "1d", "--json").stdout)
    assert (only["key"], only["requests"]) == ("k1", 4)
    assert json.loads(filled("usage", "--by", "", "--json").stdout)[0]["requests"] == 6
    days = json.loads(filled("usage", "--by", "day,model", "--model", "n", "--json").stdout)
    assert [row["day"][-10:] for row in days] == ["T00:00:00Z"]
    assert json.loads(filled("usage", "--since", "2999-01-01", "--json").stdout) == []
    assert json.loads(filled("usage", "--since", "900d", "--json").stdout) == rows


def test_usage_as_a_table_and_as_csv(filled):
    table = filled("usage").stdout
    assert "$4.500042" in table and "all" in table
    rows = list(csv.DictReader(io.StringIO(filled("usage", "--csv").stdout)))
    assert [(row["team"], row["cost"]) for row in rows] == [("search", "4500042"), ("'=cmd", "7"), ("", "0")]


def test_usage_refuses_what_it_cannot_tell(filled):
    assert "team, key, model" in filled("usage", "--by", "colour", code=2).stderr
    assert "once at most" in filled("usage", "--by", "team,team", code=2).stderr
    assert "hours are not kept" in filled("usage", "--by", "hour", "--since", "900d", code=1).stderr
    assert "neither" in filled("usage", "--since", "yesterday", code=2).stderr


@both_databases
def test_requests_are_shown_and_found(filled):
    def found(*arguments):
        lines = filled("requests", *arguments, "--json").stdout.splitlines()
        return [json.loads(line)["id"][-1] for line in lines]

    assert found("tail", "-n", "3") == ["3", "9", "5"]
    table = filled("requests", "tail").stdout
    assert "invalid_api_key" in table and "lost" in table and "10+5" in table
    shown = filled("requests", "show", "req_00000001").stdout
    assert "tests" in shown and "$1.5" in shown and "up/m" in shown
    assert json.loads(filled("requests", "show", "req_00000001", "--json").stdout)["attempts"][0][0] == "up/m"
    assert "no request has the id 'x'" in filled("requests", "show", "x", code=1).stderr
    assert found("search", "--key", "k2") == ["3"]
    assert found("search", "--status", "401") == ["9"] == found("search", "--error", "invalid_api_key")
    assert found("search", "--state", "lost") == ["5"]
    assert found("search", "--agent", "tes", "--model", "m", "--since", "1h") == ["5", "2", "1", "0"]
    limited = filled("requests", "search", "-n", "2")
    assert "more than 2" in limited.stderr


def test_without_the_ledger_requests_come_from_the_journal_and_it_says_so(filled, tmp_path):
    (tmp_path / "state" / "lockgate.db").rename(tmp_path / "away")
    done = filled("requests", "tail", "--json")
    assert len(done.stdout.splitlines()) == 6
    assert "this is from the journal" in done.stderr


@both_databases
def test_the_status_says_how_far_the_ledger_is(filled, tmp_path, database_url):
    facts = json.loads(filled("ledger", "status", "--json").stdout)
    assert (facts["requests"], facts["behind_bytes"], facts["problem"], facts["shipper"]) == (6, 0, None, None)
    assert "none runs on this host" in filled("ledger", "status").stdout
    later = Journal(tmp_path / "state" / "journal", (tmp_path / "state" / "journal.key").read_text().strip().encode())
    whole(later)
    later.close()
    assert json.loads(filled("ledger", "status", "--json").stdout)["behind_bytes"] > 100


def test_a_ledger_that_cannot_be_written_is_a_problem_with_an_exit_code(filled, tmp_path):
    (tmp_path / "state" / "lockgate.db").write_bytes(b"no database" * 100)
    assert "is not a database" in filled("ledger", "status", code=1).stdout
    assert "is not a database" in filled("ledger", "ship", "--once", code=1).stderr
    assert "is not a database" in filled("usage", code=1).stderr


def test_a_second_shipper_is_refused_and_may_wait(filled, tmp_path):
    held = host.lock(tmp_path / "state")
    assert "another shipper runs on this host" in filled("ledger", "ship", code=1).stderr
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "ledger", "ship", "--wait", "--config"]
    waiting = subprocess.Popen([*command, str(tmp_path / "lockgate.toml")], stderr=subprocess.DEVNULL)
    try:
        os.close(held)
        deadline = time.monotonic() + 20
        while (free := host.lock(tmp_path / "state")) is not None and time.monotonic() < deadline:
            os.close(free)
            time.sleep(0.05)
        assert free is None
        waiting.terminate()
        assert waiting.wait(20) == 0
    finally:
        waiting.kill()
        waiting.wait()
