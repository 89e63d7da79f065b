"""How spans reach the collector, and what is said of those that do not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from requests import HTTPError, Response
from requests.adapters import BaseAdapter

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger("lockgate.traces")

#: How long no complaint follows another, in seconds.
COMPLAIN_S = 60.0


class Way(BaseAdapter):
    """The way to the collector; `went` says what came of the last request."""

    def __init__(self, adapter: BaseAdapter) -> None:
        super().__init__()
        self._adapter = adapter
        self.close = adapter.close  # type: ignore[method-assign]
        self.went = "nothing"

    def send(self, *args: Any, **kwargs: Any) -> Response:
        try:
            response = self._adapter.send(*args, **kwargs)
        except Exception as failure:
            self.went = type(failure).__name__
            raise
        self.went = f"HTTP {response.status_code}"
        if response.status_code // 100 == 3:  # which the exporter takes for success
            response.close()
            raise HTTPError(self.went)
        return response


class Delivery:
    """Stands before the exporter, counts the spans on their way, at `most` so many, and those that are lost."""

    def __init__(self, exporter: SpanExporter, way: Way, drop: Callable[[float], None], most: int) -> None:
        self.shutdown, self.force_flush = exporter.shutdown, exporter.force_flush
        self._exporter, self._way, self._drop, self._most = exporter, way, drop, most
        self._lock = threading.Lock()
        self._waiting = 0
        self._quiet_until = 0.0

    def takes(self) -> bool:
        """Say whether there is room for one more span, which must follow."""
        with self._lock:
            room = self._waiting < self._most
            self._waiting += room
        if not room:
            self._lose(1)
        return room

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult | None:
        result = None
        try:
            result = self._exporter.export(spans)
        finally:
            with self._lock:
                count = min(len(spans), self._waiting)
                self._waiting -= count
            if result is None or result.value:
                self._lose(count)
        return result

    def give_up(self) -> None:
        """Count what is still on its way as lost."""
        with self._lock:
            count, self._waiting = self._waiting, 0
        self._lose(count)

    def _lose(self, count: int) -> None:
        self._drop(count)
        now = time.monotonic()
        if count and now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_S
            log.warning("spans are lost: of the collector came %s", self._way.went)
