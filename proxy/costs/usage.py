"""What an answer used: read from what the upstream says, else estimated from what was relayed."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.costs import estimates
from proxy.exchange import Event, Usage

#: More tokens than any answer can have: a larger number is no count.
MOST = 10**9


def usage_of(said: dict[str, Any]) -> Usage | None:
    """Read OpenAI's usage object; `None` where it counts nothing, or its counts are no numbers of tokens.

    What else is missing or wrong in it counts as none, and no part is more than its whole.
    """
    prompt, completion = _count(said, "prompt_tokens"), _count(said, "completion_tokens")
    if prompt is None or completion is None or not said.keys() & {"prompt_tokens", "completion_tokens"}:
        return None
    prompts, completions = _part(said, "prompt_tokens_details"), _part(said, "completion_tokens_details")
    reasoning = _count(completions, "reasoning_tokens") or 0
    if reasoning and _count(said, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning  # xAI counts them beside the completion's
    cached = _count(prompts, "cached_tokens") or _count(said, "prompt_cache_hit_tokens") or 0  # DeepSeek's name
    audio_in = min(_count(prompts, "audio_tokens") or 0, prompt)
    audio_out = min(_count(completions, "audio_tokens") or 0, completion)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(_count(prompts, "cache_write_tokens") or 0, prompt),
        reasoning_tokens=min(reasoning, completion),
        audio_tokens=audio_in + audio_out,
        audio_completion_tokens=audio_out,
        searches=_count(said, "num_search_queries") or 0,  # Perplexity's name
    )


class Relayed:
    """The size of what was relayed, from which the completion's tokens are estimated where the upstream counts none.

    Events that pass unparsed are only measured; one of them is kept, and tells in the end how much of an event is text.
    """

    __slots__ = ("_events", "_finishing", "_sample", "_size", "_text")

    def __init__(self) -> None:
        self._events = 0
        self._size = 0
        self._text = 0
        self._sample = b""
        self._finishing: list[bytes] = []

    def raw(self, chunk: bytes) -> None:
        """Measure a chunk of canonical events."""
        self._size += len(chunk)
        self._events += chunk.count(b"\n\n")
        self._sample = chunk

    def finishing(self, chunk: bytes) -> None:
        """Keep a chunk in which a choice finishes: its events are like no others, and there are few."""
        self._finishing.append(chunk)

    def event(self, event: Event) -> None:
        """Measure a parsed event, or a whole completion."""
        for choice in event.get("choices") or ():
            said = choice.get("delta") or choice.get("message")
            if said:
                self._text += estimates.delta_bytes(said)

    def tokens(self) -> int:
        """Estimate the tokens of the completion so far."""
        text, events = self._text, self._events
        # OpenAI pads events so that their size tells nothing; there an event is a token.
        if events and b'"obfuscation"' not in self._sample:
            sampled, said = _text_of(self._sample)
            text += max(0, self._size - (len(self._sample) - said) * events // sampled)
        for chunk in self._finishing:
            seen, said = _text_of(chunk)
            events += seen - 1
            text += said
        return estimates.completion_tokens(text, events)


def _text_of(chunk: bytes) -> tuple[int, int]:
    """Return how many events a canonical chunk has, and the bytes of text in them."""
    events = chunk.split(b"\n\n")[:-1]
    try:
        choices = [choice for event in events for choice in orjson.loads(event[6:])["choices"]]
        return len(events), sum(estimates.delta_bytes(choice.get("delta") or {}) for choice in choices)
    except (ValueError, TypeError, AttributeError):  # nobody has looked into it before
        return len(events), 0


def _part(said: dict[str, Any], key: str) -> dict[str, Any]:
    part = said.get(key)
    return part if isinstance(part, dict) else {}


def _count(said: dict[str, Any], key: str) -> int | None:
    """Return a number of tokens, 0 where there is none, and `None` where what is there is no such number."""
    count = said.get(key)
    if count is None:
        return 0
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    return count if type(count) is int and 0 <= count <= MOST else None
