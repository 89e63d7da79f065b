"""The journal's index, a chained file too: which files there are, how each ended, and what was done to the gateway."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from proxy.records import chain
from proxy.records.reading import alive, files, lines
from proxy.secrets import kept

if TYPE_CHECKING:
    from proxy.settings import Settings

logger = logging.getLogger("lockgate.journal")

NAME = "index.jsonl"


def key(settings: Settings) -> bytes:
    """Return the key of the journal's chains: the configured one, else `<state>/journal.key`, made when missing.

    Raises `ConfigError` when it is too short or the file is open to others. Without it nothing can be verified.
    """
    return kept(settings.journal.key, "journal.key", settings.server.state / "journal.key")


def of(settings: Settings) -> Index:
    """Return the index of the journal that these settings name."""
    return Index(settings.server.state / "journal", key(settings))


class Index:
    """`index.jsonl` in the journal's `directory`. Any process may append: the file is locked for that moment.

    Its lines are of these kinds: `open` and `close` of a file (`lines`, `bytes` and `head`, the last MAC; `died` where
    its process had, with `torn` bytes of a half line behind them), `drop` (removed by retention, with what `close`
    said: the checkpoint), `anchor` (`files`: how far the open ones were), `audit` (`act` and its details). `time` is
    seconds since 1970.

    Every method raises `OSError` where the file cannot be written or read; it then ends with the line before.
    """

    def __init__(self, directory: Path, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.path = directory / NAME
        self.key = key
        self._clock = clock

    def append(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """Write one line, on the disk when this returns; return it as it stands there."""
        with self._locked() as descriptor:
            return self._put(descriptor, kind, fields)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the lines in their order; nothing where there is no index yet."""
        if self.path.exists():
            for line, _ in lines(self.path):
                yield line

    def recover(self) -> list[str]:
        """Write down how the files of dead processes ended, where that was not done yet; return their names.

        A file may end in a half line, which stays where it is and is not read.
        """
        dead = [path for path in files(self.directory) if _is_orphan(path)]
        if not dead:
            return []
        recovered = []
        with self._locked() as descriptor:
            opened = self._opened()
            for path in dead:
                if path.name in opened:
                    self._put(descriptor, "close", {"file": path.name, **self._found(path), "died": True})
                    recovered.append(path.name)
                path.chmod(stat.S_IRUSR)
        return recovered

    def drop(self, names: list[str]) -> list[str]:
        """Remove closed files, of which a checkpoint stays here; return the names of those removed.

        Those that are not closed yet are left: `recover` closes the files of the dead.
        """
        closed = {entry["file"]: entry for entry in self.entries() if entry.get("kind") == "close"}
        dropped = []
        for name in names:
            if name in closed:
                self.append("drop", {what: closed[name].get(what) for what in ("file", "lines", "bytes", "head")})
                (self.directory / name).unlink(missing_ok=True)
                dropped.append(name)
        return dropped

    def anchor(self) -> bytes:
        """Write how far every open file is; return the line, which vouches for all that stands before it."""
        with self._locked() as descriptor:
            heads = {}
            for name in self._opened():
                path = self.directory / name
                if path.exists():
                    found = self._found(path)
                    heads[name] = [found["lines"], found["head"]]
            return self._put(descriptor, "anchor", {"files": heads})

    def _opened(self) -> list[str]:
        """Return the names of the files that were opened and not closed."""
        opened: dict[str, None] = {}
        for entry in self.entries():
            if entry.get("kind") == "open":
                opened[entry["file"]] = None
            elif entry.get("kind") in ("close", "drop"):
                opened.pop(entry["file"], None)
        return list(opened)

    def _found(self, path: Path) -> dict[str, Any]:
        """Return what a file holds, by its last whole line."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw, behind = chain.tail(file.fileno(), size)
        seq, mac = chain.end(raw, self.key, path.name)
        return {"lines": seq, "bytes": behind, "head": mac.decode(), "torn": size - behind}

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _put(self, descriptor: int, kind: str, fields: Mapping[str, Any]) -> bytes:
        size = os.fstat(descriptor).st_size
        raw, behind = chain.tail(descriptor, size)
        if behind < size:
            os.ftruncate(descriptor, behind)  # a half line, of a process that died over it
        seq, before = chain.end(raw, self.key, self.path.name)
        record = orjson.dumps({"kind": kind, "time": self._clock(), **fields}) + b"\n"
        line, _ = chain.sealed(self.key, before, seq + 1, record)
        put(descriptor, line, behind)
        os.fdatasync(descriptor)
        return line


def put(descriptor: int, data: bytes, size_bytes: int) -> None:
    """Append `data` to a file that was `size_bytes` long; raises `OSError`, and the file is then as it was.

    Where even taking it back fails, the next call does it first: what is behind `size_bytes` is nobody's.
    """
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        os.ftruncate(descriptor, size_bytes)
        raise


def _is_orphan(path: Path) -> bool:
    """Say whether the process that wrote this file has not closed it: closing takes away the right to write."""
    try:
        return bool(path.stat().st_mode & stat.S_IWUSR) and not alive(path)
    except FileNotFoundError:  # retention was faster
        return False
    except PermissionError:
        logger.error("%s cannot be read by this user, and is left as it is", path)
        return False
