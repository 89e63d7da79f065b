"""What one exchange is: the request, who sent it, what answered it and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
"""One OpenAI `chat.completion.chunk` as a dict."""


@dataclass(slots=True, frozen=True)
class Identity:
    """Who is calling. `subject` is stable and unique: a key's id, or a token's subject with its issuer."""

    subject: str
    name: str = ""
    team: str | None = None
    grants: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None


@dataclass(slots=True)
class Usage:
    """Tokens of one exchange. Those of the prompt include the cached ones, those of the completion the reasoning.

    `audio_tokens` are those of prompt and completion, `searches` the upstream's own in the web.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    audio_completion_tokens: int = 0
    searches: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class Attempt:
    """One call of one target. `status` is the upstream's, `None` where it sent none; `code` is `None` on success.

    `usage` is what one that failed is billed for nevertheless, `None` where that is nothing.
    """

    target: str
    started: float
    status: int | None = None
    code: str | None = None
    seconds: float | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Outcome:
    """How an exchange ended. Final in `on_complete`.

    `status` is what the client was sent; `code` the error code, also of an error after the status was sent;
    `complete` says that the whole answer was handed over; `bytes_in` and `bytes_out` are the sizes of the bodies. Times
    are seconds since the exchange started. Of a stream's `gaps`, from one read to the next, there are the number, the
    sum and the longest, in seconds.
    """

    status: int = 0
    code: str | None = None
    complete: bool = False
    client_gone: bool = False
    finish_reasons: dict[int, str] = field(default_factory=dict)
    bytes_out: int = 0
    first_event_s: float | None = None
    duration_s: float = 0.0
    culprit: str | None = None
    gaps: int = 0
    gaps_s: float = 0.0
    longest_gap_s: float = 0.0
    bytes_in: int = 0


@dataclass(slots=True)
class Reply:
    """An answer by a plugin or an embedded provider instead of an upstream: a completion or an iterator of events."""

    completion: dict[str, Any] | None = None
    events: Iterable[Event | Pause] | None = None

    def __post_init__(self) -> None:
        if (self.completion is None) == (self.events is None):
            raise ValueError("a Reply has either a completion or events")


@dataclass(slots=True, frozen=True)
class Pause:
    """Yielded between the events of a `Reply`: the core waits so long, or until client or time are gone."""

    seconds: float


@dataclass(slots=True, eq=False)
class Exchange:
    """One client request and everything that happens to it until its last byte.

    `headers` has lower-case names. `body` is the parsed request: look at it and change it in place in `on_request`.
    `model` is the name that the client used, `model_names` are those that its upstreams may be asked for.
    `response_headers` are sent with every answer, refusals included, as long as headers were not yet sent.
    `upstream_headers` are sent to the upstream beside the provider's own, which they never replace.
    `stash` keeps what a plugin must remember for this exchange: `exchange.stash[self] = …`.
    `findings` are counts that plugins keep, by labels that the configuration bounds: never by a caller's words.
    `trace` says which plugin decided what, and in how many microseconds.
    `client_left` says whether the client has gone, for a plugin that waits in `on_request`.
    What the client sent, and what plugins keep, is not in its `repr`, which ends up in logs.
    `prompt_estimate` is a guess at the prompt's tokens. `cost_estimate` is what the exchange may come to by that,
    `cost` what it did, both in micro-dollars: `None` where no price is known.
    """

    id: str
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    client_address: str
    received: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    identity: Identity | None = None
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    model: str | None = None
    model_names: tuple[str, ...] = ()
    stream: bool = False
    target: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    response_headers: dict[str, str] = field(default_factory=dict)
    upstream_headers: dict[str, str] = field(default_factory=dict, repr=False)
    prompt_estimate: int = 0
    usage: Usage | None = None
    cost_estimate: int | None = None
    cost: int | None = None
    outcome: Outcome = field(default_factory=Outcome)
    findings: dict[str, int] = field(default_factory=dict)
    trace: list[tuple[str, str, int]] = field(default_factory=list)
    stash: dict[Any, Any] = field(default_factory=dict, repr=False)
    client_left: Callable[[], bool] = field(default=lambda: False, repr=False)

    @property
    def credential(self) -> str | None:
        """The bearer token of the request, or `None`."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


Filter = Any
"""A generator function from an iterator of events to an iterator of events."""

Events = Iterator[Event]
