"""Keys: their form, the pepper, and the rows."""

from __future__ import annotations

import hashlib
import hmac
import os
import re

import pytest
from states import PEPPER, database_in, python, settings_in

from proxy import keys
from proxy.errors import ConfigError
from proxy.secrets import Secret


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path / "state")


@pytest.fixture
def database(settings):
    with database_in(settings.server.state) as opened:
        yield opened


def create(database, name="app", **details):
    with database.write() as connection:
        return keys.create(connection, PEPPER, name=name, **details)


def revoke(database, id, **details):
    with database.write() as connection:
        return keys.revoke(connection, id, **details)


def read_all(database):
    with database.read() as connection:
        return keys.read_all(connection)


def all_at_once(function, count, state):
    """Call a function of `keys` with the settings in `count` processes at one moment; return what each says, sorted."""
    code = f"""
from proxy.keys import {function}
print("ready", flush=True)
sys.stdin.read()
print({function}(settings))
"""
    gate, opener = os.pipe()
    processes = [python(code, state, stdin=gate) for _ in range(count)]
    os.close(gate)
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * count
    os.close(opener)
    answers = sorted(process.communicate()[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0] * count
    return answers


def test_a_key_names_its_id_and_has_256_random_bits():
    made = [keys.new_key() for _ in range(100)]
    assert all(re.fullmatch("lg_[a-z0-9]{12}_[A-Za-z0-9]{43}", key) for _, key in made)
    assert all(key.split("_")[1] == id for id, key in made)
    assert len({key for _, key in made}) == 100


def test_a_digest_is_the_hmac_of_the_whole_key():
    assert keys.digest(PEPPER, "lg_a_b") == hmac.new(PEPPER, b"lg_a_b", hashlib.sha256).digest()
    assert keys.digest(PEPPER, "lg_a_b") != keys.digest(PEPPER, "lg_a_c") != keys.digest(b"q" * 32, "lg_a_c")


def test_the_pepper_is_made_once_for_its_owner_alone(settings):
    pepper = keys.pepper(settings)
    path = settings.server.state / "pepper"
    assert keys.pepper(settings) == pepper == path.read_bytes().strip()
    assert len(bytes.fromhex(pepper.decode())) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(settings.server.state) == ["pepper"]


def test_processes_that_start_at_once_agree_on_the_pepper(settings):
    answers = all_at_once("pepper", 4, settings.server.state)
    assert set(answers) == {str(keys.pepper(settings))}


def test_a_pepper_that_moves_from_the_file_to_a_secret_stays_the_same(settings):
    made = keys.pepper(settings)
    assert keys.pepper(settings_in(settings.server.state, Secret(made.decode()))) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_pepper_that_others_may_read_is_refused(settings, mode):
    keys.pepper(settings)
    path = settings.server.state / "pepper"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"pepper is open to other users \(mode {mode:04o}\): chmod 600 /"):
        keys.pepper(settings)


def test_a_short_or_unreadable_pepper_is_refused_by_name(settings, tmp_path):
    keys.pepper(settings)
    (settings.server.state / "pepper").write_text("\n")
    with pytest.raises(ConfigError, match=r"state/pepper: must have at least 32 characters"):
        keys.pepper(settings)
    with pytest.raises(ConfigError, match=r"keys\.pepper: must have at least 32 characters"):
        keys.pepper(settings_in(tmp_path, Secret("short")))
    (tmp_path / "pepper").mkdir()
    with pytest.raises(ConfigError, match=r"pepper: Is a directory"):
        keys.pepper(settings_in(tmp_path))


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
    assert not any(secret in path.read_bytes() for path in settings.server.state.iterdir())
    assert secret.decode() not in repr(key) and str(key.digest) not in repr(key)


def test_each_change_takes_the_next_version(database):
    first, second = create(database)[0], create(database)[0]
    revoked = revoke(database, first.id, clock=lambda: 5.0)
    assert (first.version, second.version, revoked.version) == (1, 2, 3)
    found = [(key.id, key.revoked, key.version) for key in read_all(database)]
    assert sorted(found, key=lambda row: row[2]) == [(second.id, None, 2), (first.id, 5.0, 3)]


def test_a_key_is_revoked_once(database):
    key, _ = create(database)
    assert revoke(database, key.id, clock=lambda: 5.0) == revoke(database, key.id, clock=lambda: 6.0)
    with pytest.raises(KeyError):
        revoke(database, "unknown")


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


def test_the_first_key_is_made_in_a_database_that_never_had_one(database, settings):
    first = keys.ensure_first_key(settings)
    assert keys.ensure_first_key(settings) is None
    [key] = read_all(database)
    assert key.name == "first" and key.digest == keys.digest(keys.pepper(settings), first)
    revoke(database, key.id)
    assert keys.ensure_first_key(settings) is None


def test_of_processes_that_start_at_once_one_makes_the_first_key(database, settings):
    answers = all_at_once("ensure_first_key", 3, settings.server.state)
    assert answers[:2] == ["None", "None"] and answers[2].startswith("lg_")
    assert len(read_all(database)) == 1
