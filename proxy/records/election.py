"""Who ships: each worker tries to, and the one that gets the lock starts the shipper, a process of its own."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.records import host, index

if TYPE_CHECKING:
    from proxy.settings import Settings

log = logging.getLogger("lockgate")

EVERY_S = 1.0
#: When a worker tries first: one that fails at its start, or is replaced at once, needs none.
FIRST_S = 2.0
#: The least time between two shippers that a worker starts: one that dies at once is not started again and again.
AGAIN_S = 5.0
#: Where the shipper finds its lock.
LOCK = 3
PACKAGE = Path(__file__).resolve().parent.parent
BOOT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from proxy.records import election
del sys.path[0]
election.main()
"""


class Election:
    """One worker's part: a light thread that starts the shipper wherever this host has none.

    The shipper holds the lock itself, and ends when what there was has been shipped after its worker has gone.
    """

    def __init__(self, settings: Settings) -> None:
        self._state = settings.server.state
        self._request = request(settings)
        self._pid: int | None = None
        self._pipe = -1
        self._next = time.monotonic() + FIRST_S
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="shipper", daemon=True)

    def start(self) -> None:
        """Start to try."""
        self._thread.start()

    def stop(self) -> None:
        """Stop trying, and have a shipper of this worker's finish."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._let_go()

    def _follow(self) -> None:
        while not self._stopped.wait(EVERY_S):
            try:
                self._turn()
            except Exception as failure:  # whatever it is: the next turn may go better
                log.error("the ledger's shipper cannot be started: %s: %s", type(failure).__name__, failure)
                self._next = time.monotonic() + AGAIN_S

    def _turn(self) -> None:
        if self._pid is not None:
            with suppress(ChildProcessError):
                if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                    return
            self._let_go()
        if time.monotonic() < self._next:
            return
        descriptor = host.lock(self._state)
        if descriptor is None:
            return
        try:
            self._spawn(descriptor)
        finally:
            os.close(descriptor)  # the shipper has it too

    def _spawn(self, descriptor: int) -> None:
        reading, self._pipe = os.pipe()
        try:
            # Not a fork: other threads hold locks at this moment, and under gevent a hub would come along.
            actions = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, descriptor, LOCK)]
            arguments = [sys.executable, "-P", "-c", BOOT, str(PACKAGE.parent)]
            self._pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
            self._next = time.monotonic() + AGAIN_S
        finally:
            os.close(reading)
        # Through the pipe, which is shorter than its buffer: arguments and environments can be read by others.
        os.write(self._pipe, json.dumps(self._request).encode() + b"\n")

    def _let_go(self) -> None:
        """Close the pipe: its end tells the shipper that it is not wanted any more."""
        self._pid = None
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def request(settings: Settings) -> dict[str, Any]:
    """Return what `run` must be told for these settings; it has secrets in it."""
    return {
        "state": str(settings.server.state),
        "url": settings.database.url and settings.database.url.reveal(),
        "ledger": asdict(settings.ledger),
        "key": index.key(settings).hex(),
    }


def main() -> None:
    """Be the shipper: the first line on stdin says for what, the end of stdin ends it."""
    wanted = json.loads(sys.stdin.buffer.readline())
    logging.basicConfig(format="[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", level=logging.INFO)
    with suppress(OSError):  # a service may be kept from it
        os.nice(5)  # requests first
    with suppress(KeyboardInterrupt):
        run(wanted, lambda seconds: bool(select.select([0], [], [], seconds)[0]))


def run(request: dict[str, Any], wait: Callable[[float], bool]) -> str | None:
    """Ship until `wait(seconds)` returns true; return what has kept the last records from being shipped, if something.

    `request` is that of the function of this name: `state`, a database's `url` or `None`, the settings `ledger`, and
    the journal's `key`.
    """
    from sqlalchemy import URL

    from proxy.records.database import Database
    from proxy.records.retention import Retention
    from proxy.records.shipping import Shipper
    from proxy.settings import LedgerSettings

    state = Path(request["state"])
    url = request["url"] or URL.create("sqlite", database=str(state / "lockgate.db"))
    with closing(Database(url)) as database:
        shipper = Shipper(database, state)
        journal = index.Index(state / "journal", bytes.fromhex(request["key"]))
        retention = Retention(database, journal, shipper.host, LedgerSettings(**request["ledger"]))
        shipper.run(wait, retention)
        return shipper.problem
