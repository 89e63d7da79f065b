"""Writes one line of JSON per exchange: who called what, how it went and what it cost; never what was said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from proxy import Exchange, OutletField, Sink, Usage, hookimpl, json_line

if TYPE_CHECKING:
    from proxy import Gateway


class RequestLog:
    """One line per exchange, when it is over. Several workers may share the standard output or a file."""

    name = "request_log"

    class Config(Schema):
        """Options of `[plugins.NAME]` with `use = "request_log"`."""

        to = OutletField(
            load_default=OutletField.stdout,
            metadata={
                "default": "stdout",
                "help": '`"stdout"`, `"syslog"`, `{ file = "/path" }` or `{ syslog = "udp://HOST:514" }`, `tcp://…`, '
                "`unix:/path`; a file that was moved away is made anew",
            },
        )
        waiting = fields.Integer(
            strict=True,
            validate=validate.Range(min=1, max=10**6),
            load_default=10_000,
            metadata={"help": "lines that wait where they are not taken; more are dropped and counted"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self._to = config["to"]
        self._waiting = config["waiting"]

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self.sink = Sink(self._to(), self._waiting)
        dropped = gateway.metrics.counter("lockgate_log_lines_dropped_total", "Log lines that were not taken in time.")
        dropped.set_function(lambda: self.sink.dropped)

    @hookimpl
    def on_stop(self) -> None:
        self.sink.close()

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        self.sink.put(json_line(record(exchange)))


def record(exchange: Exchange) -> dict[str, Any]:
    """Return what the line says. Costs are in micro-dollars, `trace` is in microseconds.

    `upstream_s` is the time that upstreams were waited for, `own_s` the rest; a client that reads slowly counts as
    upstream.
    """
    identity, outcome = exchange.identity, exchange.outcome
    began = outcome.duration_s if outcome.first_event_s is None else outcome.first_event_s
    own_s = max(0.0, began - sum(attempt.seconds or 0.0 for attempt in exchange.attempts))
    return {
        "time": datetime.fromtimestamp(exchange.received, UTC).isoformat(timespec="milliseconds"),
        "id": exchange.id,
        "subject": identity and identity.subject,
        "name": identity and identity.name,
        "team": identity and identity.team,
        "method": exchange.method,
        "path": exchange.path[:256],
        "model": exchange.model and exchange.model[:256],
        "target": exchange.target,
        "attempts": [[a.target, a.status, a.code, _rounded(a.seconds)] for a in exchange.attempts],
        "stream": exchange.stream,
        "status": outcome.status,
        "code": outcome.code,
        "culprit": outcome.culprit,
        "complete": outcome.complete,
        "client_gone": outcome.client_gone,
        "finish": list(outcome.finish_reasons.values()),
        **_tokens(exchange.usage),
        "cost": exchange.cost,
        "first_event_s": _rounded(outcome.first_event_s),
        "duration_s": _rounded(outcome.duration_s),
        "own_s": _rounded(own_s),
        "upstream_s": _rounded(outcome.duration_s - own_s),
        "bytes_in": outcome.bytes_in,
        "bytes_out": outcome.bytes_out,
        "trace": exchange.trace,
        "findings": exchange.findings,
        "agent": exchange.headers.get("user-agent", "")[:256],
        "client": exchange.client_address,
    }


def _tokens(usage: Usage | None) -> dict[str, Any]:
    """The tokens by kind; only kinds that there were, beside prompt and completion."""
    if usage is None:
        return {"prompt_tokens": None, "completion_tokens": None}
    kinds = {
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": usage.audio_tokens,
        "searches": usage.searches,
    }
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        **{kind: count for kind, count in kinds.items() if count},
        "estimated": usage.estimated,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
