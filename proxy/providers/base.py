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
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    method: str = "POST"


class Call(Protocol):
    """One exchange in a provider's dialect.

    `complete` becomes true when the upstream has said in its own way that the answer is whole; a stream that ends
    before that is a cut one. A call may have `dropped`, the names of the parameters that the dialect has no word for
    and that the answer is the same without in shape: the caller is told, or refused where the model is `strict`. What
    cannot be left out is refused by `open`, with `Reject` 400 `unsupported_parameter`.

    A call may have a `continuation()`, asked for when an answer is complete: the request by which an upstream goes on
    with what it has only paused, or `None`. Before it returns a request it makes `complete` false again; what that is
    answered goes through the same call.
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

    Where there is a `renew()`, the core calls it when a worker starts and again after as many seconds as it returns
    (`None`: never), off the path of exchanges: it alone may do I/O, to fetch a credential anew. Where there is an
    attribute `sealer`, the core puts a `proxy.upstreams.sealing.Sealer` there before the first exchange, and where
    there is an attribute `http`, before the first `renew`, what makes a `requests.Session` through the provider's
    egress. Where there is a `probe()`, it returns an `Outgoing` that costs nothing and needs the credential, for
    `lockgate check --live`: a GET, or a POST of an incomplete request, whose refusal by 400 or 422 shows that the
    credential was accepted.
    """

    name: str
    native: bool
    parameters: frozenset[str]

    def open(self, exchange: Exchange, body: dict[str, Any]) -> Call | Reply:
        """Begin one call. `body` is the provider's own copy of the request, with the target's model name in it."""
