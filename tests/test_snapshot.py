"""The snapshot: who holds which key, from memory, and never far behind the database."""

from __future__ import annotations

import logging
import os
import threading

import pytest
from sqlalchemy import text
from states import PEPPER, database_in, python

from proxy import keys
from proxy.records.database import Database
from proxy.records.snapshot import Snapshot


@pytest.fixture
def database(tmp_path):
    with database_in(tmp_path / "state") as opened:
        yield opened


def create(database, name="app", **details):
    with database.write() as connection:
        return keys.create(connection, PEPPER, name=name, **details)


def revoke(database, id):
    with database.write() as connection:
        keys.revoke(connection, id)


@pytest.fixture
def snapshot(database):
    return Snapshot(database, PEPPER)


def test_a_snapshot_knows_who_holds_a_key(database, snapshot):
    key, whole = create(database, team="search", grants={"web_search": True}, limits={"tokens": 1}, expires=4e9)
    snapshot.refresh()
    found = snapshot.find(whole)
    assert (found.subject, found.name, found.team, found.expires) == (key.id, "app", "search", 4e9)
    assert (found.grants, found.limits) == ({"web_search": True}, {"tokens": 1})


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


def test_a_key_ends_on_the_second_it_expires(database):
    now = [0.0]
    snapshot = Snapshot(database, PEPPER, clock=lambda: now[0])
    _, whole = create(database, expires=100.0)
    snapshot.refresh()
    for now[0], found in ((99.999, True), (100.0, False), (1e12, False)):
        assert (snapshot.find(whole) is not None) is found


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


def test_looking_keys_up_needs_no_database(database, snapshot):
    _, whole = create(database)
    snapshot.refresh()
    database.close()
    database.path.unlink()
    assert snapshot.find(whole)
    assert snapshot.find("lg_unknown") is None


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
    os.replace(tmp_path / "other" / "lockgate.db", database.path)
    for suffix in ("-wal", "-shm"):
        database.path.with_name("lockgate.db" + suffix).unlink()
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
    away = database.path.with_name("away")
    database.path.rename(away)
    watched.wait(4)
    assert watched.find(whole)
    away.rename(database.path)
    watched.wait(4)
    assert watched.find(whole)
    records = [record for record in caplog.records if record.name == "proxy.records.snapshot"]
    said = [(record.levelno, record.getMessage()) for record in records]
    assert [level for level, _ in said] == [logging.ERROR, logging.WARNING]
    assert said[0][1].startswith("keys: cannot read the database, going on with what it held: FileNotFoundError")
    assert said[1][1] == "keys: the database can be read again"


def test_a_snapshot_that_cannot_read_at_the_start_says_so(database):
    database.path.unlink()
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


def test_a_revocation_reaches_another_process(database, tmp_path):
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
    process = python(code, tmp_path / "state", whole)
    assert process.stdout.readline() == "True\n"
    revoke(database, key.id)
    assert process.communicate()[0] == "True True\n"
    assert process.returncode == 0
