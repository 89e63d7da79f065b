"""Answers on OpenAI's own wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from proxy import failures, sse
from proxy.errors import UpstreamError
from proxy.exchange import Event
from proxy.providers.base import Outgoing


class OpenAICall:
    """One exchange on OpenAI's own wire."""

    __slots__ = ("complete", "outgoing", "parser")

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.complete = False
        self.parser = sse.Parser()

    def frames(self, chunk: bytes) -> Iterable[sse.Event]:
        """Cut bytes into server-sent events."""
        return self.parser.feed(chunk)

    def events(self, payload: sse.Event) -> Iterable[Event]:
        """Turn one server-sent event into a chunk; raise `UpstreamError` where it carries an error in any shape."""
        if payload.data == b"[DONE]":
            self.complete = True
            return ()
        event = orjson.loads(payload.data)
        if not isinstance(event, dict):
            raise ValueError("an event that is not an object")
        error = event.get("error")
        if error is not None:
            raise failures.in_answer(error)
        choices = event.get("choices")
        if choices is None:
            if payload.name == b"error" or "message" in event or "detail" in event:
                raise failures.in_answer({**event, "message": event.get("message") or event.get("detail")})
            if not event.get("usage"):
                return ()
            event["choices"] = []
        event.pop("error", None)
        return (event,)

    def completion(self, body: bytes) -> dict[str, Any]:
        """Check a whole answer; raise `UpstreamError` where it is none."""
        completion = whole(body)
        # What filters will look into must be what it seems.
        if not all(
            isinstance(call, dict) for c in completion["choices"] for call in c["message"].get("tool_calls") or ()
        ):
            raise UpstreamError(502, "upstream_malformed", "The upstream's answer holds calls that are none.")
        return completion

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read the error of an OpenAI-like upstream: an object, a text, or a flat body."""
        said = failures.refusal(body)
        error = said.get("error", said)
        if not isinstance(error, dict):
            error = {"message": error}
        message = error.get("message") or error.get("detail") or ""
        return failures.failure(status, headers, message, error.get("code"), error.get("type"), error.get("param"))


def whole(body: bytes) -> dict[str, Any]:
    """Return a whole answer that has choices with messages; raise `UpstreamError` where it is none."""
    completion: dict[str, Any] = failures.parsed(body)
    if isinstance(completion, dict) and completion.get("error") is not None:
        raise failures.in_answer(completion["error"])
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not choices or not all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in choices):
        raise failures.empty()
    return completion
