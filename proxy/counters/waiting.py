"""The line of those who wait for a limit instead of being refused: short, bounded, and fair among teams."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from proxy.counters.buckets import Claim, Slots

#: How often a slot is asked for; one that is released in this worker is known at once.
SLOT_S = 0.1
#: How often it is looked whether the one who waits is still there.
CHECK_S = 0.5


class _Ticket:
    __slots__ = ("event", "team")

    def __init__(self, team: str) -> None:
        self.team = team
        self.event = threading.Event()


class _Line:
    """Those who wait for one bucket: by team, and within a team in the order of their coming."""

    __slots__ = ("teams", "wait_s")

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s  # what the one at the head was told last
        self.teams: dict[str, deque[_Ticket]] = {}

    def head(self) -> _Ticket | None:
        return next((tickets[0] for tickets in self.teams.values()), None)

    def leave(self, ticket: _Ticket) -> None:
        tickets = self.teams.pop(ticket.team)
        tickets.remove(ticket)
        if tickets:
            self.teams[ticket.team] = tickets  # at the end: the other teams are first


class Waiting:
    """The lines of one worker: `most` waiters altogether, `share` of one team. Threads may share it."""

    def __init__(self, most: int, share: int) -> None:
        self.most = most
        self.share = share
        self.count = 0
        self._teams: dict[str, int] = {}
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()

    def take(
        self,
        names: tuple[str, ...],
        team: str,
        longest_s: float,
        attempt: Callable[[], Claim],
        refused: Callable[[str, float], Claim],
        check: Callable[[], None] = lambda: None,
    ) -> Claim:
        """Return what `attempt` claims, after waiting for it in line up to `longest_s` seconds if need be.

        `names` are those of the buckets. Who comes while others wait for one of them stands behind these; who never
        came to the head gets what `refused` makes of that one's name and the seconds that its head has to wait.
        `check` is called while waiting, and raises where nobody waits any more.
        """
        began = time.monotonic()
        waited_for = next((name for name in names if name in self._lines), None)
        claim = None
        if waited_for is None:
            claim = attempt()
            if claim.granted or not _may(claim, longest_s):
                return claim
            assert claim.refused is not None
            waited_for = claim.wants[claim.refused][0].name
        ticket = _Ticket(team)
        with self._lock:
            line = self._lines.get(waited_for)
            if line is None and claim is None:  # the last one has just left
                return attempt()
            if self.count >= self.most or self._teams.get(team, 0) >= self.share:
                return claim or refused(waited_for, line.wait_s)  # type: ignore[union-attr]
            if line is None:
                assert claim is not None and claim.wait_s is not None
                line = self._lines[waited_for] = _Line(claim.wait_s)
            line.teams.setdefault(team, deque()).append(ticket)
            self._teams[team] = self._teams.get(team, 0) + 1
            self.count += 1
        try:
            claim = self._wait(line, ticket, began + longest_s, attempt, check) or refused(waited_for, line.wait_s)
            claim.waited_s = time.monotonic() - began
            return claim
        finally:
            with self._lock:
                line.leave(ticket)
                self.count -= 1
                self._teams[team] -= 1
                if not self._teams[team]:
                    del self._teams[team]
                following = line.head()
                if following is None:
                    del self._lines[waited_for]
                else:
                    following.event.set()

    def stir(self) -> None:
        """Let those at the heads of their lines try now: something was given back."""
        with self._lock:
            heads = [line.head() for line in self._lines.values()]
        for ticket in heads:
            if ticket is not None:
                ticket.event.set()

    def _wait(
        self, line: _Line, ticket: _Ticket, until: float, attempt: Callable[[], Claim], check: Callable[[], None]
    ) -> Claim | None:
        while True:
            check()
            left_s = until - time.monotonic()
            with self._lock:
                first = line.head() is ticket
            if first:
                claim = attempt()
                if claim.wait_s is not None:
                    line.wait_s = claim.wait_s
                if claim.granted or not _may(claim, left_s):
                    return claim
                slots = claim.refused is not None and isinstance(claim.wants[claim.refused][0], Slots)
                pause_s = min(left_s, SLOT_S) if slots else min(left_s, claim.wait_s or 0.0)
            elif left_s <= 0:
                return None
            else:
                pause_s = left_s
            ticket.event.wait(min(pause_s, CHECK_S))
            ticket.event.clear()


def _may(claim: Claim, left_s: float) -> bool:
    """Say whether waiting so long can help."""
    if claim.wait_s is None or left_s <= 0:
        return False
    assert claim.refused is not None
    return isinstance(claim.wants[claim.refused][0], Slots) or claim.wait_s <= left_s
