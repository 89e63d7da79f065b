"""Whether the journal is what was written: its chains, its files and its anchors, looked at without a gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from proxy.records.chain import Link, links
from proxy.records.index import NAME
from proxy.records.reading import alive, files


@dataclass(slots=True)
class Report:
    """What was found: `problems` say that something was changed or taken out, the first one first; `notes` do not.

    `files` and `lines` count what was read, `dropped` the files that retention removed, `anchored` is the time of the
    last anchor (seconds since 1970).
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    lines: int = 0
    dropped: int = 0
    anchored: float | None = None


def verify(directory: Path, key: bytes, anchor: bytes | None = None) -> Report:
    """Check the journal in `directory`; `anchor` is the last line that was brought to safety elsewhere.

    Raises `OSError` where a file cannot be read, `ValueError` where `anchor` is not a line of an index.
    """
    wanted = None if anchor is None else _anchor(anchor)
    return _Verification(directory, key).run(wanted, (anchor or b"").strip())


class _Verification:
    def __init__(self, directory: Path, key: bytes) -> None:
        self.directory = directory
        self.key = key
        self.report = Report()
        self.opened: dict[str, dict[str, Any]] = {}
        self.closed: dict[str, dict[str, Any]] = {}
        self.dropped: set[str] = set()
        self.anchors: list[dict[str, Any]] = []

    def run(self, anchor: Mapping[str, Any] | None, raw: bytes) -> Report:
        report = self.report
        if not (self.directory / NAME).exists():
            report.problems.append(f"{NAME} is missing, without which nothing can be told of any file")
            return report
        self.read_index(anchor, raw)
        for name in self.opened:
            if name in self.dropped:
                report.dropped += 1
            elif (self.directory / name).exists():
                self.read_file(name)
            elif not self.entered("drop", name):
                report.problems.append(f"{name} is missing: it was begun {_when(self.opened[name])}")
        for path in files(self.directory):
            if path.name in self.opened or not path.stat().st_size:
                continue
            if not self.entered("open", path.name):
                report.problems.append(f"{path.name} is not in the index: no gateway of this journal has made it")
        return report

    def read_index(self, anchor: Mapping[str, Any] | None, raw: bytes) -> None:
        last: dict[str, Any] | None = None
        for link in self.chain(NAME):
            if not link.follows:  # reported, and not believed
                continue
            entry, kind = link.line, link.line.get("kind")
            if kind == "open":
                self.opened[entry["file"]] = entry
            elif kind == "close":
                self.closed[entry["file"]] = entry
            elif kind == "drop":
                self.dropped.add(entry["file"])
            elif kind == "anchor":
                last = entry
                if link.raw.strip() == raw:
                    self.anchors.append(entry)
        if anchor is not None and not self.anchors:
            self.report.problems.append(
                f"{NAME} does not have line {anchor['seq']} as it was anchored {_when(anchor)}: "
                "it was changed, or its tail is missing"
            )
        if last is not None:
            self.anchors.append(last)
            self.report.anchored = last["time"]

    def read_file(self, name: str) -> None:
        report, closed = self.report, self.closed.get(name)
        anchored = {head[0]: (head[1], anchor) for anchor in self.anchors if (head := anchor["files"].get(name))}
        # Asked first: a file that is closed between two looks is whole.
        living = closed is None and alive(self.directory / name)
        count, size, mac = 0, 0, ""
        for count, link in enumerate(self.chain(name), 1):
            size += len(link.raw)
            mac = link.mac.decode("ascii", "replace")
            known = anchored.pop(count, None)
            if known is not None and known[0] != mac:
                report.problems.append(f"{name}, record {count}: is not what was anchored {_when(known[1])}")
        report.files += 1
        for lines, (_, anchor) in anchored.items():
            if lines > count:
                report.problems.append(
                    f"{name}: its tail is missing, records {count + 1} to {lines}, which were there {_when(anchor)}"
                )
        behind = (self.directory / name).stat().st_size - size
        if closed is None:
            if not living:
                report.notes.append(f"{name}: its process died, and nobody has closed it yet")
                if behind:
                    report.notes.append(f"{name}: ends in a half line of {behind} bytes")
            return
        lines = closed.get("lines", 0)
        if count < lines:
            report.problems.append(f"{name}: its tail is missing, records {count + 1} to {lines}")
        elif count > lines or (count and mac != closed.get("head")):
            report.problems.append(f"{name}: does not end as it did when it was closed {_when(closed)}")
        elif size + behind != closed.get("bytes", 0) + closed.get("torn", 0):
            report.problems.append(f"{name}: has other bytes behind its last record than when it was closed")

    def chain(self, name: str) -> Iterator[Link]:
        """Yield the links of a file, and report those that do not follow."""
        expected = 1
        for number, link in enumerate(links(self.directory / name, self.key), 1):
            self.report.lines += 1
            if not link.follows:
                self.report.problems.append(f"{name}, line {number}: {_broken(link, expected)}")
            expected = (expected if link.seq is None else link.seq) + 1
            yield link

    def entered(self, kind: str, name: str) -> bool:
        """Say whether the index has such an entry by now: a gateway may have gone on since it was read."""
        return any(
            link.follows and link.line.get("kind") == kind and link.line.get("file") == name
            for link in links(self.directory / NAME, self.key)
        )


def _broken(link: Link, expected: int) -> str:
    if link.seq is None:
        return f"where record {expected} should be is no record"
    named = f"record {link.seq}" + (f" ({link.line['id']})" if isinstance(link.line.get("id"), str) else "")
    if link.seq > expected:
        return f"{named} does not follow: records {expected} to {link.seq - 1} before it are missing"
    return f"{named} was changed, or does not belong there"


def _anchor(raw: bytes) -> Mapping[str, Any]:
    try:
        anchor = orjson.loads(raw)
    except orjson.JSONDecodeError:
        anchor = None
    if not isinstance(anchor, dict) or anchor.get("kind") != "anchor" or "seq" not in anchor:
        raise ValueError("not an anchor: it must be a line that `lockgate audit anchor` has written")
    return anchor


def _when(entry: Mapping[str, Any]) -> str:
    time = entry.get("time")
    return datetime.fromtimestamp(time, UTC).strftime("at %Y-%m-%dT%H:%M:%SZ") if isinstance(time, int | float) else "?"
