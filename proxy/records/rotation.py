"""Which file of a worker's journal new exchanges go to, and which others still have some that are under way."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.records.index import Index
from proxy.records.segment import Segment

DAY_S = 86_400
#: How much longer a file for which no successor could be made goes on being used.
AGAIN_S, AGAIN_BYTES = 60, 1 << 20


class Rotation:
    """A worker's open files, oldest first; the newest is `current`. Raises `OSError` where the first cannot be made.

    Another is begun where the newest has `max_file_bytes`, or is of another day (UTC). `failures` counts how often that
    could not be. Not safe for several threads: the journal has a lock.
    """

    def __init__(self, index: Index, max_file_bytes: int, now: float) -> None:
        self.failures = 0
        self._index = index
        self._max_file_bytes = max_file_bytes
        self._before: list[Segment] = []
        self._next_at, self._next_bytes = 0.0, 0
        self.current = self._made(now)

    def __iter__(self) -> Iterator[Segment]:
        yield from self._before
        yield self.current

    def at(self, now: float) -> Segment:
        """Return the file for an exchange that begins at `now`, in seconds since 1970."""
        segment = self.current
        if segment.size_bytes < self._next_bytes and now < self._next_at:
            return segment
        try:
            self.current = self._made(now)
        except OSError:
            # Out of descriptors, say. Whether there is room for a line is told by the line.
            self.failures += 1
            self._next_at, self._next_bytes = now + AGAIN_S, segment.size_bytes + AGAIN_BYTES
        else:
            self._before.append(segment)
        return self.current

    def over(self) -> list[Segment]:
        """Let go of the files to which nothing will be added, and return them."""
        over = [segment for segment in self._before if not segment.begun and not segment.held]
        if over:
            self._before = [segment for segment in self._before if segment not in over]
        return over

    def _made(self, now: float) -> Segment:
        segment = Segment(self._index, now)
        self._next_at = (now // DAY_S + 1) * DAY_S
        self._next_bytes = self._max_file_bytes
        return segment
