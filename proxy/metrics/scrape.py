"""What all workers have counted, read from their slots and put together for Prometheus."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from proxy.metrics.slots import HEADER, LINES_AT, MAGIC, SIZE_BYTES, VALUES_AT, files, guarded, is_live

Labels = tuple[str, ...]


@dataclass(slots=True)
class Total:
    """One metric over all workers: what it is, and the sums by its labels."""

    definition: dict[str, Any]
    rows: dict[Labels, list[float]] = field(default_factory=dict)


class _Known:
    """What has been read of one slot's lines, which only grow as long as the file is the same."""

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.used = 0
        self.metrics: list[dict[str, Any]] = []
        self.rows: list[tuple[int, int, int, Labels]] = []

    def read(self, view: mmap.mmap) -> None:
        magic, used, *_ = HEADER.unpack_from(view)
        if magic != MAGIC:
            return
        if used < self.used:  # begun anew, in place
            self.used, self.metrics, self.rows = 0, [], []
        for line in view[LINES_AT + self.used : LINES_AT + used].splitlines():
            entry = orjson.loads(line)
            if isinstance(entry, dict):
                self.metrics.append(entry)
            else:
                metric, at, width, labels = entry
                self.rows.append((metric, at, width, tuple(labels)))
        self.used = used


class Scrape:
    """Reads the slots in `directory`, of which the workers write the values at the same time; threads take turns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[Path, _Known] = {}
        self._turn = threading.Lock()

    def totals(self) -> tuple[dict[str, Total], int]:
        """Return all metrics by name, and how many workers live; gauges are those of the living."""
        with self._turn:
            return self._read() if self._directory.is_dir() else ({}, 0)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as prometheus_client has them."""
        totals, living = self.totals()
        yield GaugeMetricFamily("lockgate_workers", "Workers that live.", living)
        for name in sorted(totals):
            definition = totals[name].definition
            metric = Metric(name, definition["help"], definition["kind"])
            for labels, values in sorted(totals[name].rows.items()):
                _samples(metric, definition, dict(zip(definition["labels"], labels, strict=True)), values)
            yield metric

    def _read(self) -> tuple[dict[str, Total], int]:
        totals: dict[str, Total] = {}
        with guarded(self._directory):
            slots = {path: is_live(path) for path in sorted(files(self._directory))}
        # A living worker's definition of a metric goes before that of one that was replaced.
        for path in sorted(slots, key=lambda path: not slots[path]):
            self._add(path, slots[path], totals)
        for gone in self._known.keys() - slots.keys():
            del self._known[gone]
        return totals, sum(slots.values())

    def _add(self, path: Path, living: bool, totals: dict[str, Total]) -> None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            stat = os.fstat(file)
            if stat.st_size < SIZE_BYTES:
                return
            with mmap.mmap(file, SIZE_BYTES, prot=mmap.PROT_READ) as view:
                known = self._known.get(path)
                if known is None or known.inode != stat.st_ino:
                    known = self._known[path] = _Known(stat.st_ino)
                known.read(view)
                with memoryview(view) as memory, memory[VALUES_AT:LINES_AT] as part, part.cast("d") as values:
                    for number, at, width, labels in known.rows:
                        definition = known.metrics[number]
                        if definition["kind"] == "gauge" and not living:
                            continue
                        total = totals.setdefault(definition["name"], Total(definition))
                        if total.definition is not definition and _shape(total.definition) != _shape(definition):
                            continue
                        own = [float(value) for value in values[at : at + width]]
                        sums = total.rows.get(labels)
                        total.rows[labels] = own if sums is None else list(map(float.__add__, sums, own))
        finally:
            os.close(file)


def _shape(definition: dict[str, Any]) -> tuple[Any, ...]:
    return definition["kind"], definition["labels"], definition.get("buckets")


def _samples(metric: Metric, definition: dict[str, Any], labels: dict[str, str], values: list[float]) -> None:
    name, kind = definition["name"], definition["kind"]
    if kind != "histogram":
        metric.add_sample(f"{name}_total" if kind == "counter" else name, labels, values[0])
        return
    *counts, total = values
    bounds = [*map(floatToGoString, definition["buckets"]), "+Inf"]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{name}_count", labels, sum(counts))
    metric.add_sample(f"{name}_sum", labels, total)
