"""How long an exchange waits for a store on another machine, whatever goes wrong there."""

from __future__ import annotations

import time

#: What all steps of an exchange may take together, of the longest that it may wait, and what each may that begins when
#: this is used up: an answer that has arrived is read, also by a worker that was busy. Taking twice and settling once
#: ends within the whole.
TOGETHER, LEAST = 0.8, 0.1


class Patience:
    """What one exchange has waited, `spent_s`, of `longest_s`; its steps come one after the other."""

    __slots__ = ("longest_s", "spent_s")

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self.spent_s = 0.0

    @property
    def until(self) -> float:
        """When a step that begins now must have ended, on the monotonic clock."""
        return time.monotonic() + max(LEAST * self.longest_s, TOGETHER * self.longest_s - self.spent_s)
