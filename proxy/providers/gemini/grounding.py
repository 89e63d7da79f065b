"""What grounds a text of Gemini's, as annotations: offsets count bytes of UTF-8 in a part there, characters here."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from proxy.providers.chunks import citation


def grounded(parts: Iterable[list[str] | None], metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the citations of an answer; `parts` are its texts, each in pieces, and `None` for those not in it.

    A text that is not where it is said to be is looked for, and left out where it is not found.
    """
    texts = ["".join(part or ()) for part in parts]
    raw = [text.encode() for text in texts]
    starts = [0, *accumulate(map(len, raw))]
    content = b"".join(raw)
    sources = metadata.get("groundingChunks") or []
    found = []
    for support in metadata.get("groundingSupports") or ():
        segment = support.get("segment") or {}
        at = segment.get("partIndex") or 0
        span = _span(content, starts[at] if 0 <= at < len(texts) else 0, segment)
        if span is None:
            continue
        start = len(content[: span[0]].decode(errors="ignore"))
        end = start + len(content[span[0] : span[1]].decode(errors="ignore"))
        for number in support.get("groundingChunkIndices") or ():
            source = _source(sources[number]) if 0 <= number < len(sources) else None
            if source is not None:
                found.append(citation(source["uri"], str(source.get("title") or source["uri"]), start, end))
    return found


def _span(content: bytes, base: int, segment: dict[str, Any]) -> tuple[int, int] | None:
    """Return the bytes that a segment means."""
    start, end = segment.get("startIndex") or 0, segment.get("endIndex") or 0
    text = segment.get("text")
    said = text.encode() if isinstance(text, str) and text else None
    for first in (base, 0):
        span = first + start, first + end
        if 0 <= span[0] < span[1] <= len(content) and said in (None, content[slice(*span)]):
            return span
    if said is None:
        return None
    at = content.find(said)
    return None if at < 0 else (at, at + len(said))


def _source(chunk: dict[str, Any]) -> dict[str, Any] | None:
    for kind in ("web", "retrievedContext", "maps", "image"):
        source = chunk.get(kind)
        if source and isinstance(source.get("uri"), str):
            return dict(source)
    return None
