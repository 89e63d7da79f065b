"""Amazon Bedrock's Converse and ConverseStream."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from upstreams import chunked, head, json_answer

from dialects.said import CACHED, COMPLETION, PROMPT, Said, Speaker

_STOPS = {"stop": "end_turn", "length": "max_tokens", "filter": "guardrail_intervened"}
_USAGE = {
    "inputTokens": PROMPT - CACHED,
    "outputTokens": COMPLETION,
    "totalTokens": PROMPT + COMPLETION,
    "cacheReadInputTokens": CACHED,
    "cacheWriteInputTokens": 0,
}


def frame(payload: dict[str, Any], **headers: str) -> bytes:
    """Return a message of an event stream; `event_type="x"` becomes the header `:event-type`."""
    told = b""
    for name, value in headers.items():
        key = f":{name.replace('_', '-')}".encode()
        told += bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(told) + len(data), len(told))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + data
    return message + struct.pack(">I", zlib.crc32(message))


def _event(kind: str, payload: dict[str, Any]) -> bytes:
    return frame(payload, message_type="event", event_type=kind, content_type="application/json")


def _deltas(said: Said) -> Iterator[tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
    """Yield the start and the deltas of each content block."""
    if said.reasoning:
        yield None, [{"reasoningContent": {"text": said.reasoning}}, {"reasoningContent": {"signature": "c2ln"}}]
    if said.text:
        yield None, [{"text": said.text[at : at + 5]} for at in range(0, len(said.text), 5)]
    for at, (name, arguments) in enumerate(said.calls):
        pieces = [arguments[start : start + 4] for start in range(0, len(arguments), 4)]
        yield {"toolUse": {"toolUseId": f"tooluse_{at}", "name": name}}, [{"toolUse": {"input": p}} for p in pieces]


def _streamed(said: Said) -> bytes:
    frames = [_event("messageStart", {"role": "assistant"})]
    for index, (start, deltas) in enumerate(_deltas(said)):
        if start is not None:
            frames.append(_event("contentBlockStart", {"start": start, "contentBlockIndex": index}))
        frames += (_event("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}) for delta in deltas)
        frames.append(_event("contentBlockStop", {"contentBlockIndex": index}))
    if said.broken:
        broken = frame({"message": "Slow down"}, message_type="exception", exception_type="throttlingException")
        frames.append(broken)
    else:
        stop = "tool_use" if said.calls else _STOPS[said.end]
        frames.append(_event("messageStop", {"stopReason": stop}))
        frames.append(_event("metadata", {"usage": _USAGE, "metrics": {"latencyMs": 1}}))
    begin = head(200, content_type="application/vnd.amazon.eventstream", transfer_encoding="chunked")
    return begin + chunked(*frames)


def _whole(said: Said) -> bytes:
    if said.broken:
        return _error(503, "ServiceUnavailableException", "Overloaded")
    content: list[dict[str, Any]] = []
    if said.reasoning:
        content.append({"reasoningContent": {"reasoningText": {"text": said.reasoning, "signature": "c2ln"}}})
    if said.text:
        content.append({"text": said.text})
    for at, (name, arguments) in enumerate(said.calls):
        content.append({"toolUse": {"toolUseId": f"tooluse_{at}", "name": name, "input": json.loads(arguments)}})
    stop = "tool_use" if said.calls else _STOPS[said.end]
    message = {"role": "assistant", "content": content}
    return json_answer({"output": {"message": message}, "stopReason": stop, "usage": _USAGE, "metrics": {}})


def _error(status: int, kind: str, message: str, **headers: Any) -> bytes:
    return json_answer({"message": message}, status, x_amzn_errortype=f"{kind}:http://internal/", **headers)


SPEAKER = Speaker(
    _streamed,
    _whole,
    lambda: _error(429, "ThrottlingException", "Slow down", retry_after=7),
    lambda: _error(400, "ValidationException", "Input is too long for requested model."),
)
