"""How Claude's generations differ, by the names of the models: thinking with a budget, structured output by a tool."""

from __future__ import annotations

import re

from proxy.providers.translation import ToolCall, ToolResult, Turn

#: Models up to 4.5 think as far as a budget goes, those after them as they see fit.
_BUDGETED = re.compile(r"claude-(?:instant|v?[23]\b|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?!-?\d(?!\d{7})))")
#: Models up to 4.0 have no structured output of their own.
_UNSTRUCTURED = re.compile(r"claude-(?:instant|v?[23]\b|(?:opus|sonnet|haiku)-4(?:-0)?(?!-?\d(?!\d{7})))")

#: Tokens of thinking for each `reasoning_effort`, where there is a budget. The least that is allowed is 1,024.
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_LEAST_BUDGET = 1024
#: The words for efforts that are not called as OpenAI calls them.
EFFORTS = {"minimal": "low"}


def budgeted(model: str) -> bool:
    """Tell whether a model thinks by a budget of tokens."""
    return _BUDGETED.search(model) is not None


def structured(model: str) -> bool:
    """Tell whether a model takes a JSON schema for its answer; others are made to call a tool instead."""
    return _UNSTRUCTURED.search(model) is None


def budget(effort: str, most_tokens: int) -> int | None:
    """Return the budget for an effort, less than all tokens of the answer; `None` where these leave no room for it."""
    tokens = min(BUDGETS[effort], most_tokens - 1)
    return tokens if tokens >= _LEAST_BUDGET else None


def may_think(turns: list[Turn]) -> bool:
    """Tell whether a model with a budget may think in what comes next.

    It must find its thoughts before the calls whose results it is sent, and a conversation that was begun with another
    model has none.
    """
    for turn in reversed(turns):
        if turn.role == "assistant":
            calls = [piece for piece in turn.pieces if isinstance(piece, ToolCall)]
            return not calls or calls[0].carried is not None
        if not any(isinstance(piece, ToolResult) for piece in turn.pieces):
            break
    return True
