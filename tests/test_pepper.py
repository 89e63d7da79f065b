"""The pepper: made once, for its owner alone, and never silently another one."""

from __future__ import annotations

import os
import re

import pytest
from sqlalchemy import select
from states import all_at_once, both_databases, database_in, settings_in

from proxy.access import keys
from proxy.access.pepper import agreed, fingerprint, pepper, settle, vet
from proxy.errors import ConfigError
from proxy.records.tables import versions
from proxy.secrets import Secret


@pytest.fixture
def settings(tmp_path, database_url):
    return settings_in(tmp_path / "state", url=database_url)


@pytest.fixture
def database(settings, database_url):
    with database_in(settings.server.state, database_url) as opened:
        yield opened


def test_the_pepper_is_made_once_for_its_owner_alone(settings):
    made = pepper(settings)
    path = settings.server.state / "pepper"
    assert pepper(settings) == made == path.read_bytes().strip()
    assert len(bytes.fromhex(made.decode())) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(settings.server.state) == ["pepper"]


def test_processes_that_start_at_once_agree_on_the_pepper(settings):
    answers = all_at_once("proxy.access.pepper", "pepper", 3, settings.server.state)
    assert set(answers) == {str(pepper(settings))}


def test_a_pepper_that_moves_from_the_file_to_a_secret_stays_the_same(settings):
    made = pepper(settings)
    assert pepper(settings_in(settings.server.state, Secret(made.decode()))) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_pepper_that_others_may_read_is_refused(settings, mode):
    pepper(settings)
    path = settings.server.state / "pepper"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"pepper is open to other users \(mode {mode:04o}\): chmod 600 /"):
        pepper(settings)


def test_a_short_or_unreadable_pepper_is_refused_by_name(settings, tmp_path):
    pepper(settings)
    (settings.server.state / "pepper").write_text("\n")
    with pytest.raises(ConfigError, match=r"state/pepper: must have at least 32 characters"):
        pepper(settings)
    with pytest.raises(ConfigError, match=r"keys\.pepper: must have at least 32 characters"):
        pepper(settings_in(tmp_path, Secret("short")))
    (tmp_path / "pepper").mkdir()
    with pytest.raises(ConfigError, match=r"pepper: Is a directory"):
        pepper(settings_in(tmp_path))


@both_databases
def test_the_database_knows_its_pepper_from_the_first_key_on_but_does_not_hold_it(settings, database):
    assert vet(settings, database) is False and not (settings.server.state / "pepper").exists()
    made = agreed(settings, database)
    assert vet(settings, database) is True and agreed(settings, database) == made
    with database.read() as connection:
        held = connection.execute(select(versions.c.pepper)).scalar_one()
    assert held == fingerprint(made) and held != made


@both_databases
def test_a_lost_pepper_is_not_silently_made_anew(settings, database):
    agreed(settings, database)
    path = settings.server.state / "pepper"
    path.unlink()
    expected = rf"{re.escape(str(path))} is missing, .*restore it from a backup.*`lockgate keys reset`"
    for asked in (vet, agreed):
        with pytest.raises(ConfigError, match=expected):
            asked(settings, database)
    assert not path.exists()


@both_databases
def test_another_pepper_than_that_of_the_keys_is_refused(settings, database, database_url):
    agreed(settings, database)
    other = settings_in(settings.server.state, Secret("q" * 32), database_url)
    for asked in (vet, agreed):
        with pytest.raises(ConfigError, match=r"^keys\.pepper is not the pepper that the keys were made with, "):
            asked(other, database)


@both_databases
def test_keys_that_are_there_already_settle_the_pepper(settings, database):
    with database.write() as connection:
        keys.create(connection, pepper(settings), name="app")
    assert vet(settings, database) is True


def test_the_fingerprint_is_overwritten_only_when_all_begins_anew(settings, database):
    agreed(settings, database)
    with database.write() as connection:
        settle(connection, b"q" * 32)
    assert vet(settings, database) is True
    with database.write() as connection:
        settle(connection, b"q" * 32, anew=True)
    with pytest.raises(ConfigError, match="is not the pepper"):
        vet(settings, database)
