"""The shipper: each record of the journal comes to the ledger once, whatever dies and whenever."""

from __future__ import annotations

import json
import os
import threading

import pytest
from sqlalchemy import select, text
from states import both_databases, database_in

from proxy.exchange import Attempt, Exchange, Identity, Usage
from proxy.records import host, shipping
from proxy.records.database import Database
from proxy.records.journal import Journal
from proxy.records.shipping import Shipper
from proxy.records.tables import requests, shipped, usage

NOW = 1_800_000_000.0
KEY = b"k" * 32


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def database(state, database_url):
    state.mkdir(exist_ok=True)
    with database_in(state, database_url) as opened:
        yield opened


@pytest.fixture
def journal(state):
    """Opens journals; those that are open live."""
    opened = []

    def open_(clock=lambda: NOW):
        (state / "journal").mkdir(parents=True, exist_ok=True)
        opened.append(Journal(state / "journal", KEY, clock=clock))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def shipper(database, state):
    return Shipper(database, state)


def exchange(number=0, team="search", model="m", subject="k1", cost=7, at=NOW):
    made = Exchange(f"req_{number:08d}", "POST", "/v1/chat/completions", {"user-agent": "tests"}, "127.0.0.1", at)
    made.identity = Identity(subject, "app", team)
    made.model, made.target, made.cost = model, "up/m", cost
    made.attempts = [Attempt("up/m", 0.0, 200, None, 0.5)]
    made.usage = Usage(10, 5, 2)
    made.outcome.status, made.outcome.complete = 200, True
    return made


def whole(journal, **details):
    """Journal an exchange, in lines that are written at once."""
    made = exchange(**details)
    journal.start(made)
    journal.end(made)


def refused(journal, number, at):
    made = exchange(number, at=at)
    made.identity, made.model, made.target, made.attempts, made.usage, made.cost = None, f"x{number}", None, [], None, 0
    made.outcome.status, made.outcome.code, made.outcome.complete = 401, "invalid_api_key", False
    journal.end(made)


def rows(database, table=requests):
    with database.read() as connection:
        return connection.execute(select(table).order_by(*table.primary_key)).all()


def settled(journal):
    """Have what waits in memory written."""
    journal.close()


@both_databases
def test_a_record_is_in_the_ledger_with_all_that_is_known_of_it(database, journal, shipper):
    file = journal()
    made = exchange()
    file.start(made)
    file.settle(made)
    file.end(made)
    settled(file)
    assert shipper.ship() == 1
    [row] = rows(database)
    assert row._mapping.items() >= {
        "id": "req_00000000", "state": "ended", "time": NOW, "subject": "k1", "team": "search", "model": "m",
        "target": "up/m", "status": 200, "code": None, "complete": True, "prompt_tokens": 10, "completion_tokens": 5,
        "cached_tokens": 2, "cost": 7, "agent": "tests", "client": "127.0.0.1", "host": shipper.host,
        "path": "/v1/chat/completions", "stream": False,
    }.items()  # fmt: skip
    assert row.attempts == [["up/m", 200, None, 0.5]]
    assert row.key == f"{file.path.stem}:1"


def test_what_is_under_way_waits_and_what_has_ended_does_not(database, journal, shipper):
    file = journal()
    long, short = exchange(1), exchange(2)
    for one in (long, short):
        file.start(one)
    file.end(short)
    assert (shipper.ship(), shipper.ship()) == (1, 0)
    file.end(long)
    assert (shipper.ship(), shipper.ship()) == (1, 0)
    assert [row.id for row in rows(database)] == ["req_00000001", "req_00000002"]


@both_databases
def test_a_dead_workers_exchanges_are_lost_or_settled_and_its_file_is_finished(database, journal, shipper):
    file = journal()
    lost, paid = exchange(1), exchange(2)
    lost.cost_estimate = 99
    for one in (lost, paid):
        file.start(one)
    file.settle(paid)
    assert shipper.ship() == 0
    settled(file)
    assert shipper.ship() == 2
    assert [(row.state, row.cost, row.estimated) for row in rows(database)] == [
        ("lost", 99, True),
        ("settled", 7, False),
    ]
    assert [row.finished is not None for row in rows(database, shipped)] == [True]
    assert shipper.ship() == 0
    assert shipper.behind_bytes == 0


def test_the_next_shipper_goes_on_where_the_last_one_died(database, state, journal, shipper):
    file = journal()
    begun = exchange(1)
    file.start(begun)
    whole(file, number=2)
    assert shipper.ship() == 1
    whole(file, number=3)
    # It begins before the first, which is under way, and meets the second again.
    assert Shipper(database, state).ship() == 1
    file.end(begun)
    settled(file)
    assert Shipper(database, state).ship() == 1
    assert sorted(row.id[-1] for row in rows(database)) == ["1", "2", "3"]
    assert [row.requests for row in sums(database, "day")] == [3]


def sums(database, span):
    with database.read() as connection:
        return connection.execute(select(usage).where(usage.c.span == span).order_by(*usage.primary_key)).all()


@both_databases
def test_usage_is_summed_by_hour_and_day(database, journal, shipper):
    file, later = journal(), NOW + 3600
    whole(file, number=1)
    whole(file, number=2, team="other", subject="k2")
    assert shipper.ship() == 2
    whole(file, number=3, model="n", at=later)
    whole(file, number=4, at=later)
    refused(file, 5, later)
    refused(file, 6, later)
    settled(file)
    assert shipper.ship() == 4
    hours = [(row.team, row.subject, row.model, row.requests, row.errors, row.cost) for row in sums(database, "hour")]
    first, second = NOW // 3600 * 3600, NOW // 3600 * 3600 + 3600
    assert hours == [
        ("other", "k2", "m", 1, 0, 7), ("search", "k1", "m", 1, 0, 7),
        ("", "", "", 2, 2, 0), ("search", "k1", "m", 1, 0, 7), ("search", "k1", "n", 1, 0, 7),
    ]  # fmt: skip
    assert [row.start for row in sums(database, "hour")] == [first] * 2 + [second] * 3
    days = {
        (row.team, row.model): (row.requests, row.prompt_tokens, row.cached_tokens) for row in sums(database, "day")
    }
    assert days[("search", "m")] == (2, 20, 4)


def test_a_backlog_goes_in_batches_and_none_is_missed_or_taken_twice(database, journal, shipper, monkeypatch):
    monkeypatch.setattr(shipping, "BATCH", 7)
    files = [journal() for _ in range(3)]
    for number in range(60):
        whole(files[number % 3], number=number)
    for file in files[:2]:
        settled(file)
    assert shipper.ship() == 60
    settled(files[2])
    assert shipper.ship() == 0
    assert sorted(row.id for row in rows(database)) == [f"req_{number:08d}" for number in range(60)]
    assert sum(row.requests for row in sums(database, "hour")) == 60


class Flaky:
    """A database whose transactions fail: `how` is `before` or `after` their commit, or None."""

    def __init__(self, database):
        self._database = database
        self.how = None

    def __getattr__(self, name):
        return getattr(self._database, name)

    def write(self):
        import contextlib

        @contextlib.contextmanager
        def writing():
            with self._database.write() as connection:
                yield connection
                if self.how == "before":
                    raise OSError("away")
            if self.how == "after":
                raise OSError("away")

        return writing()


@both_databases
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_transaction_of_which_nobody_knows_whether_it_was_committed_counts_once(database, state, journal, how):
    flaky = Flaky(database)
    shipper = Shipper(flaky, state)
    file = journal()
    whole(file, number=1)
    settled(file)
    flaky.how = how
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            flaky.how = None
        return len(waits) == 4

    shipper.run(wait)
    assert len(rows(database)) == 1
    assert [row.requests for row in sums(database, "day")] == [1]
    assert waits[0] > 1 and waits[-1] == 1


def test_an_outage_is_said_once_and_its_end_too(database, state, journal, caplog):
    file = journal()
    whole(file)
    settled(file)
    away = database.store.path.with_name("away")
    database.store.path.rename(away)
    shipper, waits = Shipper(database, state), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 6:
            told = shipping.told(state)
            assert "lockgate.db" in told["problem"] and told["behind_bytes"] > 0
            away.rename(database.store.path)
        return len(waits) == 7

    shipper.run(wait)
    assert waits == [2, 4, 8, 16, 30, 30, 1]
    assert len(rows(database)) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "proxy.records.shipping"]
    assert [line.partition(":")[2][:26] for line in said] == [
        " nothing can be written, t",
        " records can be written ag",
    ]
    assert shipping.told(state)["problem"] is None


@pytest.mark.parametrize(("found", "remedy"), [("9000", "this host is upgraded too"), ("0001", "lockgate db upgrade")])
def test_a_ledger_of_another_version_is_not_written_to_and_the_journal_waits(database, journal, shipper, found, remedy):
    file = journal()
    whole(file)
    settled(file)
    with database.write() as connection:
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    shipper.run(lambda _: True)
    assert f"is at revision {found}" in shipper.problem and remedy in shipper.problem
    assert rows(database) == []
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": current})
    assert shipper.ship() == 1


@both_databases
def test_two_shippers_at_once_take_no_record_twice(database, state, journal, caplog):
    file = journal()
    first, second = Shipper(database, state), Shipper(database, state)
    for number in range(4):
        whole(file, number=number)
        assert first.ship() + second.ship() + first.ship() >= 0
    settled(file)
    shippers = [threading.Thread(target=one.ship) for one in (first, second, first, second)]
    for thread in shippers[:2]:
        thread.start()
    for thread in shippers[:2]:
        thread.join()
    assert len(rows(database)) == 4
    assert sum(row.requests for row in sums(database, "hour")) == 4
    assert "another shipper has shipped this journal" in caplog.text


def test_a_host_has_one_shipper(state):
    state.mkdir()
    held = host.lock(state)
    assert host.lock(state) is None
    os.close(held)
    again = host.lock(state)
    assert again is not None
    os.close(again)


@both_databases
def test_hosts_keep_their_places_apart(database, state, tmp_path, journal, shipper):
    other = tmp_path / "other"
    (other / "journal").mkdir(parents=True)
    file = journal()
    whole(file)
    settled(file)
    assert (shipper.ship(), Shipper(database, other).ship()) == (1, 0)
    (other / "journal" / file.path.name).write_bytes(file.path.read_bytes())
    assert Shipper(database, other).ship() == 0  # the same record, whoever brings it
    assert len({row.host for row in rows(database, shipped)}) == 2
    assert host.name(state) == host.name(state) != host.name(other)


def edited(file, **changes):
    """Change the last line of a file, as somebody with an editor would."""
    lines = file.path.read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | changes)
    file.path.chmod(0o600)
    file.path.write_text("\n".join(lines) + "\n")


@both_databases
@pytest.mark.parametrize(
    "changes",
    [
        {"agent": "a\x00b\x1b[31m\ud800".encode("utf-8", "replace").decode()},
        {"code": "x" * 100_000, "culprit": ["no", "text"], "status": "200"},
        {"cost": 10**30, "bytes_out": 1.5, "duration_s": "long", "usage": [1], "attempts": [["a", 1, None, 0.1]]},
        {"findings": {"a\x00": "\x00"}, "trace": [[None]], "complete": "yes"},
    ],
)
def test_a_record_that_somebody_changed_holds_up_no_other(database, journal, shipper, changes):
    file = journal()
    whole(file, number=1)
    settled(file)
    edited(file, **changes)
    other = journal()
    whole(other, number=2)
    settled(other)
    assert shipper.ship() == 2
    row = next(row for row in rows(database) if row.id == "req_00000001")
    assert all(text.isprintable() for text in row if isinstance(text, str))


@pytest.mark.parametrize("line", [{"kind": "end", "start": 9}, {"kind": "settle"}, {"kind": "start"}, {"seq": []}, {}])
def test_a_line_that_is_no_record_holds_up_no_other(database, journal, shipper, line):
    file = journal()
    whole(file, number=1)
    settled(file)
    file.path.chmod(0o600)
    with file.path.open("a") as appended:
        appended.write(json.dumps({"kind": "end", "seq": None, "start": "x"} if line == {} else line) + "\n[1]\n{\n")
    other = journal()
    whole(other, number=2)
    settled(other)
    assert shipper.ship() == 2


def test_a_file_cut_behind_what_was_shipped_is_finished_as_it_is(database, state, journal, shipper):
    file = journal()
    whole(file, number=1)
    assert shipper.ship() == 1
    settled(file)
    file.path.chmod(0o600)
    os.truncate(file.path, 10)
    assert shipper.ship() == 0
    assert Shipper(database, state).ship() == 0
    assert len(rows(database)) == 1


def test_a_clock_that_steps_back_changes_no_order_and_loses_nothing(database, journal, shipper):
    now = [NOW]
    file = journal(lambda: now[0])
    made = exchange(1)
    file.start(made)
    now[0] -= 86400
    made.outcome.duration_s = 2.5
    file.end(made)
    whole(file, number=2, at=now[0])
    settled(file)
    assert shipper.ship() == 2
    first, second = rows(database)
    assert (first.time, first.ended, first.duration_s) == (NOW, NOW - 86400, 2.5)
    assert second.time == NOW - 86400


def test_failures_of_the_database_are_what_is_waited_for(database):
    assert all(issubclass(failure, Exception) for failure in Database.failures)
