"""Answers of upstreams that nearly speak OpenAI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from proxy import failures, sse
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers.base import Outgoing
from proxy.providers.chunks import folded
from proxy.providers.dialects import Dialect
from proxy.providers.dialects.repair import Repair
from proxy.providers.openai_answers import OpenAICall, whole
from proxy.providers.translation import Seal


class DialectCall(OpenAICall):
    """One exchange with an upstream that nearly speaks OpenAI. `dropped` names what it was not asked."""

    __slots__ = ("_dialect", "_repair", "dropped")

    def __init__(
        self, outgoing: Outgoing, dialect: Dialect, exchange: Exchange, dropped: list[str], seal: Seal | None = None
    ) -> None:
        super().__init__(outgoing)
        self.dropped = dropped
        self._dialect = dialect
        self._repair = Repair(exchange, dialect, seal if dialect.carries else None)

    def frames(self, chunk: bytes) -> Iterable[sse.Event]:
        """Cut bytes into server-sent events; where the upstream never says `[DONE]`, the end of a whole answer does."""
        events = self.parser.feed(chunk)
        if not chunk and not self._dialect.done and self._repair.finished:
            return [*events, sse.Event(b"", b"[DONE]")]
        return events

    def events(self, payload: sse.Event) -> Iterable[Event]:
        """Turn one server-sent event into chunks; raise `UpstreamError` where it carries an error in any shape."""
        events = super().events(payload)
        if self._dialect.native:
            return events
        return self._repair.end() if self.complete else [each for event in events for each in self._repair.event(event)]

    def completion(self, body: bytes) -> dict[str, Any]:
        """Turn a whole answer into OpenAI's; raise `UpstreamError` where it is none."""
        if self._dialect.native:
            return super().completion(body)
        return folded([*self._repair.event(whole(body)), *self._repair.end()])

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read the error of the dialect: validation errors as lists, overflows and moderation in words of its own."""
        said = failures.refusal(body)
        detail = said.get("detail") or said.get("message")
        if isinstance(detail, list) and detail and isinstance(detail[0], dict):
            place = ".".join(str(part) for part in detail[0].get("loc") or () if part != "body")
            return failures.failure(status, headers, str(detail[0].get("msg") or ""), param=place or None)
        error = said.get("error")
        metadata = error.get("metadata") if isinstance(error, dict) else None
        if status == 403 and isinstance(metadata, dict) and metadata.get("reasons"):
            message = "The upstream's moderation has refused the request."
            return UpstreamError(400, "content_filter", message, param="messages", fallback=False)
        overflow = self._dialect.overflow
        if overflow and re.search(overflow, body.decode("utf-8", "replace")):
            return failures.failure(400, headers, code="context_length_exceeded")
        return super().error(status, headers, body)
