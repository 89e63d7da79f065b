"""Whether the gateway can serve: what `/readyz` looks at."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from proxy.counters import Unavailable, open_store
from proxy.metrics.scrape import Scrape, Total
from proxy.records.database import Database, location, revision
from proxy.records.tables import HEAD
from proxy.serving import Flight
from proxy.settings import Settings

log = logging.getLogger("lockgate.admin")

#: How long an answer holds, in seconds: probes may come as often as they like.
HOLDS_S = 1.0
#: More than a worker sets aside for its journal.
PROBE_BYTES = 1 << 19


class Readiness:
    """The checks, by name. Each returns `None`, or a short sentence on what is wrong, without secrets."""

    def __init__(self, settings: Settings, scrape: Scrape) -> None:
        self._settings = settings
        self._state = settings.server.state
        self._scrape = scrape
        self._database = Database(location(settings))
        self._counters = open_store(settings)
        self._checked: tuple[Path | None, str | None] = (None, None)
        self._turn = threading.Lock()
        self._answer: dict[str, str | None] = {}
        self._asked = 0.0

    def check(self) -> dict[str, str | None]:
        """Return what is wrong, check by check; while another thread checks, what was found before."""
        # A check may take seconds, and the threads that probes would wait in are those of the metrics.
        if not self._turn.acquire(blocking=not self._answer):
            return self._answer
        try:
            if time.monotonic() >= self._asked + HOLDS_S or not self._answer:
                totals, living = self._scrape.totals()
                self._answer = {
                    "workers": None if living else "no worker lives",
                    "config": self._told(self._config),
                    "database": self._told(self._reachable),
                    "counters": self._told(self._countable),
                    "journal": self._told(self._writable),
                    "targets": _closed(totals) if living else "no worker lives",
                }
                self._asked = time.monotonic()
            return self._answer
        finally:
            self._turn.release()

    def _told(self, check: Callable[[], str | None]) -> str | None:
        try:
            return check()
        except Exception:
            log.exception("a check of the readiness failed")
            return "the check failed; the log says more"

    def _config(self) -> str | None:
        """Check the copy that a worker would load now; one copy never changes, so once is enough."""
        copies = (self._state / "active").glob("[0-9]*-*/lockgate.toml")
        newest = max(copies, key=_written, default=None)
        if newest is None:
            return "no gateway has been started with this state"
        if self._checked[0] != newest:
            flight = Flight(newest)
            problems = flight.report["problems"]
            flight.close()
            self._checked = newest, problems[0] if problems else None
        return self._checked[1]

    def _reachable(self) -> str | None:
        try:
            found = revision(self._database)
        except Database.failures as failure:
            log.warning("the database is out of reach: %s", self._database.store.explain(failure))
            return "out of reach"
        return None if found == HEAD else "its tables are another version's"

    def _countable(self) -> str | None:
        try:
            self._counters.probe()
        except Unavailable as failure:
            log.warning("counters: %s", failure)
            return "out of reach"
        return None

    def _writable(self) -> str | None:
        try:
            with tempfile.TemporaryFile(dir=self._state / "journal") as file:
                os.posix_fallocate(file.fileno(), 0, PROBE_BYTES)
        except OSError as failure:
            if self._settings.journal.when_full == "continue":
                return None
            return f"cannot be written: {failure.strerror}"
        return None


def _written(copy: Path) -> int:
    """Return when a copy was written; 0 where a reload has removed it by now."""
    try:
        return copy.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _closed(totals: dict[str, Total]) -> str | None:
    """Say whether the breaker of at least one target is closed in some worker."""
    breakers = totals.get("lockgate_breakers")
    if breakers and any(values[0] for (_, state), values in breakers.rows.items() if state == "closed"):
        return None
    return "the breakers of all targets are open"
