"""What the journal's lines say of an exchange."""

from __future__ import annotations

from typing import Any

from proxy.exchange import Exchange
from proxy.records.chain import ADDED
from proxy.records.lines import WHOLE, json_line

LONGEST = WHOLE - ADDED


def start(exchange: Exchange) -> bytes:
    """Return the line of an exchange whose upstream is about to be called."""
    return json_line({"kind": "start", **_beginning(exchange)}, LONGEST)


def settle(exchange: Exchange, begun: int, now: float) -> bytes:
    """Return the line of one whose answer is there, `begun` with the start line of that number."""
    record = {"kind": "settle", "start": begun, "id": exchange.id, "settled": now}
    return json_line(record | _price(exchange), LONGEST)


def end(exchange: Exchange, begun: int | None, settled: bool, now: float) -> bytes:
    """Return the line of one that is over; it says whatever no line before has said."""
    outcome = exchange.outcome
    record: dict[str, Any] = {"kind": "end"}
    record |= _beginning(exchange) if begun is None else {"start": begun, "id": exchange.id}
    if not settled:
        record |= _price(exchange)
    record |= {
        "ended": now,
        "status": outcome.status,
        "code": outcome.code,
        "complete": outcome.complete,
        "client_gone": outcome.client_gone,
        "culprit": outcome.culprit,
        "attempts": [[a.target, a.status, a.code, a.seconds] for a in exchange.attempts],
        "first_event_s": outcome.first_event_s,
        "duration_s": outcome.duration_s,
        "bytes_in": outcome.bytes_in,
        "bytes_out": outcome.bytes_out,
        "trace": exchange.trace,
        "findings": exchange.findings,
    }
    return json_line(record, LONGEST)


def _beginning(exchange: Exchange) -> dict[str, Any]:
    identity = exchange.identity
    return {
        "id": exchange.id,
        "time": exchange.received,
        # No names of people: keys have ids, and who they belong to is in the database, where it can be erased.
        "subject": identity and identity.subject,
        "team": identity and identity.team,
        "path": exchange.path[:256],
        "model": exchange.model and exchange.model[:256],
        "target": exchange.target,
        "stream": exchange.stream,
        "client": exchange.client_address,
        "agent": exchange.headers.get("user-agent", "")[:256],
        "prompt": exchange.prompt_estimate,
        "reserved": exchange.cost_estimate,
    }


def _price(exchange: Exchange) -> dict[str, Any]:
    usage = exchange.usage
    return {
        "target": exchange.target,
        "status": exchange.outcome.status,
        "finish": {str(choice): reason for choice, reason in exchange.outcome.finish_reasons.items()},
        "usage": usage
        and {
            "prompt": usage.prompt_tokens,
            "completion": usage.completion_tokens,
            "cached": usage.cached_tokens,
            "cache_write": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
            "audio": usage.audio_tokens,
        },
        "estimated": usage and usage.estimated,
        "cost": exchange.cost,
    }
