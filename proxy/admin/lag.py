"""How far the ledger is behind the journal, as metrics: what the shipper wrote down last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from proxy.records.shipping import told


class Lag:
    """A collector for prometheus_client; without a shipper that has ever run there is nothing."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the shipper's gauges."""
        said = told(self._state)
        if said is None:
            return
        yield GaugeMetricFamily(
            "lockgate_ledger_behind_bytes", "Journal that is not in the ledger yet.", said["behind_bytes"]
        )
        yield GaugeMetricFamily(
            "lockgate_ledger_looked_timestamp_seconds", "When the shipper last looked for more.", said["time"]
        )
        yield GaugeMetricFamily(
            "lockgate_ledger_failing", "1 while the ledger cannot be written.", float(said["problem"] is not None)
        )
