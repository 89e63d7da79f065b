"""Sends a span for each chat completion to an OpenTelemetry collector: who asked what of whom, never what was said."""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from proxy import Exchange, SecretField, hookimpl

from .delivery import Delivery, Way

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from proxy import Gateway


# Asked, not imported: it takes longer than all else at a start, and belongs after the fork.
for _module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
    if find_spec(_module) is None:
        raise ModuleNotFoundError(f"No module named {_module!r}", name=_module)

#: Spans that wait for the collector in one worker, beyond which new ones are dropped, and that are sent at once.
MOST_WAITING, BATCH = 2048, 512
#: How long spans gather, in milliseconds; in seconds how long they are tried, and how long a worker's end waits.
GATHER_MS, EXPORT_S, STOP_S = 5000, 5.0, 3.0
LONGEST_TEXT = 256

#: The request's parameters that spans carry: numbers and flags, no texts.
PARAMETERS = {
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "stream": "gen_ai.request.stream",
}

#: What the conventions call the services that providers speak to; others have the name that they are configured under.
SERVICES = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
}


class Traces:
    """One span per exchange, by the GenAI semantic conventions. The caller's `traceparent` is its parent, if valid.

    The upstream is sent a `traceparent` that names the span. Spans go out in batches, by a thread of their own and
    through `[egress]`.
    """

    name = "traces"

    class Config(Schema):
        endpoint = fields.Url(
            schemes={"http", "https"},
            require_tld=False,
            required=True,
            metadata={"help": "where OTLP over HTTP is taken, e.g. `http://127.0.0.1:4318/v1/traces`"},
        )
        authorization = SecretField(
            load_default=None, metadata={"help": "what the collector is sent as `Authorization`, such as `Bearer …`"}
        )
        service = fields.String(load_default="lockgate", metadata={"help": "what the spans' `service.name` is"})
        share = fields.Float(
            validate=validate.Range(0, 1),
            load_default=1.0,
            metadata={"help": "the share of traces that is kept, 0 to 1; a caller's own trace is kept if it is there"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        secret, endpoint, session = self._config["authorization"], self._config["endpoint"], gateway.http()
        way = Way(session.get_adapter(endpoint))
        session.mount(endpoint, way)
        exporter = OTLPSpanExporter(
            endpoint,
            headers={"authorization": secret.reveal()} if secret is not None else {},
            timeout=EXPORT_S,
            compression=Compression.Gzip,
            session=session,
        )
        # It tells every attempt, with the texts of exceptions; what is lost is said once, and counted.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        dropped = gateway.metrics.counter("lockgate_spans_dropped_total", "Spans that no collector took.")
        self._delivery = delivery = Delivery(exporter, way, dropped.inc, MOST_WAITING)
        self._services = {name: SERVICES.get(own.use, name) for name, own in gateway.settings.providers.items()}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(self._config["share"])),
            resource=Resource({SERVICE_NAME: self._config["service"]}),
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_TEXT, max_attribute_length=LONGEST_TEXT),
            shutdown_on_exit=False,
        )
        # What is not said here is taken from the environment.
        self._provider.add_span_processor(
            BatchSpanProcessor(delivery, MOST_WAITING, GATHER_MS, BATCH)  # type: ignore[arg-type]
        )
        self._tracer = self._provider.get_tracer("lockgate")
        self._propagator = TraceContextTextMapPropagator()

    @hookimpl
    def on_stop(self) -> None:
        # What waits is sent, as long as it does not take long: a collector that hangs must not hold the worker.
        last = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        last.start()
        last.join(STOP_S)
        self._delivery.give_up()

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        from opentelemetry.trace import set_span_in_context

        span = exchange.stash[self] = self._begun(exchange)
        self._propagator.inject(exchange.upstream_headers, set_span_in_context(span))

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        if not exchange.path.endswith("/chat/completions"):
            return
        # One that was refused further left has none yet.
        span = exchange.stash.pop(self, None) or self._begun(exchange)
        if not span.is_recording():
            return
        _describe(span, exchange, self._services)
        if self._delivery.takes():
            span.end(_nanoseconds(exchange.received + exchange.outcome.duration_s))

    def _begun(self, exchange: Exchange) -> Span:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            "chat", self._parent(exchange), SpanKind.CLIENT, start_time=_nanoseconds(exchange.received)
        )

    def _parent(self, exchange: Exchange) -> Context:
        from opentelemetry.context import Context

        # Not `tracestate`: what callers write there would go on to the upstream.
        told = exchange.headers.get("traceparent")
        return self._propagator.extract({"traceparent": told} if told else {}, Context())


def _describe(span: Span, exchange: Exchange, services: dict[str, str]) -> None:
    outcome, usage, identity = exchange.outcome, exchange.usage, exchange.identity
    said: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": exchange.model,
        "gen_ai.response.finish_reasons": tuple(outcome.finish_reasons.values()) or None,
        "gen_ai.response.time_to_first_chunk": outcome.first_event_s if exchange.stream else None,
        "http.response.status_code": outcome.status or None,
        "error.type": outcome.code,
        "lockgate.request.id": exchange.id,
        "lockgate.subject": identity and identity.subject,
        "lockgate.team": identity and identity.team,
        "lockgate.cost.micro_dollars": exchange.cost,
    }
    for parameter, name in PARAMETERS.items():
        value = exchange.body.get(parameter)
        # Also of a body that was refused; the protocol has integers of 64 bits.
        if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
            said[name] = value
    if exchange.target is not None:
        # Only a model that is served gives the span its name: others are callers' words.
        span.update_name(f"chat {exchange.model}"[:LONGEST_TEXT])
        provider = exchange.target.partition("/")[0]
        said["gen_ai.provider.name"] = services.get(provider, provider)
        said["lockgate.target"] = exchange.target
    if usage is not None:
        said |= {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens or None,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
            "lockgate.usage.estimated": usage.estimated or None,
        }
    span.set_attributes({name: value for name, value in said.items() if value is not None})
    for attempt in exchange.attempts:
        told = {
            "lockgate.target": attempt.target,
            "http.response.status_code": attempt.status,
            "error.type": attempt.code,
        }
        at = exchange.received + attempt.started - exchange.started
        span.add_event(
            "lockgate.attempt", {name: value for name, value in told.items() if value is not None}, _nanoseconds(at)
        )
    if outcome.code is not None:
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
