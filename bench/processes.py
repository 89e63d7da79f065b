"""What a running process tree has used, read from outside: CPU time, waits and memory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """Return the process ids of `root` and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # The name is in parentheses and may hold spaces and parentheses of its own.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += children.get(process, [])
    return found


class Meter:
    """Counts the CPU seconds, user and system, that a process tree uses from now on."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.before = self._read()

    def used_s(self) -> float:
        """Return the seconds since the start; a process that ended meanwhile is not counted."""
        return sum(seconds - self.before.get(process, 0.0) for process, seconds in self._read().items())

    def _read(self) -> dict[int, float]:
        times = {}
        for process in tree(self.root):
            with contextlib.suppress(OSError):
                # Its CPU-time clock (clock_getcpuclockid): what /proc/PID/stat says, in nanoseconds instead of 10 ms.
                times[process] = time.clock_gettime((~process << 3) | 2)
        return times


def switches(root: int) -> int:
    """Return how often the living threads of a tree have given their CPU up: waits for data, and for the GIL."""
    count = 0
    for process in tree(root):
        for status in (PROC / str(process)).glob("task/*/status"):
            with contextlib.suppress(OSError):
                count += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return count


def memory_kib(root: int) -> dict[str, float]:
    """Return the KiB that a tree holds.

    `RSS` counts a page for each process that maps it, `PSS` shares it out among all of the machine, `PSS_ANON` is the
    part of it that no file is behind: pages which only this tree can share, so that no other process moves the figure.
    """
    sums = {"RSS": 0.0, "PSS": 0.0, "PSS_ANON": 0.0}
    for process in tree(root):
        with contextlib.suppress(OSError):
            for line in (PROC / str(process) / "smaps_rollup").read_text().splitlines():
                name = line.partition(":")[0].upper()
                if name in sums:
                    sums[name] += int(line.split()[1])
    return sums
