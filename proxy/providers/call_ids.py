"""Ids of tool calls on OpenAI's wire: those from elsewhere made short enough, thoughts that travel in one's own."""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.translation import Seal

#: OpenAI refuses longer ids. What is sealed is always longer.
LONGEST = 40
SHORT = re.compile(r"(?s).{1,40}")
ANY = re.compile(r"(?s).*")


def own_ids(messages: list[dict[str, Any]], seal: Seal) -> list[dict[str, Any]]:
    """Return messages with the ids that `seal` opens, of calls and results alike, and with what was carried in them."""
    return [
        _opened(message, seal) if any(len(id) > LONGEST for id in _ids(message)) else message for message in messages
    ]


def _ids(message: dict[str, Any]) -> list[str]:
    if message["role"] == "tool":
        return [message["tool_call_id"]]
    return [call["id"] for call in message.get("tool_calls") or ()]


def _opened(message: dict[str, Any], seal: Seal) -> dict[str, Any]:
    if message["role"] == "tool":
        return {**message, "tool_call_id": seal.open(message["tool_call_id"])[0]}
    calls = [(call, *seal.open(call["id"])) for call in message["tool_calls"]]
    details = [detail for _, _, carried in calls for detail in carried or ()]
    opened = {**message, "tool_calls": [{**call, "id": id} for call, id, _ in calls]}
    return {"reasoning_details": details, **opened} if details else opened


class ReasoningDetails:
    """OpenRouter's `reasoning_details` of one choice, whose blocks come in pieces and must go back whole."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def add(self, said: Any) -> None:
        """Take in the details of one event."""
        for piece in said if isinstance(said, list) else ():
            block = self._blocks[-1] if self._blocks else {}
            same = all(piece.get(key) == block.get(key) for key in ("type", "index"))
            if not block or not same or block.get("signature") or piece.get("data"):
                self._blocks.append({**piece})
                continue
            for key, value in piece.items():
                if key in ("text", "summary") and value and block.get(key):
                    block[key] += value
                elif value is not None:
                    block[key] = value

    def take(self) -> list[dict[str, Any]]:
        """Return what must go back with the next call, once: nothing where none of it is signed or encrypted."""
        blocks, self._blocks = self._blocks, []
        return blocks if any(block.get("signature") or block.get("data") for block in blocks) else []
