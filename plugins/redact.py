"""Keeps personal data and secrets in the building: placeholders go up, and a caller's own values come back down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy import Exchange, Filter, RedactionSchema, Reject, hookimpl

if TYPE_CHECKING:
    from proxy import Gateway


class Redact:
    """Replaces, masks, blocks or counts what its detectors find in requests and in answers."""

    name = "redact"
    Config = RedactionSchema

    def __init__(self, config: dict[str, Any]) -> None:
        # Here: the detectors take a quarter of a second to import, which only those who use them shall pay.
        from proxy import Redaction

        self._redaction = Redaction(config)

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self._redaction.start(gateway.settings)

    @hookimpl
    def on_stop(self) -> None:
        self._redaction.stop()

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        try:
            exchange.stash[self] = self._redaction.take(exchange)
        except Reject:
            raise
        except Exception as error:
            # Its text, and those that it came from, may hold what was being looked at.
            raise RuntimeError(f"redaction of a request failed with {type(error).__name__}") from None

    @hookimpl
    def on_response(self, exchange: Exchange) -> Filter | None:
        return self._redaction.filter(exchange, exchange.stash[self])
