"""Keys: their form, and the rows."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from states import PEPPER, all_at_once, both_databases, database_in, settings_in

from proxy.access import keys
from proxy.access.pepper import pepper


@pytest.fixture
def settings(tmp_path, database_url):
    return settings_in(tmp_path / "state", url=database_url)


@pytest.fixture
def database(settings, database_url):
    with database_in(settings.server.state, database_url) as opened:
        yield opened


def create(database, name="app", **details):
    with database.write() as connection:
        return keys.create(connection, PEPPER, name=name, **details)


def revoke(database, id, **details):
    with database.write() as connection:
        return keys.revoke(connection, id, **details)


def change(database, id, **changes):
    with database.write() as connection:
        return keys.change(connection, id, **changes)


def rotate(database, id, grace_s, now):
    with database.write() as connection:
        return keys.rotate(connection, PEPPER, id, grace_s=grace_s, clock=lambda: now)


def retiring(database, id, now):
    with database.read() as connection:
        return keys.retiring(connection, id, now)


def read_all(database):
    with database.read() as connection:
        return keys.read_all(connection)


def test_a_key_names_its_id_and_has_256_random_bits():
    made = [keys.new_key() for _ in range(100)]
    assert all(re.fullmatch("lg_[a-z0-9]{12}_[A-Za-z0-9]{43}", key) for _, key in made)
    assert all(key.split("_")[1] == id for id, key in made)
    assert len({key for _, key in made}) == 100


def test_a_digest_is_the_hmac_of_the_whole_key():
    assert keys.digest(PEPPER, "lg_a_b") == hmac.new(PEPPER, b"lg_a_b", hashlib.sha256).digest()
    assert keys.digest(PEPPER, "lg_a_b") != keys.digest(PEPPER, "lg_a_c") != keys.digest(b"q" * 32, "lg_a_c")


@both_databases
def test_a_key_is_kept_with_all_that_was_said_and_without_its_secret(database, settings):
    key, whole = create(
        database,
        "app",
        team="search",
        owner="jo@example.com",
        note="for the crawler",
        grants={"models": ["gpt-*"]},
        limits={"requests_per_minute": 5},
        expires=2e9,
        clock=lambda: 1e9,
    )
    assert read_all(database) == [key]
    assert (key.created, key.expires, key.revoked, key.grants) == (1e9, 2e9, None, {"models": ["gpt-*"]})
    assert whole.startswith(f"lg_{key.id}_")
    assert key.digest == keys.digest(PEPPER, whole)
    secret = whole.rpartition("_")[2].encode()
    if settings.server.state.exists():
        assert not any(secret in path.read_bytes() for path in settings.server.state.iterdir())
    assert secret.decode() not in repr(key) and str(key.digest) not in repr(key)


@both_databases
def test_each_change_takes_the_next_version(database):
    first, second = create(database)[0], create(database)[0]
    revoked = revoke(database, first.id, clock=lambda: 5.0)
    assert (first.version, second.version, revoked.version) == (1, 2, 3)
    found = [(key.id, key.revoked, key.version) for key in read_all(database)]
    assert sorted(found, key=lambda row: row[2]) == [(second.id, None, 2), (first.id, 5.0, 3)]


@both_databases
def test_a_key_is_revoked_once(database):
    key, _ = create(database)
    assert revoke(database, key.id, clock=lambda: 5.0) == revoke(database, key.id, clock=lambda: 6.0)
    with pytest.raises(KeyError):
        revoke(database, "unknown")


@both_databases
def test_a_change_leaves_what_it_does_not_name(database):
    key, _ = create(database, team="search", limits={"concurrent": 1}, expires=4e9)
    changed = change(database, key.id, owner="jo", grants={"models": ["a"]}, expires=None)
    assert (changed.name, changed.team, changed.owner) == ("app", "search", "jo")
    assert (changed.grants, changed.limits, changed.expires) == ({"models": ["a"]}, {"concurrent": 1}, None)
    assert (changed.digest, changed.version) == (key.digest, 2)
    assert read_all(database) == [changed]


def test_a_key_that_is_revoked_or_unknown_is_neither_changed_nor_rotated(database):
    key, _ = create(database)
    revoke(database, key.id)
    for refused in (lambda id: change(database, id, name="b"), lambda id: rotate(database, id, 0, 1.0)):
        with pytest.raises(ValueError, match=f"{key.id} is revoked, for good: make another"):
            refused(key.id)
        with pytest.raises(KeyError):
            refused("unknown")
    with pytest.raises(ValueError, match=r"owner: 1 to 200 printable"):
        change(database, create(database)[0].id, owner="\0")


@both_databases
def test_a_rotation_gives_the_key_a_new_secret_and_the_old_one_an_end(database):
    key, old = create(database)
    rotated, new = rotate(database, key.id, 60, now=1000.0)
    assert new.startswith(f"lg_{key.id}_") and new != old
    assert (rotated.id, rotated.digest, rotated.version) == (key.id, keys.digest(PEPPER, new), 2)
    assert retiring(database, key.id, 1059.9) == [1060.0]
    assert retiring(database, key.id, 1060.0) == []


@both_databases
def test_several_old_secrets_live_side_by_side_and_a_rotation_without_grace_ends_all(database):
    key, _ = create(database)
    rotate(database, key.id, 60, now=1000.0)
    rotate(database, key.id, 600, now=1010.0)
    assert retiring(database, key.id, 1010.0) == [1060.0, 1610.0]
    rotate(database, key.id, 30, now=1020.0)
    assert retiring(database, key.id, 1020.0) == [1050.0, 1050.0, 1050.0]
    rotate(database, key.id, 0, now=1030.0)
    assert retiring(database, key.id, 1030.0) == []


def test_an_expired_key_is_not_rotated(database):
    key, _ = create(database, expires=1000.0)
    with pytest.raises(ValueError, match=f"{key.id} has expired: give it a later end first"):
        rotate(database, key.id, 60, now=1000.0)


@both_databases
def test_all_keys_are_revoked_at_once(database):
    create(database)
    revoke(database, create(database)[0].id, clock=lambda: 1.0)
    with database.write() as connection:
        assert keys.revoke_all(connection, clock=lambda: 5.0) == 1
    assert sorted(key.revoked for key in read_all(database)) == [1.0, 5.0]


def test_a_key_and_an_id_are_text_and_never_sql(database):
    for id in ("' OR 1=1 --", "x'; DROP TABLE keys; --", "\0", "%"):
        with pytest.raises(KeyError):
            revoke(database, id)
    key, _ = create(database, "'; DROP TABLE keys; --", team="' OR ''='")
    assert read_all(database) == [key]


@pytest.mark.parametrize(
    "details",
    [{"name": ""}, {"name": " "}, {"name": "a\x1b[31m"}, {"name": "x" * 201}, {"team": "a\nb"}, {"owner": ""}],
)
def test_a_key_with_a_name_that_cannot_be_shown_is_refused(database, details):
    with pytest.raises(ValueError, match=f"{next(iter(details))}: 1 to 200 printable characters"):
        create(database, **details)
    assert read_all(database) == []


def test_the_state_of_a_key_changes_on_the_second_it_expires(database):
    key, _ = create(database, expires=100.0)
    assert [key.state(now) for now in (99.9, 100.0)] == ["active", "expired"]
    assert revoke(database, key.id).state(99.9) == "revoked"


@both_databases
def test_the_first_key_is_made_in_a_database_that_never_had_one(database, settings):
    first = keys.ensure_first_key(settings)
    assert keys.ensure_first_key(settings) is None
    [key] = read_all(database)
    assert key.name == "first" and key.digest == keys.digest(pepper(settings), first)
    revoke(database, key.id)
    assert keys.ensure_first_key(settings) is None


@both_databases
def test_of_processes_that_start_at_once_one_makes_the_first_key(database, settings, database_url):
    answers = all_at_once("proxy.access.keys", "ensure_first_key", 3, settings.server.state, database_url)
    assert answers[:2] == ["None", "None"] and answers[2].startswith("lg_")
    assert len(read_all(database)) == 1
