"""A log's lines on their way out: taken without waiting, written in their order by a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields

from proxy.records.outlets import File, Outlet, Stream, Syslog
from proxy.secrets import resolve

log = logging.getLogger("lockgate")

#: Seconds for which lines gather before they are written, so that a busy gateway wakes the writer seldom; after which
#: an outlet that failed is tried again; that the end of the process waits for what is left; between two complaints.
GATHER_S, AGAIN_S, LAST_S, COMPLAIN_S = 0.02, 1.0, 3.0, 60.0


class Sink:
    """Takes lines from any thread without waiting, and writes them in their order from its own.

    Where the other side stalls or fails, up to `most` lines wait; what comes then is dropped, counted in `dropped` and
    complained about in the gateway's log. Make it after the fork; `close` writes what is left, for up to 3 seconds.
    """

    def __init__(self, outlet: Outlet, most: int = 10_000) -> None:
        self.dropped = 0
        self._outlet = outlet
        self._most = most
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._told_at: float | None = None
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Hand a line over, which ends with a line feed."""
        if len(self._lines) >= self._most:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is left, as far as the other side takes it, and end the thread."""
        self._ending = True
        self._wake.set()
        self._thread.join(LAST_S)
        self._complain(last=True)

    def _run(self) -> None:
        until: float | None = None
        while True:
            self._wake.wait()
            if self._ending and until is None:
                until = time.monotonic() + LAST_S
            elif not self._ending:
                time.sleep(GATHER_S)
            self._wake.clear()
            while self._lines and (until is None or time.monotonic() < until):
                try:
                    self._outlet.write(self._lines[0])
                except OSError as failure:
                    self._outlet.close()
                    self._complain(failure)
                    if self._ending:
                        break
                    time.sleep(AGAIN_S)
                else:
                    self._lines.popleft()
            self._complain()
            if self._ending:
                self._outlet.close()
                return

    def _complain(self, failure: OSError | None = None, last: bool = False) -> None:
        now = time.monotonic()
        if self._told_at is not None and now < self._told_at + COMPLAIN_S and not last:
            return
        if failure is not None:
            self._told_at = now
            log.warning("log lines cannot be written: %s", failure.strerror or type(failure).__name__)
        if self.dropped > self._told:
            self._told_at = now
            log.warning("log lines were dropped, as they were not taken: %d", self.dropped - self._told)
            self._told = self.dropped
        if last and self._lines:
            log.warning("log lines were not taken at the end: %d", len(self._lines))


class OutletField(fields.Field[Any]):
    """Where a log goes: `"stdout"`, `"syslog"`, `{ file = "/path" }` or `{ syslog = "udp://HOST:PORT" }`.

    Loads as what makes the `Outlet`, which is called after the fork.
    """

    @staticmethod
    def stdout() -> type[Stream]:
        """Return what `"stdout"` loads as: for `load_default`, which marshmallow calls."""
        return Stream

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if value == "stdout":
            return Stream
        if value == "syslog":
            return lambda: Syslog("unix:/dev/log")
        if isinstance(value, dict) and len(value) == 1:
            [(kind, where)] = value.items()
            if kind == "file" and isinstance(where, str) and where:
                path = resolve(where)
                if not path.parent.is_dir() or path.is_dir():
                    raise ValidationError(f"{path} is a folder" if path.is_dir() else f"{path.parent} does not exist")
                return lambda: File(path)
            if kind == "syslog" and isinstance(where, str) and _is_syslog(where):
                return lambda: Syslog(where)
        raise ValidationError(
            'must be "stdout", "syslog", { file = "/path" } or { syslog = "udp://HOST:514" }, tcp:// or unix:/dev/log'
        )


def _is_syslog(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return not parts.netloc and parts.path.startswith("/")
    return parts.scheme in ("udp", "tcp") and bool(parts.hostname) and port != 0 and not parts.path
