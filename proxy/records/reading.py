"""The journal's files as they are read: from lines to one record an exchange, while a file grows and after its end."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

logger = logging.getLogger("lockgate.journal")

Line = dict[str, Any]
Record = dict[str, Any]

#: Every field of a record; `None` is what is not known, or not yet.
FIELDS = (
    "key", "id", "state", "time", "settled", "ended", "subject", "team", "path", "model", "target", "stream", "client",
    "agent", "prompt", "reserved", "status", "code", "complete", "client_gone", "culprit", "finish", "usage",
    "estimated", "cost", "attempts", "first_event_s", "upstream_s", "ours_s", "duration_s", "bytes_in",
    "bytes_out", "trace", "findings",
)  # fmt: skip
_BLANK: Record = dict.fromkeys(FIELDS)
_NOT_KEPT = ("seq", "kind", "start", "mac")


def lines(path: Path, offset: int = 0) -> Iterator[tuple[Line, int]]:
    """Yield the lines of one file from byte `offset` on, each with the offset behind it, also while it grows.

    A last line that is not whole, since it is being written or its writer died, is left out; a whole one that is no
    record is logged, and comes empty.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            offset += len(raw)
            try:
                line = orjson.loads(raw)
            except orjson.JSONDecodeError:
                line = None
            if not isinstance(line, dict):
                logger.warning("%s: the line before byte %d is no record, left out", path, offset)
                line = {}
            yield line, offset


def alive(path: Path) -> bool:
    """Say whether the process that writes this file lives: it holds the file's lock. Raises `FileNotFoundError`."""
    with path.open("rb") as file:
        try:
            # A shared lock: two who ask at once do not take each other for the writer.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def files(directory: Path) -> list[Path]:
    """Return the journal's files in `directory` by name, which begins with the time of their making."""
    return sorted(path for path in directory.glob("*.jsonl") if path.name != "index.jsonl")


class Records:
    """The records of one file, in the order in which they end; each has all of `FIELDS`.

    `key` is unique for all time (the file's name and the number of the exchange's first line): who stores records
    ignores one whose key is there. `state` is `ended`; `settled` where the process died between the settle line and the
    end line (the answer was paid for, and may have arrived); `lost` where it died before (`cost` is then what had been
    `reserved`, and `estimated`). `time`, `settled` and `ended` are seconds since 1970, by a clock that may step back;
    `cost` and `reserved` are micro-dollars; `prompt` is the estimate of the prompt's tokens made before the call;
    `upstream_s` is what the attempts took until the answer began (whole answers: until they were there), `ours_s` the
    rest of `first_event_s`. `usage` has `prompt`, `completion`, `cached`, `cache_write`, `reasoning` and `audio`,
    `attempts` are `[target, status, code, seconds]`, `trace` is `[plugin, decision, microseconds]`.

    `offset` is the byte from which a later reader must begin so as to miss nothing that was not returned yet; it will
    meet records again that were, with the same keys.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self._at = offset
        self._begun: dict[int, tuple[int, Record]] = {}

    @property
    def offset(self) -> int:
        """The byte behind the last line, or before the first one of the oldest exchange that has not ended."""
        for before, _ in self._begun.values():
            return before
        return self._at

    def read(self, most: int = 1000) -> list[Record]:
        """Return the records that have ended since the last call, at most so many; none when the file has no more."""
        ended: list[Record] = []
        for line, behind in lines(self.path, self._at):
            try:
                record = self._take(line)
            except (KeyError, TypeError, ValueError):  # somebody changed it
                logger.warning("%s: the line before byte %d is no record, left out", self.path, behind)
                record = None
            self._at = behind
            if record is not None:
                ended.append(record)
                if len(ended) == most:
                    break
        return ended

    def rest(self) -> list[Record]:
        """Return the exchanges that never ended, as `settled` or `lost`, and forget them.

        Only for a file that is not `alive`, and after `read` has returned nothing *since it was found dead*.
        """
        left = []
        for _, record in self._begun.values():
            if record["settled"] is None:
                record |= {"state": "lost", "cost": record["reserved"], "estimated": True}
            else:
                record["state"] = "settled"
            left.append(record)
        self._begun.clear()
        return left

    def _take(self, line: Line) -> Record | None:
        kind = line.get("kind")
        if kind == "start":
            self._begun[int(line["seq"])] = (self._at, self._blank(line))
            return None
        if kind not in ("settle", "end"):
            return None
        if kind == "end" and "start" not in line:
            return _ended(self._blank(line))
        begun = self._begun.get(line["start"])
        if begun is None:  # begun before the offset at which this reader began, and so returned by an earlier one
            return None
        begun[1].update({name: value for name, value in line.items() if name not in _NOT_KEPT})
        if kind == "settle":
            return None
        record = _ended(begun[1])
        del self._begun[line["start"]]
        return record

    def _blank(self, line: Line) -> Record:
        """Return a record that says what its first line says."""
        key = {"key": f"{self.path.stem}:{line['seq']}"}
        return _BLANK | key | {name: value for name, value in line.items() if name not in _NOT_KEPT}


def _ended(record: Record) -> Record:
    record["state"] = "ended"
    record["upstream_s"] = upstream_s = sum(seconds or 0 for _, _, _, seconds in record["attempts"] or ())
    record["ours_s"] = max(0.0, (record["first_event_s"] or record["duration_s"] or 0) - upstream_s)
    return record
