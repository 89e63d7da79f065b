"""Azure OpenAI: OpenAI's events with the marks of its content filter."""

from __future__ import annotations

from typing import Any

from upstreams import json_answer

from dialects.openais import OVERFLOW, Events, is_whole, last, parts, speaker
from dialects.said import Said, Speaker

SAFE = {"hate": {"filtered": False, "severity": "safe"}}


def azure(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """A first event without choices or names, results of the filter on every choice and, late, on their own."""
    for choice, _ in parts(events):
        choice["content_filter_results"] = SAFE
    if is_whole(events):
        return last([{**events[0], "prompt_filter_results": [{"prompt_index": 0}]}], usage)
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [SAFE]}
    late = {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": {"start": 1}}
    return last([first, *events[:-1], {**events[0], "choices": [late]}, events[-1]], usage)


BLOCKED = json_answer(
    {
        "error": {
            "message": "The response was filtered due to the prompt triggering Azure's content management policy.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE},
        }
    },
    400,
)
NO_DEPLOYMENT = json_answer({"error": {"code": "DeploymentNotFound", "message": "No such deployment."}}, 404)


def _overflown() -> bytes:
    told = {"message": OVERFLOW, "type": "invalid_request_error", "param": "messages"}
    return json_answer({"error": {**told, "code": "context_length_exceeded"}}, 400)


_AS_OPENAI = speaker(azure)
SPEAKER = Speaker(_AS_OPENAI.streamed, _AS_OPENAI.whole, _AS_OPENAI.limited, _overflown)
