"""What an answer is read from: an upstream's stream, or a reply of a plugin's or of an embedded provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain as joined

import orjson

from proxy import fold, sockets, sse
from proxy.call import Call
from proxy.costs.usage import Relayed, usage_of
from proxy.errors import CODE, UpstreamError
from proxy.exchange import Event, Exchange, Pause, Reply
from proxy.providers import base
from proxy.upstreams.upstream import Answer, given_up

Piece = bytes | Event
"""A chunk of canonical events as they arrived, or one event that was parsed."""


class Track:
    """What has been seen of an answer: its choices, their finish reasons, its usage."""

    __slots__ = ("exchange", "finished", "many", "relayed", "seen", "usage_event")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        # More than one choice was asked for: then it counts which ones have begun.
        self.many = exchange.body.get("n") not in (None, 1)
        self.seen: set[int] = set()
        self.finished = exchange.outcome.finish_reasons = {}
        self.usage_event: Event | None = None
        self.relayed = Relayed()

    def raw(self, chunk: bytes) -> None:
        """Take note of canonical events, by byte tests wherever these can tell."""
        finishes = sse.finishes(chunk)
        if not self.many and finishes == []:
            self.relayed.raw(chunk)
            return
        seen = sse.indexes(chunk) if self.many else ()
        if finishes is None or seen is None:
            for event in parsed(chunk):
                self.event(event)
            return
        self.seen.update(seen)
        for index, reason in finishes:
            self._finish(index, reason)
        if finishes:
            self.relayed.finishing(chunk)
        else:
            self.relayed.raw(chunk)

    def event(self, event: Event) -> None:
        """Take note of one event and take its usage out: that goes to those who asked, once and at the end."""
        for choice in event.get("choices") or ():
            index = choice.get("index") or 0
            self.seen.add(index)
            reason = choice.get("finish_reason")
            if reason and isinstance(reason, str):
                self._finish(index, reason)
        self.relayed.event(event)
        usage = event.get("usage")
        if usage is not None:
            if isinstance(usage, dict):
                self.exchange.usage = usage_of(usage) or self.exchange.usage
                self.usage_event = {**event, "choices": [], "usage": usage}
            event["usage"] = None

    def _finish(self, index: int, reason: str) -> None:
        self.finished[index] = reason if CODE.fullmatch(reason) else "other"

    @property
    def whole(self) -> bool:
        """Whether each choice that began has finished."""
        return bool(self.finished) and self.seen <= self.finished.keys()


def streamed(
    answer: Answer, wire: base.Call, native: bool, track: Track, continued: Callable[[], Answer | None]
) -> Iterator[Piece]:
    """Yield what a streaming upstream sends, unparsed where it is canonical; end only when the answer is whole.

    `continued` asks a complete answer's upstream to go on, where that has only paused.
    Raises `UpstreamError` where it is not: cut, without a finish, garbage, an error in any shape.
    """
    events_seen = half = False
    read, canonical = answer.read, sse.canonical
    try:
        while not wire.complete:
            chunk = read()
            rest = chunk
            if native and not half:
                passed = chunk if canonical(chunk) else sse.canonical_part(chunk)
                if passed:
                    track.raw(passed)
                    events_seen = True
                    yield passed
                    rest = chunk[len(passed) :]
                    if not rest:
                        continue
            made: list[bytes] = []  # canonical events that arrived in another form, to be handed on together
            for payload in wire.frames(rest):
                if native and canonical(event_bytes := sse.encode(payload.data)):
                    track.raw(event_bytes)
                    events_seen = True
                    made.append(event_bytes)
                    continue
                if made:
                    yield b"".join(made)
                    made.clear()
                for event in wire.events(payload):
                    track.event(event)
                    events_seen = True
                    # An event that held nothing but usage is kept for the end.
                    if event.get("choices") or track.usage_event is None:
                        yield event
                if wire.complete:
                    break
            if made:
                yield b"".join(made)
            if wire.complete and (more := continued()) is not None:
                more.begin()
                read = more.read
            elif not chunk:
                break
            # What follows half an event is its other half.
            half = native and wire.parser.pending  # type: ignore[attr-defined]
    except _MALFORMED:
        raise UpstreamError(502, "upstream_malformed", NO_ANSWER) from None
    if not events_seen:
        raise UpstreamError(502, "upstream_empty_response", "The upstream's answer holds no completion.")
    if not wire.complete or not track.whole:
        raise cut()


#: What code that reads an upstream's words raises where they are not as they should be.
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
NO_ANSWER = "The upstream sent something that is no answer."


@contextmanager
def malformed() -> Iterator[None]:
    """Raise `UpstreamError` where what the upstream said can't be read."""
    try:
        yield
    except _MALFORMED:
        raise UpstreamError(502, "upstream_malformed", NO_ANSWER) from None


def cut() -> UpstreamError:
    """Return what an answer is that ended before its end."""
    return UpstreamError(502, "upstream_stream_cut", "The answer ended before it was complete.")


def replied(reply: Reply, track: Track, call: Call) -> Iterator[Event]:
    """Yield the events of a plugin's or an embedded provider's answer."""
    events = reply.events or ()
    if reply.completion is not None:
        track.event({**reply.completion, "object": "chat.completion.chunk"})
        events = fold.spread(reply.completion)
    for event in events:
        if isinstance(event, Pause):
            pause(call, event.seconds)
            continue
        call.touch()
        if event.get("usage") is not None:
            event = {**event}  # the plugin's own, which may be used again
        track.event(event)
        if event.get("choices") or track.usage_event is None:
            yield event
    if not track.whole:
        raise RuntimeError("a reply ended without a finish reason for each of its choices")


def pause(call: Call, seconds: float) -> None:
    """Wait as one waits for an upstream: the guardian ends it when the client leaves or a deadline passes.

    Raises `UpstreamError` then.
    """
    if seconds <= 0:
        return
    waiting, other = sockets.pair()
    try:
        waiting.settimeout(seconds)
        call.attach(waiting)
        call.wait()
        waiting.recv(1)
    except TimeoutError:
        pass
    finally:
        call.woke()
        call.detach()
        waiting.close()
        other.close()
    if call.why is not None:
        raise given_up(call)


def parsed(chunk: bytes) -> list[Event]:
    """Return the events of a chunk of canonical events."""
    return [orjson.loads(event[6:]) for event in chunk.split(b"\n\n")[:-1]]


class Source:
    """Hands pieces on and knows whether they came to their end, whatever filters swallow."""

    __slots__ = ("_pieces", "ended")

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self.ended = False

    def __iter__(self) -> Iterator[Piece]:
        yield from self._pieces
        self.ended = True


def primed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Fetch the first piece, so that its failure comes while there can still be a status or another target."""
    for first in pieces:
        return joined((first,), pieces)
    return iter(())
