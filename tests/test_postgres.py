"""The database in PostgreSQL: upgraded by hand, shared, followed through restarts, and clear about what is wrong."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from postgresqls import PASSWORD
from sqlalchemy import text
from states import PEPPER, database_in, python, settings_in

from proxy import config
from proxy.access import keys
from proxy.errors import ConfigError
from proxy.records import postgres as module
from proxy.records.database import Database, explained, location, migrate, revision, upgrade
from proxy.records.snapshot import Snapshot
from proxy.records.tables import HEAD


@pytest.fixture
def settings(tmp_path, postgres):
    return settings_in(tmp_path / "state", url=postgres)


@pytest.fixture
def database(tmp_path, postgres):
    with database_in(tmp_path / "state", postgres) as opened:
        yield opened


def counted(database):
    with database.read() as connection:
        return connection.execute(text("SELECT version FROM versions")).scalar_one()


def test_a_start_does_not_migrate_it_and_says_what_does(settings):
    with pytest.raises(ConfigError, match=r"database 'lockgate_\d+' at 127.0.0.1:\d+ has no tables yet.*db upgrade"):
        migrate(settings)
    assert upgrade(settings) == (None, HEAD)
    migrate(settings)
    assert upgrade(settings) == (HEAD, HEAD)


def test_an_older_one_is_refused_at_a_start_and_a_newer_one_everywhere(database, settings):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(ConfigError, match=rf"is at revision 0000, this version needs {HEAD}: run `lockgate db upgr"):
        migrate(settings)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9000'"))
    for step in (migrate, upgrade):
        with pytest.raises(ConfigError, match="was made by a newer Lockgate .*9000"):
            step(settings)


def test_hosts_that_upgrade_at_once_upgrade_once(settings, postgres):
    code = "from proxy.records.database import upgrade\nupgrade(settings)\n"
    processes = [python(code, settings.server.state, url=postgres) for _ in range(3)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0, 0]
    with closing(Database(location(settings))) as database:
        assert (revision(database), counted(database)) == (HEAD, 0)


def test_the_first_use_after_a_restart_of_the_server_works(database, postgresql):
    assert counted(database) == 0
    postgresql.kill()
    with pytest.raises(Database.failures):
        counted(database)
    postgresql.start()
    assert counted(database) == 0


def test_a_snapshot_keeps_its_keys_while_the_server_is_away_and_follows_again(database, postgresql):
    with database.write() as connection:
        _, first = keys.create(connection, PEPPER, name="first")
    snapshot = Snapshot(database, PEPPER)
    snapshot.refresh()
    postgresql.kill()
    with pytest.raises(Database.failures):
        snapshot.refresh()
    assert snapshot.find(first)
    postgresql.start()
    with database.write() as connection:
        _, second = keys.create(connection, PEPPER, name="second")
    snapshot.refresh()
    assert snapshot.find(first) and snapshot.find(second)


def test_tables_that_were_restored_from_a_backup_are_noticed(database, postgresql):
    counted(database)
    generation = database.generation
    with database.write() as connection:
        connection.execute(text("CREATE TABLE other AS SELECT * FROM versions"))
        connection.execute(text("DROP TABLE versions"))
        connection.execute(text("ALTER TABLE other RENAME TO versions"))
    counted(database)
    assert database.generation == generation + 1


def test_a_reader_may_not_write(database):
    with pytest.raises(Database.failures), database.read() as connection:
        connection.execute(text("UPDATE versions SET version = 7"))
    assert counted(database) == 0


def test_a_lock_that_is_held_is_named_after_a_while(database, postgresql, postgres, monkeypatch):
    database.store._begin = module.BEGIN.format(lock="50ms", statement="10s")
    with psycopg.connect(postgres) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({module.WRITERS})")
        with pytest.raises(ConfigError, match="is locked by another process"), explained(database):
            with database.write():
                pass
        assert counted(database) == 0  # readers wait for nobody


def changed(postgres, **parts):
    with closing(Database(location(settings_in("", url=postgres)).set(**parts))) as database:
        with pytest.raises(ConfigError) as refused, explained(database):
            revision(database)
    return "".join(refused.value.problems)


def test_what_is_wrong_is_said_without_the_password(postgres, postgresql):
    said = [
        changed(postgres, port=1),
        changed(postgres, password="wrong"),
        changed(postgres, database="nowhere"),
        changed(postgres, username="stranger"),
    ]
    assert ["cannot be reached" in said[0], "'nowhere'" in said[2]] == [True, True]
    assert not any(PASSWORD in text for text in said)
    assert all("PostgreSQL database" in text for text in said)


def test_the_configuration_names_it_as_a_secret(tmp_path, postgres, monkeypatch):
    file = tmp_path / "lockgate.toml"
    monkeypatch.setenv("DATABASE", postgres)
    base = '[providers.echo]\nuse = "echo"\n[models.echo]\ntargets = ["echo"]\n[server]\ninsecure = true\n'

    def problems(line):
        file.write_text(f"{base}[database]\nurl = {line}\n")
        with pytest.raises(ConfigError) as refused:
            config.assemble(file)
        return "".join(refused.value.problems)

    assert "a password is not written here" in problems(f'"{postgres}"')
    assert PASSWORD not in problems(f'"{postgres}"')
    assert "must be a URL like" in problems('"no url"')
    assert "SQLite needs none" in problems('"sqlite:///file"')
    file.write_text(f'{base}[database]\nurl = {{ env = "DATABASE" }}\n')
    settings, _ = config.assemble(file)
    assert str(location(settings)) == postgres.replace(PASSWORD, "***")
    assert PASSWORD not in repr(settings)
