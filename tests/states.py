"""State directories for tests, with a database in them, and other processes that use one."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.records.database import Database, location, migrate, upgrade
from proxy.secrets import Secret
from proxy.settings import DatabaseSettings, ServerSettings, Settings

PEPPER = b"p" * 32
#: Runs a test once on SQLite and once on PostgreSQL; its fixtures use `database_url`.
both_databases = pytest.mark.parametrize("database_url", ("sqlite", "postgresql"), indirect=True)


def settings_in(state, pepper=None, url=None):
    """Return settings with this state directory, the PostgreSQL database at `url` if there is one, and nothing else."""
    database = DatabaseSettings(None if url is None else Secret(url))
    return Settings(None, (), ServerSettings("127.0.0.1:0", state), {}, {}, {}, pepper=pepper, database=database)


@contextmanager
def database_in(state, url=None):
    """Open the migrated database of a state directory, or the PostgreSQL database at `url`, which it migrates."""
    settings = settings_in(state, url=url)
    (migrate if url is None else upgrade)(settings)
    database = Database(location(settings))
    try:
        yield database
    finally:
        database.close()


SETTINGS = """
import os
import sys
from pathlib import Path
from states import settings_in
settings = settings_in(Path(sys.argv[1]), url=os.environ.get("TEST_DATABASE_URL"))
"""


def python(code, *arguments, stdin=subprocess.DEVNULL, url=None):
    """Start a process that runs `code` with `settings` for the state directory that is its first argument."""
    command = [sys.executable, "-c", SETTINGS + code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **({"TEST_DATABASE_URL": url} if url else {})}
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True, env=env)


def all_at_once(module, function, count, state, url=None):
    """Call a function with the settings in `count` processes at one moment; return what each says, sorted."""
    # They are forked from one: importing takes longer than all else.
    code = f"""
from {module} import {function}
for _ in range({count}):
    if os.fork() == 0:
        os.write(1, b"ready\\n")
        sys.stdin.read()
        os.write(1, f"{{{function}(settings)}}\\n".encode())
        os._exit(0)
for _ in range({count}):
    assert os.wait()[1] == 0
"""
    gate, opener = os.pipe()
    process = python(code, state, stdin=gate, url=url)
    os.close(gate)
    assert [process.stdout.readline() for _ in range(count)] == ["ready\n"] * count
    os.close(opener)
    answers = sorted(process.communicate()[0].splitlines())
    assert process.returncode == 0 and len(answers) == count
    return answers
