"""The life of one exchange, top to bottom: from `authenticate` to `on_complete`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import orjson

from proxy import fold, relay, sources
from proxy.access import capabilities, credentials, insecure, permits
from proxy.access.credentials import unauthorized
from proxy.access.grants import ALL
from proxy.attempts import Answered, Attempts
from proxy.call import CLIENT_GONE, Call, has_left
from proxy.chain import Chain
from proxy.costs import accounting
from proxy.errors import Reject
from proxy.exchange import Exchange, Filter, Reply
from proxy.gateway import Gateway, Model
from proxy.request import body, schemas

log = logging.getLogger("lockgate")

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"

#: Without a credential a body is read up to this size, and only where some model is public.
ANONYMOUS_BODY_BYTES = 64 << 10


class Client(Protocol):
    """The way to the client: its socket, whether it was sent headers, and the query and body of the request.

    `length` is that of a whole answer, in bytes.
    """

    socket: Any
    query: str
    committed: bool
    length: int | None

    def read(self, limit: int, hold: Callable[[int], None]) -> bytes:
        """Return the body; raise `Reject` where it is larger than `limit` bytes or not JSON by its headers.

        `hold` is told the size of each part of it as it comes.
        """

    def heartbeat(self) -> None:
        """Send the headers of a stream, if they have not been sent, and a comment."""


class Run:
    """One exchange on its way. `answer` never raises; `close` must be called once, after the last byte."""

    def __init__(self, gateway: Gateway, exchange: Exchange, client: Client) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.client = client
        self.chain: Chain = gateway.chain
        self.model: Model | None = None
        self.grants = ALL
        self.call: Call | None = None
        self.attempts: Attempts | None = None
        self.track: sources.Track | None = None
        self._accounted = False
        self._body_bytes = 0
        self._told = False
        # Nothing of an exchange is part of a circle: what it held goes with its last byte, and not when a collection
        # comes by.
        exchange.client_left = partial(has_left, client.socket)
        gateway.metrics.begun(exchange)

    def identify(self) -> None:
        """Ask the plugins who is calling; refuse a caller whom nobody knows unless something here is public."""
        exchange, server = self.exchange, self.gateway.settings.server
        credentials.check(exchange.headers, self.client.query)
        if server.insecure:
            insecure.check(exchange)
        try:
            exchange.identity = self.gateway.chain.authenticate(exchange)
        except Reject as reject:
            raise self._weighed(reject) from reject.__cause__
        self.grants = permits.held(exchange.identity, self.gateway)
        if exchange.identity is None and not self.gateway.public and not server.insecure:
            raise self._weighed(unauthorized(exchange))

    def may_use(self, model: Model, name: str) -> bool:
        """Tell whether the caller may use a model under this name; one that may not is told that there is none."""
        exchange, server = self.exchange, self.gateway.settings.server
        if exchange.identity is None and not model.settings.public and not server.insecure:
            return False
        return self.grants.model(name) and model.chain.allows_model(exchange, name)

    def answer(self) -> Iterator[bytes]:
        """Answer a chat completion; `exchange.outcome.status` and `response_headers` hold what goes before the body."""
        exchange = self.exchange
        try:
            self.identify()
            self._read()
            model = self.model = self._model()
            self.chain = model.chain
            exchange.prompt_estimate = self.gateway.prompt_tokens(exchange.body)
            self._expect(model)
            reply, before = self.chain.on_request(exchange)
            self._begin(model, reply)
            answered = self._ask(model, reply)
            self.track = answered.track
            filters = self.chain.on_response(exchange, before)
            exchange.outcome.status = 200
            if exchange.stream:
                return self._stream(answered, filters)
            return self._whole(answered, filters)
        except Exception as error:
            return self.refuse(error)
        except BaseException:
            self.close()
            raise

    def refuse(self, error: BaseException) -> Iterator[bytes]:
        """Answer with an error instead: as a status, or as an event where a heartbeat has sent the headers already."""
        reject = self.explain(error)
        self.exchange.response_headers.update(reject.headers)
        if self.client.committed:
            return relay.broken(self.exchange, reject)
        self.exchange.outcome.status = reject.status
        return self.hand_over(reject.encoded(), complete=False)

    def explain(self, error: BaseException) -> Reject:
        """Return what the client is told of `error`, and note it in the outcome; the log gets the rest."""
        outcome = self.exchange.outcome
        if isinstance(error, Reject):
            reject = error
        else:
            outcome.culprit = self.chain.culprit(error)
            if outcome.culprit is not None:
                log.error("plugin %s failed on %s", outcome.culprit, self.exchange.id, exc_info=error)
                reject = Reject(500, "plugin_error", "A plugin of the gateway failed; its log says more.")
            else:
                log.error("exchange %s failed", self.exchange.id, exc_info=error)
                reject = Reject(500, "internal_error", "The gateway failed; its log says more.")
        outcome.code = reject.code or reject.type
        outcome.client_gone = outcome.client_gone or reject.code == CLIENT_GONE
        return reject

    def close(self) -> None:
        """End the exchange: free the upstream, journal the end, tell the plugins. Never raises."""
        exchange, call = self.exchange, self.call
        outcome = exchange.outcome
        if call is not None:
            # A comment now would come behind the end, where the next answer on this connection begins.
            call.quiet()
        if self.attempts is not None:
            self.attempts.close()
        if call is not None:
            # A client that left during the last write has been told nothing yet.
            left = call.why == CLIENT_GONE and not (outcome.complete or self._told)
            outcome.client_gone = outcome.client_gone or left
            call.close()
        if self._body_bytes:
            self.gateway.bodies.give(self._body_bytes)
        if not outcome.complete and outcome.code is None:
            outcome.code, outcome.client_gone = CLIENT_GONE, True
        outcome.duration_s = time.monotonic() - exchange.started
        try:
            self._account(whole=outcome.complete)
        except Exception:
            log.exception("what %s cost could not be told", exchange.id)
        try:
            self.gateway.journal.end(exchange)
        except Exception:
            log.exception("the journal could not take the end of %s", exchange.id)
        try:
            self.gateway.metrics.ended(exchange, self.model.settings.pattern if self.model else None)
        except Exception:
            log.exception("%s could not be counted", exchange.id)
        for name in self.gateway.complete(self.chain, exchange):
            self.gateway.metrics.failed(name)

    def _read(self) -> None:
        """Read and check the body."""
        exchange, server = self.exchange, self.gateway.settings.server
        limit = server.max_body_bytes
        known = exchange.identity is not None or server.insecure
        raw = self.client.read(limit if known else min(limit, ANONYMOUS_BODY_BYTES), self.hold)
        exchange.outcome.bytes_in = len(raw)
        exchange.body = body.parse(raw)
        schemas.check_chat(exchange.body)
        exchange.model = exchange.body["model"]
        exchange.stream = bool(exchange.body.get("stream"))

    def hold(self, size_bytes: int) -> None:
        """Count a body against the budget over all bodies in flight; raise `Reject` where it does not fit."""
        if not self.gateway.bodies.take(size_bytes):
            raise Reject(
                503, "server_is_overloaded", "The gateway holds too many requests.", headers={"retry-after": "1"}
            )
        self._body_bytes += size_bytes

    def _model(self) -> Model:
        """Find the model and check what the request asks of it."""
        exchange = self.exchange
        name = exchange.body["model"]
        model = self.gateway.model(name)
        if exchange.identity is None and not self.gateway.settings.server.insecure:
            # Whether the model exists is no business of a caller without a credential.
            if model is None or not model.settings.public:
                raise self._weighed(unauthorized(exchange))
        if model is None or not self.may_use(model, name):
            raise not_found(name)
        schemas.check_unknown(exchange.body, model.parameters)
        exchange.model_names = model.names(name)
        if not model.settings.web_search:
            parameter = capabilities.searches(exchange.body, exchange.model_names)
            if parameter is not None:
                raise permits.denied(capabilities.WEB_SEARCH, parameter, exchange)
        permits.permit(self.grants, exchange)
        return model

    def _weighed(self, reject: Reject) -> Reject:
        """Return the refusal, or where its sender has been wrong about a credential too often, that of waiting."""
        if reject.status != 401 or not credentials.presented(self.exchange):
            return reject
        wait_s = self.gateway.throttle.wrong(self.exchange.client_address)
        return credentials.slowed(wait_s) if wait_s else reject

    def _begin(self, model: Model, reply: Reply | None) -> None:
        """Write the start line: what is called from here on has been written down first."""
        self.call = self.gateway.guardian.watch(self.client.socket)
        if reply is not None:
            return
        self.exchange.target = model.targets[0].label
        self._expect(model)  # a plugin may have changed what may be asked for
        try:
            self.gateway.journal.start(self.exchange)
        except OSError:
            raise _unrecorded() from None  # the journal says why, once

    def _ask(self, model: Model, reply: Reply | None) -> Answered:
        """Return the answer that has begun: the plugin's reply, or that of the first target that can."""
        exchange = self.exchange
        assert self.call is not None
        if exchange.stream:
            self.call.beat(self.client.heartbeat)
        if reply is not None:
            track = sources.Track(exchange)
            return Answered(sources.Source(sources.primed(sources.replied(reply, track, self.call))), track)
        self.attempts = Attempts(exchange, self.call, self.gateway.settings)
        return self.attempts.make(model)

    def _stream(self, answered: Answered, filters: list[Filter]) -> Iterator[bytes]:
        assert self.call is not None
        pieces = sources.primed(relay.filtered(iter(answered.source), filters))
        return relay.as_stream(
            self.exchange, answered.source, pieces, answered.track, self.call, self._settle, self.explain
        )

    def _whole(self, answered: Answered, filters: list[Filter]) -> Iterator[bytes]:
        """Fold a whole answer through the filters; one that nobody changes goes out as it came."""
        exchange, track, completion = self.exchange, answered.track, answered.completion
        if completion is not None and not filters:
            out = answered.raw or orjson.dumps(completion)
        else:
            pieces = answered.source if completion is None else iter((fold.unfold(completion),))
            folded = relay.folded(relay.filtered(iter(pieces), filters))
            if completion is None and not answered.source.ended:
                raise sources.cut()
            if track.usage_event is not None:
                folded["usage"] = track.usage_event["usage"]
            out = relay.dumped(folded)
        exchange.outcome.first_event_s = time.monotonic() - exchange.started
        self._settle()
        return self.hand_over(out, complete=True)

    def _expect(self, model: Model) -> None:
        gateway = self.gateway
        most = gateway.settings.estimates.completion_tokens
        accounting.expect(self.exchange, model.targets, gateway.prices, most)

    def _settle(self) -> None:
        """Write the settle line: what the answer cost is known before its last byte is handed over."""
        self._account(whole=True)
        if self.exchange.attempts:
            try:
                self.gateway.journal.settle(self.exchange)
            except OSError:
                raise _unrecorded() from None

    def _account(self, whole: bool) -> None:
        """Tell what the exchange used and cost, once: what was told before its last byte stays."""
        if not self._accounted:
            self._accounted = True
            accounting.account(self.exchange, self.track, self.gateway.prices, whole)

    def hand_over(self, out: bytes, complete: bool) -> Iterator[bytes]:
        """Return a whole body, whose length goes before it."""
        self.client.length = len(out)
        return self._once(out, complete)

    def _once(self, out: bytes, complete: bool) -> Iterator[bytes]:
        self.exchange.outcome.bytes_out += len(out)
        yield out
        self._told = True  # to the end: who leaves now has gone from nothing
        self.exchange.outcome.complete = complete


def _unrecorded() -> Reject:
    """Return what an exchange is told that cannot be journalled; an answer that could not be is cut."""
    text = "The gateway cannot record requests at the moment."
    return Reject(503, "journal_unavailable", text, headers={"retry-after": "5"})


def not_found(model: str) -> Reject:
    """Return the one answer for a model that does not exist and for one that the caller may not use."""
    shown = model if len(model) <= 100 else model[:100] + "…"
    return Reject(404, "model_not_found", f"The model `{shown}` does not exist or you do not have access to it.")
