"""The keys as one worker knows them: in memory, following the database."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import select

from proxy.exchange import Identity
from proxy.keys import digest
from proxy.records.database import Database
from proxy.records.tables import keys, versions

logger = logging.getLogger(__name__)

#: No key is half as long; what is longer is cut before it is digested, which makes it no key either.
LONGEST_TOKEN = 128

Entry = tuple[bytes, Identity]
#: What an unknown key is compared with, so that it takes the path of a known one.
NOBODY: Entry = (bytes(32), Identity("nobody"))
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Snapshot:
    """Which identity belongs to which key. Looking one up touches no database, also for a key that does not exist.

    `start` reads all keys and raises what went wrong; from then on a thread follows the database's version every
    `interval_s` seconds. While the database fails, the keys last read stay valid.
    """

    def __init__(
        self,
        database: Database,
        pepper: bytes,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = 1.0,
    ) -> None:
        #: The database's version that this snapshot shows.
        self.version = -1
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._interval_s = interval_s
        self._entries: dict[bytes, Entry] = {}
        self._generation = -1
        self._failing = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)

    def find(self, token: str) -> Identity | None:
        """Return who holds `token`; `None` if it is malformed, unknown, revoked or expired, all at the same cost."""
        sought = digest(self._pepper, token[:LONGEST_TOKEN])
        kept, identity = self._entries.get(sought, NOBODY)
        same = hmac.compare_digest(sought, kept)
        live = identity.expires is None or self._clock() < identity.expires
        return identity if same and live else None

    def refresh(self) -> None:
        """Take over what has changed in the database; raises one of `Database.failures`."""
        with self._database.read() as connection:
            newest = connection.execute(select(versions.c.version)).scalar_one()
            # A lower version is a restored backup: what it does not hold must go too.
            whole = newest < self.version or self._database.generation != self._generation
            if newest == self.version and not whole:
                return
            changed = select(keys) if whole else select(keys).where(keys.c.version > self.version)
            entries = {} if whole else self._entries
            for row in connection.execute(changed):
                if row.revoked is None:
                    entries[row.digest] = (row.digest, _identity(row))
                else:
                    entries.pop(row.digest, None)
            generation = self._database.generation
        self._entries, self._generation, self.version = entries, generation, newest

    def start(self) -> None:
        """Read all keys, then follow the database until `stop`."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The keys stay as they are."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self.refresh()
            # Whatever it is: a thread that ended here would let revoked keys in until the worker restarts.
            except Exception as failure:
                if not self._failing:
                    cause = getattr(failure, "orig", None) or failure
                    logger.error("keys: cannot read the database, going on with what it held: %r", cause)
                self._failing = True
            else:
                if self._failing:
                    logger.warning("keys: the database can be read again")
                self._failing = False


def _identity(row: Any) -> Identity:
    # One object serves every request of its key: a plugin that could write to it would change them all.
    grants = MappingProxyType(row.grants) if row.grants else NOTHING
    limits = MappingProxyType(row.limits) if row.limits else NOTHING
    return Identity(row.id, row.name, row.team, grants, limits, row.expires)
