"""The copy on the disk: workers that start while the database is away know the keys for the stated time."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest
from states import PEPPER, both_databases, database_in

from proxy import Reject
from proxy.access import keys, teams
from proxy.records.copy import Copy, Held
from proxy.records.database import Database
from proxy.records.snapshot import Snapshot

HELD = Held(1000.0, 7, {b"n" * 16: b"one\n", b"m" * 16: b""}, [["search", {"models": ["a"]}, {}]])


@pytest.fixture
def database(tmp_path, database_url):
    with database_in(tmp_path / "state", database_url) as opened:
        yield opened


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path / "keys.copy", PEPPER, "here")


def create(database, **details):
    with database.write() as connection:
        return keys.create(connection, PEPPER, name="app", **details)


def starts(copy, *, now=0.0, stale_s=7200.0):
    """Start a worker's snapshot without a database, and stop it."""
    snapshot = Snapshot(
        Database("sqlite:////nowhere/lockgate.db"), PEPPER, stale_s=stale_s, copy=copy, clock=lambda: now, interval_s=60
    )
    try:
        snapshot.start()
    finally:
        snapshot.stop()
    return snapshot


def test_what_was_written_is_read(copy):
    assert copy.read() is None
    assert copy.write(HELD) and copy.read() == HELD


def test_nobody_else_may_read_it_and_it_holds_no_key(copy, database, tmp_path):
    _, whole = create(database)
    Snapshot(database, PEPPER, copy=copy).refresh()
    assert stat.S_IMODE((tmp_path / "keys.copy").stat().st_mode) == 0o600
    assert whole.rpartition("_")[2].encode() not in (tmp_path / "keys.copy").read_bytes()


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw.replace(b"1000.0", b"9000.0"),
        lambda raw: bytes(32) + raw[32:],
    ],
)
def test_a_file_that_is_torn_or_forged_is_none(copy, tmp_path, spoilt):
    copy.write(HELD)
    path = tmp_path / "keys.copy"
    path.write_bytes(spoilt(path.read_bytes()))
    assert copy.read() is None


def test_another_pepper_or_database_has_no_copy_here(copy, tmp_path):
    copy.write(HELD)
    assert Copy(tmp_path / "keys.copy", b"q" * 32, "here").read() is None
    assert Copy(tmp_path / "keys.copy", PEPPER, "there").read() is None


def test_what_another_worker_has_written_is_not_written_again(copy, tmp_path):
    def written(held, unless_s=None):
        before = (tmp_path / "keys.copy").stat().st_ino
        assert copy.write(held, unless_s=unless_s)
        return (tmp_path / "keys.copy").stat().st_ino != before

    copy.write(HELD)
    later = Held(1060.0, 7, HELD.records, HELD.teams)
    assert [written(later, 60.1), written(later, 60.0), written(later)] == [False, True, True]
    assert written(Held(1060.0, 6, HELD.records, HELD.teams), 60.1)


def test_of_two_workers_one_waits_for_the_next_time(copy, tmp_path):
    turn = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    assert not copy.write(HELD) and copy.read() is None
    os.close(turn)
    assert copy.write(HELD)


@both_databases
def test_a_worker_that_starts_without_the_database_knows_keys_teams_and_what_was_revoked(database, copy, caplog):
    now = [0.0]
    snapshot = Snapshot(database, PEPPER, copy=copy, clock=lambda: now[0])
    _, whole = create(database, team="search", grants={"models": ["a"]})
    other, revoked = create(database)
    with database.write() as connection:
        teams.create(connection, "search", limits={"concurrent": 3})
        teams.create(connection, "gone")
    snapshot.refresh()
    assert starts(copy).find(revoked)
    with database.write() as connection:
        keys.revoke(connection, other.id)
        teams.remove(connection, "gone")
    snapshot.refresh()
    later = starts(copy)
    assert later.find(whole) == snapshot.find(whole)
    assert later.find(revoked) is None and later.find("lg_unknown") is None
    assert later.team("search") == snapshot.team("search") and later.team("gone") is None
    assert "cannot read the database, going on with what it held" in caplog.text


def test_its_time_counts_from_when_the_database_was_read_last(database, copy):
    now = [0.0]
    snapshot = Snapshot(database, PEPPER, stale_s=7200.0, copy=copy, clock=lambda: now[0])
    _, whole = create(database)
    for now[0] in (0.0, 299.0):
        snapshot.refresh()
    assert starts(copy, now=7199.0).find(whole)
    with pytest.raises(Reject, match="cannot check credentials"):
        starts(copy, now=7201.0).find(whole)
    now[0] = 300.0
    snapshot.refresh()
    assert starts(copy, now=7201.0).find(whole)
    assert starts(copy, now=-1e9).find(whole)  # a clock that was set back


def test_a_worker_takes_over_what_changed_meanwhile_once_the_database_is_back(database, copy):
    key, whole = create(database)
    Snapshot(database, PEPPER, copy=copy).refresh()
    with database.write() as connection:
        keys.revoke(connection, key.id)
    snapshot = Snapshot(database, PEPPER, copy=copy)
    away = database.store.path.with_name("away")
    database.store.path.rename(away)
    snapshot.start()
    snapshot.stop()
    assert snapshot.find(whole)
    away.rename(database.store.path)
    snapshot.refresh()
    assert snapshot.find(whole) is None and starts(copy).find(whole) is None


def test_without_a_copy_a_worker_does_not_start(copy):
    with pytest.raises(Database.failures):
        starts(copy)


def test_a_copy_that_cannot_be_renewed_goes_away_and_the_keys_are_followed(database, copy, tmp_path, caplog):
    snapshot = Snapshot(database, PEPPER, copy=copy)
    _, first = create(database)
    snapshot.refresh()
    (tmp_path / ".keys.copy").mkdir()
    _, second = create(database)
    for _ in range(2):
        snapshot.refresh()
    assert snapshot.find(first) and snapshot.find(second) and copy.read() is None
    said = [record.getMessage() for record in caplog.records if record.name == "proxy.records.snapshot"]
    assert len(said) == 1 and said[0].startswith("keys: cannot be copied for workers that start while the database is")
