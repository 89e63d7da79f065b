"""Reads `lockgate.toml`, checks it as a whole and turns it into `Settings`."""

from __future__ import annotations

from pathlib import Path

from proxy.catalog import Catalog
from proxy.config.document import Document
from proxy.config.reading import Reading
from proxy.errors import ConfigError
from proxy.secrets import relative_to
from proxy.serving import locate
from proxy.settings import Settings

__all__ = ["assemble", "build", "load", "locate"]


def load(path: Path | None, catalog: Catalog) -> Settings:
    """Read and check the file at `path` (`None`: the built-in defaults) against the plugins and providers in `catalog`.

    Raises `ConfigError` with all mistakes at once.
    """
    document = Document.read(path)
    with relative_to(document.folder):
        settings, problems = Reading(catalog).settings(document)
    if problems:
        raise ConfigError(problems)
    return settings


def assemble(path: Path | None) -> tuple[Settings, Catalog]:
    """Load the file at `path` together with the catalog that it asks for by `server.plugins_dir`.

    Raises `ConfigError` with all mistakes at once: those of the file and those of the plugins.
    """
    return build(Document.read(path))


def build(document: Document) -> tuple[Settings, Catalog]:
    """Check a file that has been read, as `assemble` does."""
    with relative_to(document.folder):
        catalog, broken = Catalog.search(document.plugins_dir())
        settings, problems = Reading(catalog).settings(document)
    if broken:
        # A class that could not be loaded is not unknown as well.
        problems = broken + [problem for problem in problems if ".use: there is no " not in problem]
    if problems:
        raise ConfigError(problems)
    return settings, catalog
