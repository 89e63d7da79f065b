"""Counters, gauges and histograms of one worker, for the core and for plugins."""

from __future__ import annotations

import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from proxy.metrics.slots import SPARE, Slot

log = logging.getLogger("lockgate.metrics")

NAME = re.compile(r"[a-z][a-z0-9_]*")
#: Sets of labels that one metric may have; what comes after is counted under `other`.
LABEL_SETS = 500
LONGEST_LABEL = 120
OTHER = "other"
#: Upper bounds of a histogram's buckets, in seconds.
SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: What finds no room goes into the spare values.
MOST_BUCKETS = SPARE - 2

Kind = TypeVar("Kind", "Counter", "Gauge", "Histogram")


class Family(Generic[Kind]):
    """One metric with all its sets of labels."""

    def __init__(
        self,
        slot: Slot,
        make: Callable[[Family[Kind], int], Kind],
        definition: dict[str, Any],
        watch: Callable[[Callable[[], None]], None],
    ) -> None:
        self.slot = slot
        self.watch = watch
        self.name = definition["name"]
        self.buckets: tuple[float, ...] = tuple(definition.get("buckets", ()))
        self.width = len(self.buckets) + 2 if self.buckets else 1
        self.labels = tuple(definition["labels"])
        self.number = slot.metric(definition)
        self._make: Callable[[Family[Kind], int], Kind] = make
        self._children: dict[tuple[object, ...], Kind] = {}

    def child(self, values: tuple[object, ...]) -> Kind:
        """Return what counts for one set of labels; beyond `LABEL_SETS` of them what counts for all others."""
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)} of them")
        found = self._children.get(values)
        if found is None:
            texts = tuple(str(value)[:LONGEST_LABEL] for value in values)
            if len(self._children) >= LABEL_SETS:
                values = texts = (OTHER,) * len(texts)
            found = self._make(self, self.slot.row(self.number, texts, self.width))
            found = self._children.setdefault(values, found)
        return found


class Counter:
    """Counts what happens. Without labels it counts itself, with labels what `labels` returns does."""

    __slots__ = ("_family", "at")

    def __init__(self, family: Family[Counter], at: int) -> None:
        self._family = family
        self.at = at

    def labels(self, *values: object) -> Counter:
        """Return the counter of one set of labels, in their order."""
        return self._family.child(values)

    def inc(self, amount: float = 1.0) -> None:
        """Count; raises `ValueError` for less than nothing, and where a set of labels is needed."""
        if amount < 0:
            raise ValueError(f"{self._family.name} only grows")
        self._family.slot.add(((_own(self), amount),))

    def set_function(self, function: Callable[[], float]) -> None:
        """Have it follow, once a second, a count from 0 that something else keeps; another thread calls `function`.

        It may follow several, which are added up.
        """
        counted = 0.0

        def follow() -> None:
            nonlocal counted
            now = function()
            self.inc(now - counted)
            counted = now

        self._family.watch(follow)

    @property
    def value(self) -> float:
        """What this slot has counted."""
        return self._family.slot.values[_own(self)]


class Gauge:
    """Something that goes up and down, as with `Counter`. Workers' values are added up; those of dead ones are gone."""

    __slots__ = ("_family", "at")

    def __init__(self, family: Family[Gauge], at: int) -> None:
        self._family = family
        self.at = at

    def labels(self, *values: object) -> Gauge:
        """Return the gauge of one set of labels, in their order."""
        return self._family.child(values)

    def set(self, value: float) -> None:
        """Say how much it is."""
        self._family.slot.set(_own(self), value)

    def inc(self, amount: float = 1.0) -> None:
        """Say how much more it is."""
        self._family.slot.add(((_own(self), amount),))

    def dec(self, amount: float = 1.0) -> None:
        """Say how much less it is."""
        self.inc(-amount)

    def set_function(self, function: Callable[[], float]) -> None:
        """Have it set once a second to what `function` returns, which another thread calls."""
        self._family.watch(lambda: self.set(function()))

    @property
    def value(self) -> float:
        """What this worker has set."""
        return self._family.slot.values[_own(self)]


class Histogram:
    """How often something was how large, as with `Counter`."""

    __slots__ = ("_family", "at")

    def __init__(self, family: Family[Histogram], at: int) -> None:
        self._family = family
        self.at = at

    def labels(self, *values: object) -> Histogram:
        """Return the histogram of one set of labels, in their order."""
        return self._family.child(values)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._family.slot.add(self.changes(value))

    def changes(self, value: float) -> tuple[tuple[int, float], tuple[int, float]]:
        """Return what counting a value comes to, for `Slot.add`."""
        family, at = self._family, _own(self)
        return (at + bisect_left(family.buckets, value), 1.0), (at + family.width - 1, value)


class Registry:
    """The metrics of one worker, in a slot under `directory`; make it after the fork.

    Asking twice for one metric returns the same one; where the second asks for something else, it raises `ValueError`.
    Names are lower-case with underscores; the unit comes last (`_seconds`, `_bytes`), then `_total` for counters.
    Labels must be bounded by the configuration: never a caller's words. What goes beyond is cut.
    """

    def __init__(self, directory: Path, interval_s: float = 1.0) -> None:
        self.directory = directory
        self.slot = Slot(directory)
        self._made: dict[str, tuple[dict[str, Any], Any]] = {}
        self._watched: list[Callable[[], None]] = []
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="metrics", daemon=True)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """Return a counter; the name that Prometheus sees ends with `_total`."""
        made: Counter = self._metric(Counter, "counter", name.removesuffix("_total"), help, labels)
        return made

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        """Return a gauge."""
        made: Gauge = self._metric(Gauge, "gauge", name, help, labels)
        return made

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """Return a histogram with these upper bounds, in ascending order."""
        if list(buckets) != sorted(set(buckets)) or not 0 < len(buckets) <= MOST_BUCKETS:
            raise ValueError(f"{name}: buckets ascend, and are at most {MOST_BUCKETS}")
        made: Histogram = self._metric(Histogram, "histogram", name, help, labels, buckets)
        return made

    def start(self) -> None:
        """Follow the counters and gauges that are functions, from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop following and leave the slot; what is counted later is lost."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
            self._look()
        self.slot.close()

    def _metric(
        self, make: Any, kind: str, name: str, help: str, labels: Sequence[str], buckets: Sequence[float] = ()
    ) -> Any:
        wrong = [word for word in (name, *labels) if not NAME.fullmatch(word)]
        if wrong or isinstance(labels, str) or "le" in labels:
            raise ValueError(f"{name}: names are made of a-z, 0-9 and _, labels are a list, and none of them is `le`")
        definition: dict[str, Any] = {"name": name, "kind": kind, "help": help, "labels": list(labels)}
        if buckets:
            definition["buckets"] = [float(bound) for bound in buckets]
        known, made = self._made.get(name, (definition, None))
        if known != definition:
            raise ValueError(f"there is another metric called {name}")
        if made is None:
            family = Family(self.slot, make, definition, self._watch)
            made = make(family, -1 if labels else family.child(()).at)
            self._made[name] = definition, made
        return made

    def _watch(self, follow: Callable[[], None]) -> None:
        self._watched.append(follow)
        self._look(follow)

    def _follow(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._look()

    def _look(self, *only: Callable[[], None]) -> None:
        for follow in only or tuple(self._watched):
            try:
                follow()
            except Exception:
                log.exception("a metric could not be read")


def _own(metric: Counter | Gauge | Histogram) -> int:
    """Return where a metric counts, which one with labels does not itself."""
    if metric.at < 0:
        raise ValueError(f"{metric._family.name} has labels: .labels(…) says which one counts")
    return metric.at
