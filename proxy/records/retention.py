"""What is removed when its days are over: rows of the ledger, and journal files that have come there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Table, delete, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from proxy.records.database import Database
from proxy.records.index import Index
from proxy.records.rows import DAY_S
from proxy.records.tables import requests, shipped, usage
from proxy.settings import LedgerSettings

logger = logging.getLogger(__name__)

EVERY_S = 3600.0
#: How many rows one transaction removes: keys are made and revoked between two.
BATCH = 5000


class Retention:
    """Removes what is older than `settings` say; called as often as one likes, it works once an hour."""

    def __init__(
        self,
        database: Database,
        index: Index,
        host: str,
        settings: LedgerSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._index = index
        self._host = host
        self._settings = settings
        self._clock = clock
        self._next = 0.0

    def __call__(self) -> None:
        """Do what is due; raises one of `Database.failures`."""
        if time.monotonic() >= self._next:
            self.sweep()
            self._next = time.monotonic() + EVERY_S

    def sweep(self) -> None:
        """Remove what is too old now."""
        now, settings = self._clock(), self._settings
        self._rows(requests, requests.c.time < now - settings.keep_days * DAY_S)
        for span, days in (("hour", settings.keep_days), ("day", settings.keep_usage_days)):
            self._rows(usage, (usage.c.span == span) & (usage.c.start < now - (days + 1) * DAY_S))
        self._files(now - settings.journal_days * DAY_S)

    def _rows(self, table: Table, old: ColumnElement[bool]) -> None:
        key = tuple_(*table.primary_key)
        while True:
            with self._database.write() as connection:
                some = select(*table.primary_key).where(old).limit(BATCH)
                if connection.execute(delete(table).where(key.in_(some))).rowcount < BATCH:
                    return

    def _files(self, before: float) -> None:
        """Remove files that are in the ledger since then; the journal's index keeps a checkpoint of each."""
        done = select(shipped.c.file).where(shipped.c.host == self._host, shipped.c.finished < before)
        with self._database.read() as connection:
            names = list(connection.execute(done).scalars())
        there = [name for name in names if (self._index.directory / name).exists()]
        if there:
            try:
                self._index.recover()
                dropped = self._index.drop(there)
                logger.info("ledger: %d shipped journal files were removed", len(dropped))
            except OSError as failure:
                logger.error("ledger: shipped journal files cannot be removed: %s", failure)
        gone = [name for name in names if not (self._index.directory / name).exists()]
        for at in range(0, len(gone), BATCH):
            with self._database.write() as connection:
                some = shipped.c.file.in_(gone[at : at + BATCH])
                connection.execute(delete(shipped).where(shipped.c.host == self._host, some))
