"""What a provider is: an upstream's dialect, as plain classes without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange, Reply


@dataclass(slots=True)
class Outgoing:
    """The request to send upstream. `body` is sent as it is; the core adds host, length and connection headers."""

    url: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"


class Call(Protocol):
    """One exchange in a provider's dialect.

    `complete` becomes true when the upstream has said in its own way that the answer is whole; a stream that ends
    before that is a cut one.
    """

    outgoing: Outgoing
    complete: bool

    def frames(self, chunk: bytes) -> Iterable[Any]:
        """Cut bytes as they arrive into payloads (SSE, event-stream, NDJSON); an empty chunk is the end of the body."""

    def events(self, payload: Any) -> Iterable[Event]:
        """Turn one payload into OpenAI chunks; raise `UpstreamError` where it carries an error."""

    def completion(self, body: bytes) -> dict[str, Any]:
        """Turn a whole answer into an OpenAI completion; raise `UpstreamError` where it is none."""

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Turn an error answer into what the client is told."""


class Provider(Protocol):
    """A dialect with its settings: a class with a `name`, found like a plugin; `Config` is its options' schema.

    `native` says that the wire is OpenAI's, so that events may pass unparsed. `parameters` are request parameters
    beyond OpenAI's that the upstream understands and that a caller may set.
    """

    name: str
    native: bool
    parameters: frozenset[str]

    def open(self, exchange: Exchange, body: dict[str, Any]) -> Call | Reply:
        """Begin one call. `body` is the provider's own copy of the request, with the target's model name in it."""
