"""What an exchange is expected to cost before its upstream is called, and what it did afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

from proxy.call import CLIENT_GONE
from proxy.costs import estimates
from proxy.costs.prices import Prices
from proxy.exchange import Attempt, Exchange, Usage
from proxy.sources import Track

#: How an answer breaks off that was accepted, and so is billed. Any other failure is what the upstream itself says.
BROKEN = frozenset(
    "upstream_timeout upstream_connection_lost upstream_stream_cut upstream_malformed upstream_malformed_output "
    "upstream_empty_response upstream_answer_too_large upstream_tls_error".split()
)


def expect(exchange: Exchange, targets: Sequence[Any], prices: Prices, completion_tokens: int) -> None:
    """Set `cost_estimate`: the prompt's estimate and all that the answer may have, at the most expensive target.

    `completion_tokens` is what each choice of an answer may have where the request sets no bound.
    """
    most = estimates.completion_cap(exchange.body, completion_tokens)
    exchange.cost_estimate = prices.estimate(targets, exchange.prompt_estimate, most, exchange.model)


def lost(
    exchange: Exchange, attempt: Attempt, sent: bool, size_bytes: int, completion_tokens: int, paused_bytes: int = 0
) -> Usage | None:
    """Return what an attempt that failed is billed for, before any of its answer was handed on.

    That is nothing where the request was not `sent`, and where the upstream refused it or says that it failed itself.
    One that had accepted it, or that the client did not wait for, has read the prompt and written what came of the
    answer: `size_bytes` of a whole one, and no more than was asked for. `paused_bytes` are those of answers that it had
    only paused: they are billed whatever became of the rest.
    """
    told, left = exchange.usage, attempt.code == CLIENT_GONE
    if not paused_bytes:
        if attempt.status != 200 and not (left and sent):
            return None
        if told is None and not left and attempt.code not in BROKEN:
            return None
    most = estimates.completion_cap(exchange.body, completion_tokens)
    usage = told or Usage(exchange.prompt_estimate)
    written = usage.completion_tokens or min(estimates.completion_tokens(size_bytes + paused_bytes), most)
    return replace(usage, completion_tokens=written, estimated=True)


def account(exchange: Exchange, track: Track | None, prices: Prices, whole: bool) -> None:
    """Set `usage`, where the upstream has not told it, and `cost`, of all attempts together. Call it once.

    `track` is that of the answer that had begun, `whole` says that it came to its end.
    """
    spent = [(attempt.target, attempt.usage) for attempt in exchange.attempts if attempt.usage is not None]
    if exchange.attempts and track is not None:
        spent.append((exchange.attempts[-1].target, _answered(exchange, track, whole)))
    if not spent:
        exchange.cost = 0
        return
    costs = [prices.cost(target, exchange.model, usage) for target, usage in spent]
    exchange.cost = None if None in costs else sum(filter(None, costs))
    exchange.usage = spent[0][1] if len(spent) == 1 else _sum([usage for _, usage in spent])


def _answered(exchange: Exchange, track: Track, whole: bool) -> Usage:
    """Return what an answer used that had begun."""
    usage = exchange.usage
    if usage is None:
        return Usage(exchange.prompt_estimate, track.relayed.tokens(), estimated=True)
    if not whole and not usage.completion_tokens and (written := track.relayed.tokens()):
        # Some tell the prompt's tokens at the beginning, with zeros for the rest.
        return replace(usage, completion_tokens=written, estimated=True)
    return usage


def _sum(usages: list[Usage]) -> Usage:
    counts = [sum(column) for column in zip(*map(astuple, usages), strict=True)]
    return replace(Usage(*counts), estimated=any(usage.estimated for usage in usages))
