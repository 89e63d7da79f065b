"""What administrators and the gateway itself did, kept in the journal's index and so in its chain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from proxy.records import index
from proxy.records.lines import json_line

if TYPE_CHECKING:
    from proxy.settings import Settings


def note(settings: Settings, act: str, **details: Any) -> None:
    """Write down that `act` (such as `"key.create"`) is done, by this process; on the disk when this returns.

    `details` are ids, numbers and short texts: no secrets, and no names of people, which could not be erased. Raises
    `OSError` where it cannot be written: then the act must not be done, so call this before a transaction's commit.
    Raises `ConfigError` where the journal's key cannot be used.
    """
    enter(index.of(settings), act, **details)


def enter(where: index.Index, act: str, **details: Any) -> None:
    """Write it down in an index that is known."""
    by: dict[str, Any] = {"uid": os.getuid(), "pid": os.getpid()}
    if os.environ.get("SUDO_UID", "").isdecimal():
        by["sudo_uid"] = int(os.environ["SUDO_UID"])
    plain = orjson.loads(json_line({"act": act, "by": by, "details": details}))
    where.append("audit", plain)


def acts(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what was done, in order: `time`, `act`, `by`, `details`; a worker that died is an act of its own."""
    for entry in index.of(settings).entries():
        if entry.get("kind") == "audit":
            yield {what: entry.get(what) for what in ("time", "act", "by", "details")}
        elif entry.get("kind") == "close" and entry.get("died"):
            yield _act(entry, "worker.died")
        elif entry.get("kind") == "drop":
            yield _act(entry, "journal.drop")


def _act(entry: dict[str, Any], act: str) -> dict[str, Any]:
    details = {what: entry.get(what) for what in ("file", "lines")}
    return {"time": entry.get("time"), "act": act, "by": {}, "details": details}
