"""How an answer reaches the client: through the filters, as a stream or as a whole."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from proxy import fold, sse
from proxy.call import Call
from proxy.errors import Reject
from proxy.exchange import Event, Exchange, Filter
from proxy.sources import Piece, Source, Track, cut, parsed


def _events(pieces: Iterable[Piece]) -> Iterator[Event]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield from parsed(piece)
        else:
            yield piece


def filtered(pieces: Iterator[Piece], filters: list[Filter]) -> Iterator[Piece]:
    """Send the pieces through the filters; without any they stay as they are."""
    if not filters:
        return pieces
    events = _events(pieces)
    for each in filters:
        events = iter(each(events))
    return events


def as_stream(
    exchange: Exchange,
    source: Source,
    pieces: Iterator[Piece],
    track: Track,
    call: Call,
    settle: Callable[[], None],
    explain: Callable[[BaseException], Reject],
) -> Iterator[bytes]:
    """Yield the client's stream. It ends with `[DONE]` if and only if the source was whole; else with an error, cut."""
    outcome = exchange.outcome
    count, began, last, longest = 0, call.touched, call.touched, 0.0
    try:
        for piece in pieces:
            out = piece if isinstance(piece, bytes) else sse.encode(dumped(piece))
            # What is sent now is what has just been read: no need to ask the clock again.
            call.sent = now = call.touched
            if outcome.first_event_s is None:
                outcome.first_event_s = time.monotonic() - exchange.started
                began = now
            elif now - last > longest:
                longest = now - last
            last = now
            count += 1
            outcome.bytes_out += len(out)
            yield out
        if not source.ended:
            raise cut()
        if outcome.first_event_s is None:
            raise Reject(500, "plugin_error", SWALLOWED)
        end = sse.DONE
        if track.usage_event is not None and (exchange.body.get("stream_options") or {}).get("include_usage"):
            end = sse.encode(orjson.dumps(track.usage_event)) + end
        settle()
        outcome.bytes_out += len(end)
        yield end
        outcome.complete = True
    except GeneratorExit:
        raise
    except Exception as error:
        yield from broken(exchange, explain(error))
    finally:
        if count > 1:
            outcome.gaps, outcome.gaps_s, outcome.longest_gap_s = count - 1, last - began, longest


def broken(exchange: Exchange, reject: Reject) -> Iterator[bytes]:
    """Yield the error event of a stream that can't go on, then cut it: no `[DONE]` and no terminating chunk."""
    if not exchange.outcome.client_gone:
        out = sse.encode(reject.encoded())
        exchange.outcome.bytes_out += len(out)
        yield out
    raise ConnectionResetError(errno.ECONNRESET, "the answer was cut")


SWALLOWED = "A plugin of the gateway has left nothing of the answer."


def dumped(event: Any) -> bytes:
    """Serialise what came out of the filters; raise `Reject` where it is no event."""
    try:
        if isinstance(event, dict):
            return orjson.dumps(event)
    except TypeError:
        pass
    raise Reject(500, "plugin_error", "A plugin of the gateway has made something that is no answer.")


def folded(pieces: Iterator[Piece]) -> dict[str, Any]:
    """Gather a stream into one completion."""
    whole = fold.Fold()
    for event in _events(pieces):
        if not isinstance(event, dict):
            raise Reject(500, "plugin_error", "A plugin of the gateway has made something that is no answer.")
        whole.add(event)
    completion = whole.completion()
    if not completion["choices"]:
        raise Reject(500, "plugin_error", SWALLOWED)
    return completion
