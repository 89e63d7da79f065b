"""The configuration file as text: the operator's own, the built-in one, or the copy that workers load."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.errors import ConfigError
from proxy.secrets import resolve
from proxy.serving import ACTIVE as ACTIVE

#: What Lockgate is without a file: on loopback, with one generated key and a model that answers with its question.
DEFAULT = """\
chain = ["keys"]

[server]
bind = "127.0.0.1:8080"
state = "var"

[plugins.keys]
use = "api_keys"

[providers.echo]
use = "echo"

[models.echo]
targets = ["echo"]
"""
#: Beside a copy: where it came from, for relative paths and for what is told to people.
ORIGIN = "origin.json"
PLUGINS = "plugins"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `path` is the operator's (`None`: built in), `folder` is where its relative paths start.

    `plugins_copy` is where a copy keeps the files of `server.plugins_dir`.
    """

    text: str
    table: dict[str, Any]
    path: Path | None
    folder: Path
    plugins_copy: Path | None = None

    @classmethod
    def read(cls, path: Path | None) -> Document:
        """Read and parse the file at `path`; raises `ConfigError` with the line where it is not TOML."""
        if path is None:
            return cls(DEFAULT, tomllib.loads(DEFAULT), None, Path.cwd())
        text = _text(path)
        if os.environ.get(ACTIVE) == str(path):
            origin = json.loads(path.with_name(ORIGIN).read_text("utf-8"))
            original = Path(origin["path"]) if origin["path"] else None
            return cls(text, _parse(text, path), original, Path(origin["folder"]), path.with_name(PLUGINS))
        path = Path(os.path.abspath(path))
        return cls(text, _parse(text, path), path, path.parent)

    def plugins_dir(self) -> Path | None:
        """Return the folder of plugin files that the file names, where there is such a folder."""
        server = self.table.get("server")
        named = server.get("plugins_dir") if isinstance(server, dict) else None
        if not isinstance(named, str) or not named or "\0" in named:
            return None
        folder = self.plugins_copy or resolve(named)
        return folder if os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK) else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as failure:
        raise ConfigError([f"{path}: cannot be read: {failure.strerror}"]) from failure
    except UnicodeDecodeError as failure:
        line = failure.object[: failure.start].count(b"\n") + 1
        raise ConfigError([f"{path}, line {line}: not UTF-8 text"]) from failure


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        what, _, place = str(failure).partition(" (at ")
        line = re.match(r"line (\d+), column (\d+)", place)
        at = f"line {line[1]}, column {line[2]}" if line else f"line {text.count(chr(10)) + 1} (its end)"
        raise ConfigError([f"{path}, {at}: not TOML: {what}"]) from failure
