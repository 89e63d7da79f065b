"""The keys and teams as one worker knows them: in memory, following the database."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, select

from proxy.access.keys import digest
from proxy.access.teams import Team
from proxy.errors import Reject
from proxy.exchange import Identity
from proxy.records.copy import Copy, Held
from proxy.records.database import Database
from proxy.records.keyring import Keyring, shared
from proxy.records.tables import teams, versions

logger = logging.getLogger(__name__)

#: No key is longer than one byte less; what is longer is cut before it is digested, which makes it no key either.
LONGEST_TOKEN = 129
#: The copy on the disk is renewed after each change, and so often while keys go on being valid without the database.
COPIES = 24


class Snapshot:
    """Which identity belongs to which key. Looking one up touches no database, also for a key that does not exist.

    `start` reads all keys and raises what went wrong; from then on a thread follows the database's version every
    `interval_s` seconds. While the database fails, the keys last read stay valid for `stale_s` seconds; a worker that
    starts meanwhile has them from `copy`. `clock` gives seconds since 1970, `ticks` those since any moment.
    """

    def __init__(
        self,
        database: Database,
        pepper: bytes,
        *,
        stale_s: float = math.inf,
        copy: Copy | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        interval_s: float = 1.0,
    ) -> None:
        #: The database's version that this snapshot shows.
        self.version = -1
        self._database = database
        self._pepper = pepper
        self._stale_s = stale_s
        self._copy = copy
        #: Generation, version and time of what was copied last.
        self._copied = (-1, -1, -math.inf)
        self._clock = clock
        self._ticks = ticks
        self._interval_s = interval_s
        self._keyring = Keyring()
        self._teams: dict[str, Team | None] = {}
        self._generation = -1
        self._read = -math.inf
        self._failing = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)

    def find(self, token: str) -> Identity | None:
        """Return who holds `token`; `None` if it is malformed, unknown, revoked or expired, all at the same cost.

        Raises `Reject` (503) where the database has not been read for too long.
        """
        self._fresh()
        return self._keyring.find(digest(self._pepper, token[:LONGEST_TOKEN]), self._clock())

    def team(self, name: str) -> Team | None:
        """Return a team of the database; `None` if there is none. Raises as `find` does."""
        self._fresh()
        return self._teams.get(name)

    def refresh(self) -> None:
        """Take over what has changed in the database; raises one of `Database.failures`."""
        begun, now = self._ticks(), self._clock()
        with self._database.read() as connection:
            newest = connection.execute(select(versions.c.version)).scalar_one()
            generation = self._database.generation
            # A lower version is a restored backup: what it does not hold must go too.
            whole = newest < self.version or generation != self._generation
            if newest != self.version or whole:
                since = -1 if whole else self.version
                keyring = Keyring() if whole else self._keyring
                keyring.read(connection, since)
                self._teams = {**({} if whole else self._teams), **_teams(connection, since)}
                self._keyring, self._generation, self.version = keyring, generation, newest
        self._read = begun
        if self._copy is not None:
            self._keep(self._copy, now)

    def start(self) -> None:
        """Read all keys, from the copy where the database cannot be read, then follow the database until `stop`."""
        try:
            self.refresh()
        except Database.failures as failure:
            if self._copy is None or not self._restore(self._copy):
                raise
            self._failed(failure)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The keys stay as they are."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _fresh(self) -> None:
        if self._ticks() - self._read > self._stale_s:
            raise Reject(
                503,
                "keys_unavailable",
                "The gateway cannot check credentials at the moment. Try again later.",
                headers={"retry-after": "30"},
            )

    def _keep(self, copy: Copy, read: float) -> None:
        generation, version, last = self._copied
        fresh_s = self._stale_s / COPIES
        if (generation, version) == (self._generation, self.version) and read - last < fresh_s:
            return
        known = [(team.name, dict(team.grants), dict(team.limits)) for team in self._teams.values() if team]
        held = Held(read, self.version, self._keyring.records, known)
        try:
            # Of another database with the same version the file could hold other keys.
            done = copy.write(held, unless_s=fresh_s if generation == self._generation else None)
        except OSError as failure:
            logger.error("keys: cannot be copied for workers that start while the database is away: %r", failure)
            done = True  # tried again with the next change
        if done:
            self._copied = (self._generation, self.version, read)

    def _restore(self, copy: Copy) -> bool:
        held = copy.read()
        if held is None:
            return False
        self._keyring, self.version = Keyring(held.records), held.version
        self._teams = {name: Team(name, shared(grants), shared(limits)) for name, grants, limits in held.teams}
        self._read = self._ticks() - max(0.0, self._clock() - held.read)
        return True

    def _follow(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._step()

    def _step(self) -> None:
        try:
            self.refresh()
        # Whatever it is: a thread that ended here would let revoked keys in until the worker restarts.
        except Exception as failure:
            self._failed(getattr(failure, "orig", None) or failure)
        else:
            if self._failing:
                logger.warning("keys: the database can be read again")
            self._failing = ""

    def _failed(self, cause: BaseException) -> None:
        late = self._ticks() - self._read > self._stale_s
        state = "closed" if late else "stale"
        if state == self._failing:
            return
        self._failing = state
        if late:
            hours = self._stale_s / 3600
            logger.error("keys: the database could not be read for %g h: every key gets a 503 now: %r", hours, cause)
        else:
            logger.error("keys: cannot read the database, going on with what it held: %r", cause)


def _teams(connection: Connection, since: int) -> dict[str, Team | None]:
    changed = connection.execute(select(teams).where(teams.c.version > since))
    return {row.name: None if row.removed is not None else _team(row) for row in changed}


def _team(row: Any) -> Team:
    return Team(row.name, shared(row.grants), shared(row.limits), row.note)
