"""What is removed when its days are over, and that nothing else is."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select
from states import both_databases
from test_shipping import KEY, NOW, rows, settled, sums, whole
from test_shipping import database as database
from test_shipping import journal as journal
from test_shipping import shipper as shipper
from test_shipping import state as state

from proxy.records import retention as module
from proxy.records.index import Index
from proxy.records.retention import Retention
from proxy.records.rows import DAY_S
from proxy.records.tables import requests, shipped
from proxy.records.verify import verify
from proxy.settings import LedgerSettings

SETTINGS = LedgerSettings(keep_days=10, keep_usage_days=20, journal_days=3)


@pytest.fixture
def sweep(database, state, shipper):
    """Remove what is too old at a time."""

    def at(now):
        Retention(database, Index(state / "journal", KEY), shipper.host, SETTINGS, clock=lambda: now).sweep()

    return at


@both_databases
def test_requests_and_sums_go_when_their_days_are_over(database, journal, shipper, sweep, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    file = journal()
    for day in range(30):
        whole(file, number=day, at=NOW - day * DAY_S)
    assert shipper.ship() == 30
    sweep(NOW + 1)
    assert sorted(int(row.id[-3:]) for row in rows(database)) == list(range(10))
    assert (len(sums(database, "hour")), len(sums(database, "day"))) == (11, 21)
    sweep(NOW + 1)
    assert len(rows(database)) == 10


@both_databases
def test_a_file_goes_some_days_after_it_was_shipped_and_the_chain_verifies(database, state, journal, shipper, sweep):
    old, live = journal(), journal()
    for file in (old, live):
        whole(file)
    settled(old)
    shipper._clock = lambda: NOW
    assert shipper.ship() == 2
    sweep(NOW + 2 * DAY_S)
    assert old.path.exists()
    sweep(NOW + 4 * DAY_S)
    assert (old.path.exists(), live.path.exists()) == (False, True)
    assert [row.file for row in rows(database, shipped)] == [live.path.name]
    report = verify(state / "journal", KEY)
    assert (report.problems, report.dropped) == ([], 1)
    assert shipper.ship() == 0


def test_a_file_that_is_not_in_the_ledger_is_never_removed(database, journal, shipper, sweep):
    file = journal()
    whole(file)
    settled(file)
    sweep(NOW + 1000 * DAY_S)
    assert file.path.exists()
    assert shipper.ship() == 1


def test_another_hosts_files_are_left_to_it(database, journal, sweep):
    row = {"host": "elsewhere", "file": "x.jsonl", "position": 1, "finished": NOW}
    with database.write() as connection:
        connection.execute(insert(shipped).values(row))
    sweep(NOW + 1000 * DAY_S)
    with database.read() as connection:
        assert len(connection.execute(select(shipped)).all()) == 1
        assert connection.execute(select(requests)).all() == []
