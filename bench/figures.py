"""What was measured: figures of both relays, their difference and its spread, as a table and as JSON."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

SIDES = ("bare", "gateway")


@dataclass(slots=True)
class Figure:
    """One measured quantity, one value a round on each side.

    `goal` is the most that `bounds` may be: the `difference`, or the `gateway`'s own value.
    """

    name: str
    unit: str
    bare: list[float]
    gateway: list[float]
    goal: float | None = None
    bounds: str = "difference"

    @property
    def differences(self) -> list[float]:
        """Gateway minus bare, of values taken next to each other: noise that outlasts a round cancels out."""
        return [ours - theirs for ours, theirs in zip(self.gateway, self.bare, strict=True)]

    @property
    def at_best(self) -> float:
        """Least of the gateway minus least of the bare relay: other work on the machine mostly adds."""
        return min(self.gateway) - min(self.bare)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; `None` without one, or where the rounds do not agree enough to say so."""
        if self.goal is None:
            return None
        if self.bounds == "gateway":
            found = [*middle(self.gateway), min(self.gateway)]
        else:
            found = [*middle(self.differences), self.at_best]
        return None if min(found) <= self.goal < max(found) else max(found) <= self.goal

    def as_dict(self) -> dict[str, Any]:
        """Return everything, with medians, for the JSON file."""
        sides: dict[str, list[float]] = {"bare": self.bare, "gateway": self.gateway, "difference": self.differences}
        values = {side: {"median": median(v), "min": min(v), "max": max(v), "rounds": v} for side, v in sides.items()}
        goal = {"at_best": self.at_best, "goal": self.goal, "goal_bounds": self.bounds, "met": self.met}
        return {"name": self.name, "unit": self.unit, **values, **goal}


class Samples:
    """Collects the rounds of one scenario: named values of each side."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in SIDES}

    def add(self, side: str, values: dict[str, float]) -> None:
        """Take the values of one round."""
        for name, value in values.items():
            self.sides[side][name].append(value)

    def figure(self, name: str, unit: str, key: str, goal: float | None = None, bounds: str = "difference") -> Figure:
        """Make a figure of the values that were added under `key`."""
        return Figure(name, unit, self.sides["bare"][key], self.sides["gateway"][key], goal, bounds)


def middle(values: list[float]) -> tuple[float, float]:
    """Return the two values between which the middle half lies."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, method="inclusive")
    return low, high


HEADINGS = ("", "unit", "bare", "gateway", "difference", "at best", "half of the rounds", "goal", "")


def table(figures: list[Figure]) -> str:
    """Return aligned text: medians, the difference of the best rounds, and where half of the differences lie."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    aligned = [[cell.ljust if i < 2 else cell.rjust for i, cell in enumerate(row)] for row in rows]
    return "\n".join("  ".join(pad(width) for pad, width in zip(row, widths, strict=True)).rstrip() for row in aligned)


def _row(figure: Figure) -> tuple[str, ...]:
    differences = figure.differences
    goal = "" if figure.goal is None else f"≤ {figure.goal:g}" + (" in all" if figure.bounds == "gateway" else " over")
    verdict = {None: "unclear" if goal else "", True: "met", False: "MISSED"}[figure.met]
    numbers = (median(figure.bare), median(figure.gateway), median(differences), figure.at_best)
    spread = " … ".join(map(_number, middle(differences)))
    return figure.name, figure.unit, *map(_number, numbers), spread, goal, verdict


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
