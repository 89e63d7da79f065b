"""Upstreams of every kind, giving the same answers: each in its own shapes, as they were recorded."""

from __future__ import annotations

from dialects import anthropics, azures, bedrocks, googles, openais
from dialects.said import Said, Speaker

#: By the name of the provider, or of the dialect of the one for OpenAI's wire.
SPEAKERS: dict[str, Speaker] = {
    **openais.SPEAKERS,
    "azure": azures.SPEAKER,
    "anthropic": anthropics.SPEAKER,
    "gemini": googles.SPEAKER,
    "vertex": googles.SPEAKER,
    "vertex-claude": anthropics.SPEAKER,
    "bedrock": bedrocks.SPEAKER,
}

__all__ = ["SPEAKERS", "Said", "Speaker"]
