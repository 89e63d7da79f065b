"""How commands open the database of a configuration, and end where it cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from proxy import config, serving
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.records.database import Database
    from proxy.settings import Settings


def read(path: Path | None) -> Settings:
    """Return what the file says; list what is wrong with it and end where something is."""
    path = path or config.locate()
    try:
        return config.assemble(path)[0]
    except ConfigError as failure:
        serving.refuse(path, failure.problems)


@contextmanager
def told() -> Iterator[None]:
    """Print what a `ConfigError` in the block says, and end with exit code 1."""
    try:
        yield
    except ConfigError as failure:
        fail(failure.problems)


def fail(problems: list[str]) -> NoReturn:
    """Print what is wrong and end with exit code 1."""
    click.echo("\n".join(f"lockgate: {problem}" for problem in problems), err=True)
    sys.exit(1)


@contextmanager
def opened(path: Path | None) -> Iterator[tuple[Settings, Database]]:
    """Open the database that the file names, with this version's tables in it."""
    # Imported here: `lockgate --help` imports the commands, and has no use for the database's library.
    from proxy.records.database import Database, explained, location, migrate

    settings = read(path)
    with told():
        migrate(settings)
        with closing(Database(location(settings))) as database, explained(database):
            yield settings, database
