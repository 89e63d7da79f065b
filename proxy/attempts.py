"""How an exchange is put to its model's targets, one after the other, until one of them begins to answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from proxy import failures, sources
from proxy.call import CLIENT_GONE, NEVER, Call
from proxy.costs import accounting
from proxy.errors import UpstreamError
from proxy.exchange import Attempt, Exchange, Reply, Usage
from proxy.gateway import Model
from proxy.providers import base
from proxy.providers.translation import unsupported
from proxy.routing import Route, Target, all_open, counts_against
from proxy.settings import Settings
from proxy.upstreams.sending import beside
from proxy.upstreams.upstream import Answer

log = logging.getLogger("lockgate")

#: Of the body of an upstream's error no more is read than an error needs.
ERROR_BYTES = 64 << 10


@dataclass(slots=True)
class Answered:
    """An answer that has begun: where it comes from and what is seen of it.

    Of a whole one `completion` is what it says, and `raw` its bytes where these are OpenAI's own.
    """

    source: sources.Source
    track: sources.Track
    completion: dict[str, Any] | None = None
    raw: bytes | None = None


class Attempts:
    """The attempts of one exchange. `close` frees the upstream that answered last."""

    def __init__(self, exchange: Exchange, call: Call, settings: Settings) -> None:
        self._exchange = exchange
        self._call = call
        # Whether the client is told which target was asked last, and how many times targets were asked.
        self._headers = settings.server.target_headers
        self._completion_tokens = settings.estimates.completion_tokens
        self._upstream: Answer | None = None
        # Of this attempt, how much came of answers that were only paused.
        self._paused_bytes = 0

    def make(self, model: Model) -> Answered:
        """Return the first answer that begins; raise the last attempt's `UpstreamError` where none does.

        Once an event has been handed to the client no other target can take over.
        """
        route = Route(model.targets, model.settings.retry)
        failed: UpstreamError | None = None
        for target, wait_s in route:
            if failed is not None and not self._call.again():
                break
            if wait_s:
                # The wait is nobody's silence: only the time for the whole exchange bounds it.
                self._call.arm("wait", NEVER)
                sources.pause(self._call, wait_s)
            try:
                return self._try(target, model.settings.strict)
            except UpstreamError as error:
                failed = error
            if not failed.fallback:
                break
            route.failed(target, failed)
        try:
            raise failed or all_open(model.targets)
        finally:
            failed = None  # its traceback leads here

    def close(self) -> None:
        """Free the upstream: its connection is used again where the answer was read to its end."""
        if self._upstream is not None:
            if self._exchange.outcome.complete:
                self._upstream.drain()
            self._upstream.close()

    def _try(self, target: Target, strict: bool) -> Answered:
        """Ask one target; tell its breaker, the exchange and the client how that went."""
        exchange = self._exchange
        attempt = Attempt(target.label, time.monotonic())
        exchange.attempts.append(attempt)
        self._paused_bytes = 0
        exchange.target = target.label
        if self._headers:
            exchange.response_headers["x-lockgate-target"] = target.label.encode("ascii", "backslashreplace").decode()
            exchange.response_headers["x-lockgate-attempts"] = str(len(exchange.attempts))
        failed: bool | None = None
        try:
            answered = self._ask(target, attempt, strict)
            failed = False
            return answered
        except UpstreamError as error:
            attempt.code = error.code
            attempt.usage = self._lost(attempt)
            if error.code != CLIENT_GONE:
                failed = counts_against(error)
            raise
        finally:
            attempt.seconds = time.monotonic() - attempt.started
            if failed is None:
                target.breaker.leave()
            else:
                target.breaker.note(failed)

    def _lost(self, attempt: Attempt) -> Usage | None:
        """Return what the attempt that has just failed is billed for."""
        answer, sent = self._upstream, self._call.phase != "connect"
        # What comes of a stream before its first event is no text.
        came = answer.size_bytes if answer is not None and (answer.is_json or not self._exchange.stream) else 0
        return accounting.lost(self._exchange, attempt, sent, came, self._completion_tokens, self._paused_bytes)

    def _ask(self, target: Target, attempt: Attempt, strict: bool) -> Answered:
        exchange, call, timeouts = self._exchange, self._call, target.timeouts
        request = {**exchange.body, "model": target.model or exchange.body["model"]}
        exchange.usage = None
        track = sources.Track(exchange)
        wire: base.Call | Reply = target.provider.open(exchange, request)
        self._tell_dropped(getattr(wire, "dropped", ()), strict)
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        if isinstance(wire, Reply):
            call.arm("first_byte", timeouts.first_byte, timeouts.total)
            attempt.status = 200
            source = sources.Source(sources.primed(sources.replied(wire, track, call)))
            call.arm("idle", timeouts.idle)
            return Answered(source, track)
        answer = self._send(target, wire, wire.outgoing)
        if exchange.stream and not answer.is_json:
            continued = partial(self._continued, target, wire)
            source = sources.Source(
                sources.primed(sources.streamed(answer, wire, target.provider.native, track, continued))
            )
            answer.begin()
            return Answered(source, track)
        raw = answer.read_all()
        with sources.malformed():
            completion = wire.completion(raw)
            while (more := self._continued(target, wire)) is not None:
                completion = wire.completion(more.read_all())
            track.event({"choices": completion["choices"], "usage": completion.get("usage")})
            if exchange.stream:
                if not track.whole:
                    raise sources.cut()
                return Answered(sources.Source(sources.primed(sources.replied(Reply(completion), track, call))), track)
        return Answered(sources.Source(iter(())), track, completion, raw if target.provider.native else None)

    def _send(self, target: Target, wire: base.Call, outgoing: base.Outgoing) -> Answer:
        """Return the upstream's answer, if it is one."""
        if self._exchange.upstream_headers:
            outgoing.headers = beside(outgoing.headers, self._exchange.upstream_headers)
        self._upstream = answer = target.upstream.send(self._call, outgoing, target.timeouts)
        self._exchange.attempts[-1].status = answer.status
        if answer.status != 200:
            # A redirect is not followed, and nothing else below 400 is an answer.
            if answer.status < 400:
                raise failures.failure(502, answer.headers)
            raise wire.error(answer.status, answer.headers, answer.read_all(ERROR_BYTES))
        return answer

    def _continued(self, target: Target, wire: base.Call) -> Answer | None:
        """Ask the upstream to go on, where it has only paused; `None` where its answer was all."""
        continuation = getattr(wire, "continuation", None)
        outgoing = continuation() if continuation is not None else None
        if outgoing is None:
            return None
        if self._upstream is not None:
            self._paused_bytes += self._upstream.size_bytes
            self._upstream.close()
        return self._send(target, wire, outgoing)

    def _tell_dropped(self, names: Sequence[str], strict: bool) -> None:
        """Tell the caller which parameters the target has no word for; refuse them where the model is strict."""
        exchange = self._exchange
        exchange.response_headers.pop("x-lockgate-dropped", None)
        if not names:
            return
        if strict:
            raise unsupported(names[0])
        exchange.response_headers["x-lockgate-dropped"] = ", ".join(names)
        log.warning("exchange %s: %s does not know %s", exchange.id, exchange.target, ", ".join(names))
