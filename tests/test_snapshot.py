"""The snapshot: who holds which key, from memory, and never far behind the database."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import closing

import pytest
from sqlalchemy import event, text
from states import PEPPER, both_databases, database_in, python

from proxy import Reject
from proxy.access import keys, teams
from proxy.errors import ConfigError
from proxy.records.database import Database, explained
from proxy.records.snapshot import Snapshot
from proxy.settings import TeamSettings


@pytest.fixture
def database(tmp_path, database_url):
    with database_in(tmp_path / "state", database_url) as opened:
        yield opened


def create(database, name="app", **details):
    with database.write() as connection:
        return keys.create(connection, PEPPER, name=name, **details)


def revoke(database, id):
    with database.write() as connection:
        keys.revoke(connection, id)


def rotate(database, id, **details):
    with database.write() as connection:
        return keys.rotate(connection, PEPPER, id, **details)[1]


@pytest.fixture
def snapshot(database):
    return Snapshot(database, PEPPER)


@both_databases
def test_a_snapshot_knows_who_holds_a_key(database, snapshot):
    key, whole = create(database, team="search", grants={"web_search": True}, limits={"tokens": 1}, expires=4e9)
    snapshot.refresh()
    found = snapshot.find(whole)
    assert (found.subject, found.name, found.team, found.expires) == (key.id, "app", "search", 4e9)
    assert (found.grants, found.limits) == ({"web_search": True}, {"tokens": 1})


@both_databases
def test_a_snapshot_knows_nobody_else(database, snapshot):
    _, whole = create(database)
    snapshot.refresh()
    assert snapshot.find(whole)
    for other in ("", "lg_", whole[:-1], whole + "x", whole + "x" * 999, whole.upper(), whole + "\0", "lg_\udcff", "é"):
        assert snapshot.find(other) is None


def test_an_identity_cannot_be_changed_for_the_next_request(database, snapshot):
    _, whole = create(database, grants={"a": 1})
    snapshot.refresh()
    with pytest.raises(TypeError):
        snapshot.find(whole).grants["web_search"] = True


@both_databases
def test_a_key_ends_on_the_second_it_expires(database):
    now = [0.0]
    snapshot = Snapshot(database, PEPPER, clock=lambda: now[0])
    _, whole = create(database, expires=100.0)
    snapshot.refresh()
    for now[0], found in ((99.999, True), (100.0, False), (1e12, False)):
        assert (snapshot.find(whole) is not None) is found


@both_databases
def test_a_snapshot_takes_over_what_changed_and_leaves_the_rest(database, snapshot):
    (first, first_whole), (_, second_whole) = create(database), create(database)
    snapshot.refresh()
    kept = snapshot.find(second_whole)
    revoke(database, first.id)
    _, third_whole = create(database)
    assert snapshot.find(first_whole) and snapshot.find(third_whole) is None
    snapshot.refresh()
    assert snapshot.find(first_whole) is None and snapshot.find(third_whole)
    assert snapshot.find(second_whole) is kept
    assert snapshot.version == 4


@both_databases
def test_after_a_rotation_both_secrets_are_good_until_the_grace_is_over(database):
    now = [1000.0]
    snapshot = Snapshot(database, PEPPER, clock=lambda: now[0])
    key, old = create(database)
    snapshot.refresh()
    held = snapshot.find(old)
    new = rotate(database, key.id, grace_s=60, clock=lambda: now[0])
    assert snapshot.find(new) is None
    snapshot.refresh()
    for now[0], both in ((1000.0, True), (1059.999, True), (1060.0, False), (1e12, False)):
        assert snapshot.find(new).subject == key.id
        assert (snapshot.find(old) is not None) is both
    now[0] = 1059.0
    assert (held.expires, snapshot.find(old).expires, snapshot.find(new).expires) == (None, 1060.0, None)
    later = Snapshot(database, PEPPER, clock=lambda: now[0])
    later.refresh()
    assert later.find(old) and later.find(new)


@both_databases
def test_a_rotation_without_grace_ends_every_earlier_secret(database, snapshot):
    key, first = create(database)
    second = rotate(database, key.id, grace_s=3600)
    snapshot.refresh()
    assert snapshot.find(first) and snapshot.find(second)
    third = rotate(database, key.id, grace_s=0)
    snapshot.refresh()
    assert [snapshot.find(secret) is not None for secret in (first, second, third)] == [False, False, True]


@both_databases
def test_a_revocation_ends_the_secret_in_its_grace_too(database, snapshot):
    key, old = create(database)
    new = rotate(database, key.id, grace_s=3600)
    snapshot.refresh()
    revoke(database, key.id)
    snapshot.refresh()
    assert snapshot.find(old) is None and snapshot.find(new) is None


def test_the_old_secret_ends_with_its_key_where_that_is_sooner(database):
    now = [1000.0]
    snapshot = Snapshot(database, PEPPER, clock=lambda: now[0])
    key, old = create(database, expires=1030.0)
    rotate(database, key.id, grace_s=60, clock=lambda: now[0])
    snapshot.refresh()
    assert snapshot.find(old).expires == 1030.0
    now[0] = 1030.0
    assert snapshot.find(old) is None


@both_databases
def test_a_changed_key_is_another_identity(database, snapshot):
    key, whole = create(database, grants={"models": ["a"]})
    snapshot.refresh()
    before = snapshot.find(whole)
    with database.write() as connection:
        keys.change(connection, key.id, name="new", grants={"models": ["b"]}, limits={"concurrent": 2}, expires=4e9)
    snapshot.refresh()
    found = snapshot.find(whole)
    assert (before.name, before.grants) == ("app", {"models": ["a"]})
    assert (found.name, found.grants, found.limits, found.expires) == ("new", {"models": ["b"]}, {"concurrent": 2}, 4e9)


def test_the_identities_kept_made_up_are_bounded(database, snapshot, monkeypatch):
    monkeypatch.setattr("proxy.records.keyring.MOST_HOT", 2)
    made = [create(database)[1] for _ in range(5)]
    snapshot.refresh()
    assert all(snapshot.find(whole) for _ in range(2) for whole in made)
    assert len(snapshot._keyring._hot) <= 2


@both_databases
def test_teams_come_go_and_come_back(database, snapshot):
    def followed(change):
        with database.write() as connection:
            change(connection)
        snapshot.refresh()
        return snapshot.team("search")

    assert snapshot.version == -1
    made = followed(lambda c: teams.create(c, "search", grants={"models": ["a"]}, limits={"concurrent": 3}))
    assert (made.name, made.grants, made.limits) == ("search", {"models": ["a"]}, {"concurrent": 3})
    with pytest.raises(TypeError):
        made.grants["models"] = ["*"]
    assert followed(lambda c: teams.change(c, "search", grants={})).grants == {}
    assert followed(lambda c: teams.remove(c, "search")) is None
    assert followed(lambda c: teams.create(c, "search", note="again")).note == "again"
    assert snapshot.version == 4


def test_a_team_of_the_configuration_goes_before_the_databases(database, snapshot):
    with database.write() as connection:
        for name in ("search", "web"):
            teams.create(connection, name, limits={"concurrent": 1})
    snapshot.refresh()
    known = teams.Teams({"search": TeamSettings("search", limits={"concurrent": 9})}, snapshot)
    assert [known.get(name) and known.get(name).limits for name in ("search", "web", "none")] == [
        {"concurrent": 9},
        {"concurrent": 1},
        None,
    ]


def test_keys_go_on_being_valid_for_a_stated_time_without_the_database_and_are_refused_then(database, caplog):
    ticks = [0.0]
    snapshot = Snapshot(database, PEPPER, stale_s=7200.0, ticks=lambda: ticks[0])
    _, whole = create(database)
    snapshot.refresh()
    known = teams.Teams({"file": TeamSettings("file")}, snapshot)
    away = database.store.path.with_name("away")
    database.store.path.rename(away)
    for ticks[0] in (3600.0, 7200.0):
        snapshot._step()
        assert snapshot.find(whole)
    ticks[0] = 7200.001
    for _ in range(3):
        snapshot._step()
        for asked in (lambda: snapshot.find(whole), lambda: snapshot.find("lg_x"), lambda: known.get("other")):
            with pytest.raises(Reject) as refused:
                asked()
            assert (refused.value.status, refused.value.code) == (503, "keys_unavailable")
            assert refused.value.headers["retry-after"]
    assert known.get("file")
    away.rename(database.store.path)
    snapshot._step()
    assert snapshot.find(whole)
    said = [record.getMessage() for record in caplog.records if record.name == "proxy.records.snapshot"]
    assert [line.partition(": FileNotFound")[0] for line in said] == [
        "keys: cannot read the database, going on with what it held",
        "keys: the database could not be read for 2 h: every key gets a 503 now",
        "keys: the database can be read again",
    ]


def test_a_database_that_another_program_holds_delays_and_does_not_end_the_following(database, snapshot, monkeypatch):
    _, whole = create(database)
    snapshot.refresh()
    database.close()
    monkeypatch.setattr("proxy.records.sqlite.BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(database.store.path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Database.failures, match="locked"):
            snapshot.refresh()
        assert snapshot.find(whole)
    snapshot.refresh()
    assert snapshot.find(whole)


def test_a_database_that_may_only_be_read_is_followed_and_changes_to_it_are_refused_by_name(tmp_path):
    with database_in(tmp_path / "state") as writable, database_in(tmp_path / "state") as database:
        event.listen(database.store.engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only = ON"))
        snapshot = Snapshot(database, PEPPER)
        _, whole = create(writable)
        snapshot.refresh()
        assert snapshot.find(whole)
        with pytest.raises(ConfigError, match=r"lockgate\.db cannot be written: make"), explained(database):
            create(database)


def test_a_snapshot_goes_on_while_a_newer_version_adds_to_the_tables(database, snapshot):
    key, whole = create(database)
    snapshot.refresh()
    with database.write() as connection:
        connection.execute(text("ALTER TABLE keys ADD COLUMN color TEXT"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9000'"))
    _, other = create(database)
    revoke(database, key.id)
    snapshot.refresh()
    assert snapshot.find(whole) is None and snapshot.find(other)


def test_looking_keys_up_needs_no_database(database, snapshot):
    _, whole = create(database)
    snapshot.refresh()
    database.close()
    database.store.path.unlink()
    assert snapshot.find(whole)
    assert snapshot.find("lg_unknown") is None


@both_databases
def test_a_restored_backup_takes_the_keys_away_that_it_does_not_hold(database, snapshot, tmp_path):
    _, old = create(database)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE backup AS SELECT * FROM keys"))
    _, new = create(database)
    snapshot.refresh()
    assert snapshot.find(old) and snapshot.find(new)
    with database.write() as connection:
        connection.execute(text("DELETE FROM keys WHERE id NOT IN (SELECT id FROM backup)"))
        connection.execute(text("UPDATE versions SET version = 1"))
    snapshot.refresh()
    assert snapshot.find(old) and snapshot.find(new) is None


def test_a_database_put_in_the_place_of_the_open_one_is_followed(database, snapshot, tmp_path):
    _, old = create(database)
    snapshot.refresh()
    with database_in(tmp_path / "other") as fresh:
        _, new = create(fresh)
    os.replace(tmp_path / "other" / "lockgate.db", database.store.path)
    for suffix in ("-wal", "-shm"):
        database.store.path.with_name("lockgate.db" + suffix).unlink()
    snapshot.refresh()
    assert snapshot.find(old) is None and snapshot.find(new)


class Watched(Snapshot):
    """Says when it has tried to refresh."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tried = threading.Semaphore(0)

    def refresh(self):
        try:
            super().refresh()
        finally:
            self.tried.release()

    def wait(self, tries=2):
        """Wait until one whole refresh has been made that began after this call."""
        while self.tried.acquire(blocking=False):
            pass
        assert all(self.tried.acquire(timeout=20) for _ in range(tries))


@pytest.fixture
def watched(database):
    snapshot = Watched(database, PEPPER, interval_s=0.01)
    snapshot.start()
    yield snapshot
    snapshot.stop()


@both_databases
def test_a_started_snapshot_follows_by_itself(database, watched):
    key, whole = create(database)
    watched.wait()
    assert watched.find(whole)
    revoke(database, key.id)
    watched.wait()
    assert watched.find(whole) is None


def test_while_the_database_fails_the_keys_stay_and_the_log_says_so_once(database, watched, caplog):
    _, whole = create(database)
    watched.wait()
    away = database.store.path.with_name("away")
    database.store.path.rename(away)
    watched.wait(4)
    assert watched.find(whole)
    away.rename(database.store.path)
    watched.wait(4)
    assert watched.find(whole)
    records = [record for record in caplog.records if record.name == "proxy.records.snapshot"]
    said = [(record.levelno, record.getMessage()) for record in records]
    assert [level for level, _ in said] == [logging.ERROR, logging.WARNING]
    assert said[0][1].startswith("keys: cannot read the database, going on with what it held: FileNotFoundError")
    assert said[1][1] == "keys: the database can be read again"


def test_a_snapshot_that_cannot_read_at_the_start_says_so(database):
    database.store.path.unlink()
    snapshot = Snapshot(database, PEPPER)
    with pytest.raises(Database.failures):
        snapshot.start()
    snapshot.stop()


def test_a_stopped_snapshot_leaves_no_thread(database):
    before = threading.active_count()
    snapshot = Snapshot(database, PEPPER)
    snapshot.start()
    assert threading.active_count() == before + 1
    snapshot.stop()
    snapshot.stop()
    assert threading.active_count() == before


@both_databases
def test_a_revocation_reaches_another_process(database, tmp_path, database_url):
    key, whole = create(database)
    code = """
from proxy.records.database import Database, location
from proxy.records.snapshot import Snapshot
import threading
class Watched(Snapshot):
    gone = threading.Event()
    def refresh(self):
        super().refresh()
        if self.version > 1:
            self.gone.set()
snapshot = Watched(Database(location(settings)), b"p" * 32)
snapshot.start()
print(snapshot.find(sys.argv[2]) is not None, flush=True)
print(snapshot.gone.wait(20), snapshot.find(sys.argv[2]) is None, flush=True)
snapshot.stop()
"""
    process = python(code, tmp_path / "state", whole, url=database_url)
    assert process.stdout.readline() == "True\n"
    revoke(database, key.id)
    assert process.communicate()[0] == "True True\n"
    assert process.returncode == 0
