"""How long an exchange waits for a store on another machine, whatever goes wrong there."""

from __future__ import annotations

import time

#: What all steps of an exchange may take together, and what each may that begins when this is used up: an answer that
#: has arrived is read, also by a worker that was busy. Taking twice and settling once ends within 50 ms.
PATIENCE_S = 0.04
LEAST_S = 0.005


class Patience:
    """What one exchange has waited, `spent_s`; its steps come one after the other."""

    __slots__ = ("spent_s",)

    def __init__(self) -> None:
        self.spent_s = 0.0

    @property
    def until(self) -> float:
        """When a step that begins now must have ended, on the monotonic clock."""
        return time.monotonic() + max(LEAST_S, PATIENCE_S - self.spent_s)
