"""Gemini's generateContent, also as Vertex AI serves it."""

from __future__ import annotations

import json
from typing import Any

import geminis
from geminis import called, error, said, text, thought

from dialects.said import CACHED, COMPLETION, PROMPT, REASONING, Said, Speaker

_FINISHES = {"stop": "STOP", "length": "MAX_TOKENS", "filter": "SAFETY"}


def _usage(answer: Said) -> dict[str, Any]:
    thoughts = REASONING if answer.reasoning else 0
    told = {"promptTokenCount": PROMPT, "cachedContentTokenCount": CACHED, "totalTokenCount": PROMPT + COMPLETION}
    told["candidatesTokenCount"] = COMPLETION - thoughts
    return told | ({"thoughtsTokenCount": thoughts} if thoughts else {})


def _parts(answer: Said) -> list[dict[str, Any]]:
    parts = [thought(answer.reasoning)] if answer.reasoning else []
    if answer.text:
        parts.append(text(answer.text))
    for at, (name, arguments) in enumerate(answer.calls):
        parts.append(called(name, "c2ln" if at == 0 else None, **json.loads(arguments)))
    return parts


def _grounding(answer: Said) -> dict[str, Any]:
    if not answer.cited:
        return {}
    start, end = (len(answer.text[:at].encode()) for at in answer.span)
    segment = {"startIndex": start, "endIndex": end, "text": answer.cited[0]}
    chunks = [{"web": {"uri": answer.cited[1], "title": "A title"}}]
    supports = [{"segment": segment, "groundingChunkIndices": [0]}]
    return {"groundingMetadata": {"groundingChunks": chunks, "groundingSupports": supports}}


def _streamed(answer: Said) -> bytes:
    parts = _parts(answer)
    if answer.broken:
        body = geminis.events([said(parts[0])])
        return geminis.streamed(
            said(parts[0]), then=body + json.dumps(error(503, "UNAVAILABLE", "Overloaded")).encode()
        )
    responses = [said(part) for part in parts]
    finish = said(finish=_FINISHES[answer.end], usage=_usage(answer), **_grounding(answer))
    return geminis.streamed(*responses, finish)


def _whole(answer: Said) -> bytes:
    if answer.broken:
        return geminis.whole(error(503, "UNAVAILABLE", "Overloaded"), 503)
    finish = _FINISHES[answer.end]
    return geminis.whole(said(*_parts(answer), finish=finish, usage=_usage(answer), **_grounding(answer)))


def _limited() -> bytes:
    again = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    return geminis.whole(error(429, "RESOURCE_EXHAUSTED", "Slow down", again), 429)


def _overflown() -> bytes:
    message = "The input token count (210000) exceeds the maximum number of tokens allowed (200000)."
    return geminis.whole(error(400, "INVALID_ARGUMENT", message), 400)


SPEAKER = Speaker(_streamed, _whole, _limited, _overflown)
