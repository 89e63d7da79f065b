"""The database: made once, for one process, and clear about what is wrong with it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from states import both_databases, database_in, python, settings_in

from proxy.errors import ConfigError
from proxy.records import database as module
from proxy.records import sqlite
from proxy.records.database import Database, location, migrate
from proxy.records.tables import HEAD, metadata


@pytest.fixture
def settings(tmp_path, database_url):
    return settings_in(tmp_path / "state", url=database_url)


@pytest.fixture
def database(settings, database_url):
    with database_in(settings.server.state, database_url) as opened:
        yield opened


MIGRATE = """
from proxy.records.database import migrate
migrate(settings)
"""


def counted(database):
    with database.read() as connection:
        return connection.execute(text("SELECT version FROM versions")).scalar_one()


def count_up(database):
    with database.write() as connection:
        version = connection.execute(text("SELECT version FROM versions")).scalar_one()
        connection.execute(text("UPDATE versions SET version = :next"), {"next": version + 1})


@both_databases
def test_the_migrations_make_the_tables_that_the_code_declares(database):
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert {index["name"] for index in inspect(connection).get_indexes("keys")} >= {"ix_keys_version"}


def test_the_head_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", os.path.join(os.path.dirname(module.__file__), "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_current_database_is_not_migrated_again_and_costs_no_import_of_alembic(database, settings):
    process = python(MIGRATE + "print('alembic' in sys.modules)", settings.server.state)
    assert process.communicate()[0] == "False\n"


def test_processes_that_start_at_once_migrate_once(settings):
    processes = [python(MIGRATE, settings.server.state) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0, 0]
    with closing(Database(location(settings))) as database:
        assert counted(database) == 0


def test_a_long_migration_keeps_other_processes_waiting_and_not_failing(settings, monkeypatch):
    upgrade, held = module._upgrade, []

    def watched(connection):
        descriptor = os.open(settings.server.state, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(True)
        os.close(descriptor)
        upgrade(connection)

    monkeypatch.setattr(module, "_upgrade", watched)
    migrate(settings)
    assert held == [True]


def test_nobody_else_may_read_the_files(database, settings):
    count_up(database)
    files = {path.name: path.stat().st_mode & 0o777 for path in settings.server.state.iterdir()}
    assert files == {"lockgate.db": 0o600, "lockgate.db-wal": 0o600, "lockgate.db-shm": 0o600}
    assert settings.server.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["with space", "50%", "a?mode=memory", "ünï#1", "%(here)s"])
def test_the_state_directory_may_have_any_name(tmp_path, name):
    with database_in(tmp_path / name) as database:
        assert counted(database) == 0
    assert (tmp_path / name / "lockgate.db").exists()


def test_a_database_of_a_newer_version_is_refused_by_name(database, settings):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9000'"))
    with pytest.raises(ConfigError, match=r"lockgate\.db was made by a newer Lockgate .*9000.*backup"):
        migrate(settings)


def test_a_file_that_is_no_database_is_refused_by_name(settings):
    settings.server.state.mkdir()
    (settings.server.state / "lockgate.db").write_bytes(b"not a database, and longer than its header is" * 10)
    with pytest.raises(ConfigError, match=r"lockgate\.db is not a database: move it away"):
        migrate(settings)


def test_a_locked_database_is_refused_by_name(database, settings, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    database.close()
    with closing(sqlite3.connect(database.store.path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match=r"lockgate\.db is locked by another process: end the program"):
            migrate(settings)


def test_a_database_in_a_place_that_cannot_be_opened_is_refused_by_name(settings):
    (settings.server.state / "lockgate.db").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"lockgate\.db cannot be opened: make the file"):
        migrate(settings)


def test_a_state_directory_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/state: Not a directory"):
        migrate(settings_in(tmp_path / "file" / "state"))


def test_a_file_without_the_permission_to_write_is_refused_by_name(database, settings, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to any file
    with pytest.raises(ConfigError, match=r"lockgate\.db: Permission denied: make it and its directory writable"):
        migrate(settings)


def test_a_write_to_a_read_only_database_is_explained(database):
    with (
        pytest.raises(ConfigError, match=r"lockgate\.db cannot be written: make the file and its directory writable"),
        module.explained(database),
        closing(sqlite3.connect(f"file:{database.store.path}?mode=ro", uri=True)) as connection,
    ):
        connection.execute("DELETE FROM versions")


@both_databases
def test_writers_of_several_processes_wait_for_each_other(database, settings, database_url):
    code = """
from sqlalchemy import text
from proxy.records.database import Database, location
database = Database(location(settings))
for _ in range(100):
    with database.write() as connection:
        version = connection.execute(text("SELECT version FROM versions")).scalar_one()
        connection.execute(text("UPDATE versions SET version = :next"), {"next": version + 1})
"""
    processes = [python(code, settings.server.state, url=database_url) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0, 0]
    assert counted(database) == 300


@both_databases
def test_a_block_that_raises_writes_nothing(database):
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(text("UPDATE versions SET version = 5"))
        raise ZeroDivisionError
    assert counted(database) == 0
    count_up(database)
    assert counted(database) == 1


@both_databases
def test_a_reader_sees_one_state_and_blocks_no_writer(database):
    with database.read() as connection:
        before = connection.execute(text("SELECT version FROM versions")).scalar_one()
        count_up(database)
        assert connection.execute(text("SELECT version FROM versions")).scalar_one() == before
    assert counted(database) == before + 1


def test_foreign_keys_are_enforced(database):
    with database.read() as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


@both_databases
def test_a_forked_child_may_not_use_its_parents_database(database):
    counted(database)
    child = os.fork()
    if child == 0:
        try:
            counted(database)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert counted(database) == 0


def test_a_database_that_is_gone_is_a_failure_and_not_an_empty_one(database):
    database.store.path.unlink()
    with pytest.raises(Database.failures):
        counted(database)
    with pytest.raises(Database.failures):
        database.store.connect()
    assert not database.store.path.exists()


def test_a_file_put_in_the_place_of_the_open_one_is_noticed(database, settings, tmp_path):
    count_up(database)
    generation = database.generation
    other = settings_in(tmp_path / "other")
    migrate(other)
    os.replace(tmp_path / "other" / "lockgate.db", database.store.path)
    for suffix in ("-wal", "-shm"):
        database.store.path.with_name("lockgate.db" + suffix).unlink()
    assert counted(database) == 0
    assert database.generation == generation + 1
