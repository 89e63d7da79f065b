"""The shipper: moves the journal's records to the ledger, each exactly once."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from proxy.errors import ConfigError
from proxy.records import host, rows
from proxy.records.database import Database, revision
from proxy.records.reading import Record, Records, alive, files
from proxy.records.tables import HEAD, requests, shipped, usage

logger = logging.getLogger(__name__)

#: How many records go to the ledger in one transaction.
BATCH = 1000
#: The longest wait after failures, in seconds; the first is PAUSE_S, each doubles.
LONGEST_PAUSE_S = 30.0
PAUSE_S = 1.0
#: Each dialect has an insert of its own that can also add to what is there.
INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Moved(Exception):
    """Another shipper has shipped the same files."""


class Tail:
    """One journal file on its way: what was read of it, and up to where the ledger has it."""

    def __init__(self, path: Path, position: int) -> None:
        self.records = Records(path, position)
        self.position = position


class Shipper:
    """Moves what the journal in `state` holds to the ledger in `database`. One host has one (`host.lock`).

    A batch of records and how far each file is in them are one transaction, so that after a crash of anything the next
    shipper goes on where the last one was. A record that is there already, which long exchanges make happen at a
    start, is not taken twice.
    """

    def __init__(self, database: Database, state: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.host = host.name(state)
        self.problem: str | None = None
        self._database = database
        self._state = state
        self._journal = state / "journal"
        self._clock = clock
        self._tails: dict[str, Tail] = {}
        self._finished: set[str] | None = None
        self._positions: dict[str, int] = {}

    @property
    def behind_bytes(self) -> int:
        """How many bytes of the journal are not in the ledger, those of exchanges under way included."""
        behind = 0
        for path in files(self._journal):
            if path.name not in (self._finished or ()):
                with suppress(FileNotFoundError):
                    behind += max(0, path.stat().st_size - self._positions.get(path.name, 0))
        return behind

    def run(self, wait: Callable[[float], bool], chores: Callable[[], None] = lambda: None) -> None:
        """Ship until `wait(seconds)` returns true, and then what is still there.

        `chores` are done after what there was has been shipped. While the database cannot be used, or is another
        version's, the journal waits.
        """
        pause_s, ends = PAUSE_S, False
        while True:
            try:
                self.ship()
                chores()
            except (*Database.failures, ConfigError) as failure:
                self._forget()
                self._complain(failure)
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
            else:
                if self.problem is not None:
                    logger.warning("ledger: records can be written again")
                self.problem, pause_s = None, PAUSE_S
            self._tell()
            if ends:
                return
            ends = wait(pause_s)

    def ship(self) -> int:
        """Move what there is, and return how many records that were.

        Raises one of `Database.failures`, or `ConfigError` where the database is not at this version.
        """
        if self._finished is None:
            self.begin()
        count = 0
        try:
            while True:
                records, moved, finished = self._gather()
                if moved:
                    count += self._store(records, moved, finished)
                if len(records) < BATCH:
                    return count
        except Moved:
            logger.warning("ledger: another shipper has shipped this journal, going on behind it")
            self._forget()
            return count

    def begin(self) -> None:
        """Read from the ledger how far it is; raises as `ship` does."""
        found = revision(self._database)
        if found != HEAD:
            remedy = "this host is upgraded too" if found and found > HEAD else "`lockgate db upgrade` was run"
            what = f"the database is at revision {found or 'none'}, this version writes {HEAD}"
            raise ConfigError([f"{what}: the journal waits until {remedy}"])
        with self._database.read() as connection:
            known = connection.execute(select(shipped).where(shipped.c.host == self.host)).all()
        self._tails = {row.file: Tail(self._journal / row.file, row.position) for row in known if row.finished is None}
        self._finished = {row.file for row in known if row.finished is not None}
        self._positions = {row.file: row.position for row in known}

    def _forget(self) -> None:
        """Believe the database alone about what is shipped: the last transaction may have been committed or not."""
        self._tails, self._finished = {}, None

    def _gather(self) -> tuple[list[Record], list[Tail], set[str]]:
        """Read one batch: the records, the files that have moved on, and the names of those that are at their end."""
        assert self._finished is not None
        records: list[Record] = []
        moved: list[Tail] = []
        finished: set[str] = set()
        for path in files(self._journal):
            if path.name in self._finished:
                continue
            tail = self._tails.setdefault(path.name, Tail(path, 0))
            try:
                # Asked before it is read: what the dying process wrote last has been written by then.
                dead = not alive(path)
                room = BATCH - len(records)
                got = tail.records.read(room) if room else []
            except FileNotFoundError:
                continue
            records += got
            if dead and len(got) < room:
                records += tail.records.rest()
                finished.add(path.name)
            if tail.records.offset != tail.position or got or path.name in finished:
                moved.append(tail)
        return records, moved, finished

    def _store(self, records: list[Record], moved: list[Tail], finished: set[str]) -> int:
        """Write one batch, and how far the files are in it, in one transaction."""
        assert self._finished is not None
        names = {tail.records.path.name: tail for tail in moved}
        here = shipped.c.host == self.host
        with self._database.write() as connection:
            known = select(shipped.c.file, shipped.c.position, shipped.c.finished).where(
                here, shipped.c.file.in_(names)
            )
            positions = {}
            for row in connection.execute(known):
                positions[row.file] = row.position
                if row.finished is not None:
                    raise Moved
            if any(positions.get(name, 0) != tail.position for name, tail in names.items()):
                raise Moved
            count = self._insert(connection, records)
            now = self._clock()
            for name, tail in names.items():
                values = {"position": tail.records.offset, "finished": now if name in finished else None}
                if name in positions:
                    connection.execute(update(shipped).where(here, shipped.c.file == name).values(values))
                else:
                    connection.execute(insert(shipped).values(host=self.host, file=name, **values))
        for name, tail in names.items():
            self._positions[name] = tail.position = tail.records.offset
            if name in finished:
                del self._tails[name]
        self._finished |= finished
        return count

    def _insert(self, connection: Connection, records: list[Record]) -> int:
        made = {row["key"]: row for row in (rows.row(record, self.host) for record in records)}
        there = select(requests.c.key).where(requests.c.key.in_(made))
        for key in connection.execute(there).scalars().all() if made else ():
            del made[key]
        if not made:
            return 0
        connection.execute(insert(requests), list(made.values()))
        statement = INSERT[connection.dialect.name](usage)
        added = {name: usage.c[name] + statement.excluded[name] for name in rows.SUMS}
        primary = [column.name for column in usage.primary_key]
        connection.execute(
            statement.on_conflict_do_update(index_elements=primary, set_=added), rows.sums(made.values())
        )
        return len(made)

    def _complain(self, failure: Exception) -> None:
        text = failure.problems[0] if isinstance(failure, ConfigError) else self._database.store.explain(failure)
        if self.problem != text:
            logger.error("ledger: nothing can be written, the journal waits: %s", text)
        self.problem = text

    def _tell(self) -> None:
        """Write down how it goes, for `lockgate ledger status` and the metrics."""
        known = {"pid": os.getpid(), "host": self.host, "time": self._clock()}
        known |= {"behind_bytes": self.behind_bytes, "problem": self.problem}
        path = self._state / "shipper.json"
        draft = path.with_suffix(".new")
        with suppress(OSError):  # a full disk
            draft.write_text(json.dumps(known), "utf-8")
            draft.replace(path)


def told(state: Path) -> dict[str, Any] | None:
    """Return what the shipper wrote down last: `pid`, `host`, `time`, `behind_bytes`, `problem`; `None` if nothing."""
    try:
        known = json.loads((state / "shipper.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None
