"""State directories for tests, with a database in them, and other processes that use one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

from proxy.records.database import Database, location, migrate
from proxy.settings import ServerSettings, Settings

PEPPER = b"p" * 32


def settings_in(state, pepper=None):
    """Return settings with this state directory and nothing else."""
    return Settings(None, (), ServerSettings("127.0.0.1:0", state), {}, {}, {}, pepper=pepper)


@contextmanager
def database_in(state):
    """Open the migrated database of a state directory."""
    migrate(settings_in(state))
    database = Database(location(settings_in(state)))
    try:
        yield database
    finally:
        database.close()


SETTINGS = """
import sys
from pathlib import Path
from proxy.settings import ServerSettings, Settings
settings = Settings(None, (), ServerSettings("127.0.0.1:0", Path(sys.argv[1])), {}, {}, {})
"""


def python(code, *arguments, stdin=subprocess.DEVNULL):
    """Start a process that runs `code` with `settings` for the state directory that is its first argument."""
    command = [sys.executable, "-c", SETTINGS + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True)
