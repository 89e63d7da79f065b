"""`lockgate keys import`: keys from elsewhere, all of them or none."""

from __future__ import annotations

import json

import pytest
from commands import listed, lockgate_in
from states import database_in, settings_in

from proxy.access import keys
from proxy.access.pepper import pepper
from proxy.records.snapshot import Snapshot


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path / "state")


@pytest.fixture
def lockgate(tmp_path):
    """Run `lockgate keys …` with a configuration whose state is in a new directory, and a team `search`."""
    return lockgate_in(tmp_path, "[teams.search]\n", "keys")


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def found(settings, *tokens):
    """The identity of each key, as a gateway finds it."""
    with database_in(settings.server.state) as database:
        snapshot = Snapshot(database, pepper(settings))
        snapshot.refresh()
        return [snapshot.find(token) for token in tokens]


def test_keys_are_taken_over_plain_as_digests_and_made_anew(lockgate, settings):
    _, ours = keys.new_key()
    foreign = "sk-proj-" + "A1b2" * 10
    made_before = keys.digest(pepper(settings), ours).hex()
    text = lines(
        {"id": "Old-1.x", "name": "foreign", "team": "search", "key": foreign, "expires": "2999-01-31"},
        {"name": "ours", "digest": made_before, "grants": {"models": ["a"]}, "limits": {"concurrent": 2}, "note": None},
        {"name": "new", "limits": {"budget": {"usd": 5, "window": "day"}}},
    )
    result = lockgate("import", "--json", input="\ufeff" + text + "\n\n")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert ["key" in row for row in rows] == [False, False, True]
    assert foreign not in result.output and made_before not in result.output
    first, second, third = found(settings, foreign, ours, rows[2]["key"])
    assert (first.subject, first.name, first.team, first.expires) == ("Old-1.x", "foreign", "search", 32474736000.0)
    assert (second.grants, second.limits) == ({"models": ["a"]}, {"concurrent": 2})
    assert third.limits == {"budget": {"amount": 5_000_000, "window": "day"}}
    assert sorted(row["name"] for row in listed(lockgate)) == ["foreign", "new", "ours"]


def test_a_table_has_the_columns_that_create_has_as_options(lockgate, settings, tmp_path):
    file = tmp_path / "keys.csv"
    file.write_text(
        "name,team,owner,models,capabilities,concurrent,budget,key\n"
        'app,search,jo,"gpt-5,llama*",none,3,50/month,' + "k" * 32 + "\n"
        "other,,,,,,,\n"
    )
    result = lockgate("import", str(file))
    assert result.exit_code == 0, result.output
    [printed] = result.stdout.splitlines()
    id, name, text = printed.split(",")
    assert name == "other" and text.startswith(f"lg_{id}_")
    assert "2 keys were imported. 1 of them are new." in result.stderr
    app, other = found(settings, "k" * 32, text)
    assert (app.name, app.team) == ("app", "search")
    assert app.grants == {"models": ["gpt-5", "llama*"], "capabilities": []}
    assert app.limits == {"concurrent": 3, "budget": {"amount": 50_000_000, "window": "month"}}
    assert (other.subject, other.team, other.grants, other.limits) == (id, None, {}, {})


def test_one_wrong_line_stops_all_of_them_and_each_is_named(lockgate):
    good = {"name": "good"}
    bad = [
        "{",
        "[]",
        '{"nam": "x"}',
        '{"name": ""}',
        '{"name": 5}',
        '{"name": "a", "team": "nobody"}',
        '{"name": "a", "id": "a b"}',
        '{"name": "a", "key": "short"}',
        '{"name": "a", "key": "' + "x" * 31 + ' "}',
        '{"name": "a", "digest": "' + "F" * 64 + '"}',
        '{"name": "a", "digest": "' + "0" * 64 + '", "key": "' + "k" * 32 + '"}',
        '{"name": "a", "expires": "soon"}',
        '{"name": "a", "limits": {"concurrent": 0, "budget": 5}}',
        '{"name": "a", "state": "revoked"}',
        '{"name": "a\\ud800"}',
        '{"name": "a", "grants": ' + "[" * 100_000 + "}",
        '{"name": "a", "grants": {"models": ["\\ud800"]}}',
        '{"name": "a", "key": "' + "x" * 31 + ',"}',
    ]
    result = lockgate("import", input="\n".join([json.dumps(good), *bad]))
    assert result.exit_code == 1 and listed(lockgate) == []
    told = [line.removeprefix("lockgate: ") for line in result.stderr.splitlines()]
    assert told[-1] == "nothing was imported"
    assert [line for line in told if line.startswith("line 1:")] == []
    for number, text in (
        (2, "not JSON"),
        (3, "must be a JSON object"),
        (4, "'nam': there is no such column"),
        (5, "name: 1 to 200 printable characters are needed"),
        (6, "name: must be a text"),
        (8, "id: 1 to 64 letters, digits, dots and hyphens are needed"),
        (9, "key: 32 to 128 printable characters"),
        (10, "key: 32 to 128 printable characters"),
        (11, "digest: 64 hexadecimal digits are needed"),
        (12, "key, digest: one of them is enough"),
        (13, "expires: 'soon' is neither"),
        (14, "limits.concurrent: must be greater than or equal to 1"),
        (14, 'limits.budget: must be { usd = 50, window = "month" }'),
        (15, "'state': there is no such column"),
        (16, "name: 1 to 200 printable"),
        (17, "not JSON"),
        (18, "grants.models[0]: must be Unicode text"),
        (19, "key: 32 to 128 printable characters"),
    ):
        assert any(line.startswith(f"line {number}: {text}") for line in told), (number, text, told)


def test_keys_that_are_there_already_or_twice_and_unknown_teams_stop_all(lockgate, settings):
    made = json.loads(lockgate("create", "--name", "app", "--json").stdout)
    rotated = json.loads(lockgate("rotate", made["id"], "--grace", "1h", "--json").stdout)
    result = lockgate(
        "import",
        input=lines(
            {"name": "good"},
            {"name": "a", "id": made["id"]},
            {"name": "b", "key": made["key"]},
            {"name": "c", "key": rotated["key"]},
            {"name": "d", "id": "same", "key": "k" * 32},
            {"name": "e", "id": "same", "key": "k" * 32},
            {"name": "f", "team": "nobody"},
        ),
    )
    assert result.exit_code == 1 and len(listed(lockgate)) == 1
    assert result.stderr.splitlines() == [
        f"lockgate: line 2: id: there is a key {made['id']!r} already",
        "lockgate: line 3: key: it is there already",
        "lockgate: line 4: key: it is there already",
        "lockgate: line 6: id: there is a key 'same' already",
        "lockgate: line 6: key: it is there already",
        "lockgate: line 7: team: there is no team 'nobody': `lockgate teams create` makes one",
        "lockgate: nothing was imported",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"name,key\napp\n", "line 2: must have as many columns as the heading"),
        (b"name\napp,extra\n", "line 2: must have as many columns as the heading"),
        (b'name\n"app\n', "not CSV"),
        (b"name, name\napp,other\n", "line 1: a column is there twice"),
        (b"title\napp\n", "line 2: 'title': there is no such column"),
        (b"name,concurrent\napp,many\n", "line 2: limits.concurrent: must be a whole number"),
        (b"name\n\xff\n", "the file is not UTF-8 text"),
    ],
)
def test_what_is_no_table_of_keys_is_refused(lockgate, text, problem):
    result = lockgate("import", "--format", "csv", input=text)
    assert result.exit_code == 1 and problem in result.stderr and "Traceback" not in result.output
    assert listed(lockgate) == []


def test_an_empty_file_imports_nothing_and_many_mistakes_are_not_all_told(lockgate):
    assert "0 keys were imported." in lockgate("import", input="\n").stderr
    told = lockgate("import", input="{}\n" * 80).stderr.splitlines()
    assert len(told) == 52 and told[-2:] == ["lockgate: and 30 more", "lockgate: nothing was imported"]
