"""The journal: what happened to each exchange, written before anybody is told, so that no crash can lose it."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from proxy.exchange import Exchange
from proxy.records.lines import json_line

logger = logging.getLogger(__name__)


class Journal:
    """One worker's own file of JSON lines in `directory`; make it after the fork.

    An exchange has a `start` line before its upstream is called, a `settle` line before the last of its answer is
    handed over, and an `end` line; one that is refused earlier has an `end` line alone, with what `start` would say.
    Lines never hold prompts, answers or credentials. They survive the death of the process, as soon as the call
    returns; not that of the machine.

    The file stays locked (`flock`) as long as the process lives, so an unlocked one is a dead worker's. Its name
    begins with the time of its making, and sorts by it.

    `start`, `settle` and `end` raise `OSError` where the line could not be written, e.g. on a full disk; the file
    then ends with the line before.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._seq = 0
        self._size_bytes = 0
        self._torn = False
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = datetime.fromtimestamp(clock(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = directory / f"{made}-{self._pid}-{secrets.token_hex(4)}.jsonl"
        self._descriptor = _open(self.path)

    def start(self, exchange: Exchange) -> None:
        """Write who is about to have which target called."""
        self._write({"kind": "start", "id": exchange.id, "time": self._clock(), **_beginning(exchange)})
        exchange.stash[self] = True

    def settle(self, exchange: Exchange) -> None:
        """Write what the answer cost."""
        self._write(
            {
                "kind": "settle",
                "id": exchange.id,
                "time": self._clock(),
                "target": exchange.target,
                "status": exchange.outcome.status,
                "finish": _finish(exchange),
                "usage": _usage(exchange),
            }
        )

    def end(self, exchange: Exchange) -> None:
        """Write how the exchange ended."""
        outcome = exchange.outcome
        record = {"kind": "end", "id": exchange.id, "time": self._clock()}
        if not exchange.stash.get(self):
            record |= _beginning(exchange)
        record |= {
            "target": exchange.target,
            "status": outcome.status,
            "code": outcome.code,
            "complete": outcome.complete,
            "client_gone": outcome.client_gone,
            "culprit": outcome.culprit,
            "finish": _finish(exchange),
            "usage": _usage(exchange),
            "attempts": [[a.target, a.status, a.code, a.seconds] for a in exchange.attempts],
            "first_event_s": outcome.first_event_s,
            "duration_s": outcome.duration_s,
            "bytes_out": outcome.bytes_out,
        }
        self._write(record)

    def close(self) -> None:
        """Give the file up; what comes later raises `OSError`."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, record: dict[str, Any]) -> None:
        body = json_line(record)
        with self._lock:
            if os.getpid() != self._pid:
                raise RuntimeError(f"the journal was opened by process {self._pid}: open it after the fork")
            line = b'%b{"seq":%d,%b' % (b"\n" if self._torn else b"", self._seq + 1, body[1:])
            try:
                written = os.write(self._descriptor, line)
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
            except OSError as failure:
                self._take_back()
                raise OSError(failure.errno, failure.strerror, str(self.path)) from failure
            self._seq += 1
            self._size_bytes = os.fstat(self._descriptor).st_size if self._torn else self._size_bytes + len(line)
            self._torn = False

    def _take_back(self) -> None:
        """Cut off a line of which only a part was written; the file has no other writer."""
        try:
            os.ftruncate(self._descriptor, self._size_bytes)
        except OSError:
            self._torn = True  # the next line begins with a line feed, so that the half one spoils no other


def _open(path: Path) -> int:
    """Make the file at `path` and lock it."""
    # It gets its name when it is locked: a reader that finds it unlocked would take it for a dead worker's.
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(draft, path)
    return descriptor


def _beginning(exchange: Exchange) -> dict[str, Any]:
    identity = exchange.identity
    return {
        "subject": identity and identity.subject,
        "name": identity and identity.name,
        "team": identity and identity.team,
        "path": exchange.path[:256],
        "model": exchange.model and exchange.model[:256],
        "target": exchange.target,
        "stream": exchange.stream,
        "client": exchange.client_address,
        "agent": exchange.headers.get("user-agent", "")[:256],
    }


def _finish(exchange: Exchange) -> dict[str, str]:
    return {str(choice): reason for choice, reason in exchange.outcome.finish_reasons.items()}


def _usage(exchange: Exchange) -> dict[str, Any] | None:
    usage = exchange.usage
    if usage is None:
        return None
    return {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "cached": usage.cached_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "audio": usage.audio_tokens,
        "estimated": usage.estimated,
    }


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of one file in their order, also while it grows; a line that was torn is left out.

    Only the last line can be torn, unless a full disk also refused to take it back; one amid others is logged.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                if line.endswith(b"\n"):
                    logger.warning("%s:%d: not a record, left out", path, number)
