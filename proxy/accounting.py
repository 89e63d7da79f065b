"""What an exchange is expected to cost before its upstream is called, and what it did afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from proxy import estimates
from proxy.exchange import Exchange, Usage
from proxy.guardian import CLIENT_GONE
from proxy.prices import Prices
from proxy.relay import Track


def expect(exchange: Exchange, targets: Sequence[Any], prices: Prices, completion_tokens: int) -> None:
    """Set `cost_estimate`: the prompt's estimate and all that the answer may have, at the most expensive target.

    `completion_tokens` is what each choice of an answer may have where the request sets no bound.
    """
    most = estimates.completion_cap(exchange.body, completion_tokens)
    exchange.cost_estimate = prices.estimate(targets, exchange.prompt_estimate, most, exchange.model)


def account(exchange: Exchange, track: Track | None, prices: Prices, whole: bool) -> None:
    """Set `usage`, where the upstream has not told it, and `cost`; the first call counts.

    `track` is that of the answer that had begun, `whole` says that it came to its end. What an upstream refused, or
    failed at, costs nothing. Where the client left before an answer, or an answer that was accepted came too late, the
    prompt is taken as used. Attempts before the last are not counted.
    """
    if exchange.cost is not None:
        return
    usage = exchange.usage
    if not exchange.attempts or (usage is None and track is None and not _accepted(exchange)):
        exchange.cost = 0
        return
    if usage is None:
        usage = Usage(exchange.prompt_estimate, _relayed(track), estimated=True)
    elif not whole and not usage.completion_tokens and _relayed(track):
        # Some tell the prompt's tokens at the beginning, with zeros for the rest.
        usage = replace(usage, completion_tokens=_relayed(track), estimated=True)
    exchange.usage = usage
    exchange.cost = prices.cost(exchange.attempts[-1].target, exchange.model, usage)


def _accepted(exchange: Exchange) -> bool:
    last = exchange.attempts[-1]
    return last.code == CLIENT_GONE or (last.status == 200 and last.code == "upstream_timeout")


def _relayed(track: Track | None) -> int:
    return 0 if track is None else track.relayed.tokens()
