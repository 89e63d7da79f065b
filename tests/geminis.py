"""What Gemini sends, in its recorded shapes, and Google's own types as the judge of what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.genai import types
from upstreams import Request, head, json_answer, stream_answer

USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 7,
    "totalTokenCount": 24,
}


def said(*parts: dict[str, Any], finish: str | None = None, usage: dict[str, Any] | None = None, **more: Any) -> dict:
    """Return a response with one candidate of these parts."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, **more}
    if finish is not None:
        candidate["finishReason"] = finish
    whole = {"candidates": [candidate], "modelVersion": "gemini-3-pro-001", "responseId": "aB3-x"}
    return whole | ({"usageMetadata": usage} if usage is not None else {})


def thought(text: str) -> dict[str, Any]:
    """Return a part that is a thought."""
    return {"text": text, "thought": True}


def text(said: str) -> dict[str, Any]:
    """Return a part of text."""
    return {"text": said}


def called(name: str, signature: str | None = None, id: str | None = None, **args: Any) -> dict[str, Any]:
    """Return a part that calls a function."""
    call = {"name": name, "args": args} | ({"id": id} if id else {})
    return {"functionCall": call} | ({"thoughtSignature": signature} if signature else {})


def whole(response: Any, status: int = 200) -> bytes:
    """Return an answer of `generateContent`."""
    return json_answer(response, status, content_type="application/json; charset=UTF-8")


def events(responses: Iterable[dict[str, Any]], end: bytes = b"\r\n\r\n") -> bytes:
    """Return the body of an answer of `streamGenerateContent?alt=sse`."""
    return b"".join(b"data: " + json.dumps(each).encode() + end for each in responses)


def streamed(*responses: dict[str, Any], then: bytes = b"") -> bytes:
    """Return a whole answer of `streamGenerateContent?alt=sse`."""
    return stream_answer(events(responses) + then)


def error(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    """Return Google's error object."""
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def judged(request: Request) -> dict[str, Any]:
    """Have Google's own types, which know no further keys, read a request; return it as it was."""
    body: dict[str, Any] = request.json
    known = {
        "contents": list[types.Content],
        "systemInstruction": types.Content,
        "generationConfig": types.GenerationConfig,
        "tools": list[types.Tool],
        "toolConfig": types.ToolConfig,
    }
    assert body.keys() <= known.keys()
    for key, value in body.items():
        for each in value if isinstance(value, list) else [value]:
            kind = known[key].__args__[0] if isinstance(value, list) else known[key]  # type: ignore[attr-defined]
            kind.model_validate(each)
    return body


__all__ = ["USAGE", "called", "error", "events", "head", "judged", "said", "streamed", "text", "thought", "whole"]
