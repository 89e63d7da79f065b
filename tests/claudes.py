"""What Anthropic's API says, written from its documents, and its SDK's types as judge of what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import anthropic.types
import pydantic
from upstreams import chunked, json_answer, streaming

_REQUEST: Any = pydantic.TypeAdapter(anthropic.types.message_create_params.MessageCreateParams)

USAGE = {"input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}


def judged(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request that the SDK's types know in every part; those of today have no sampling parameters."""
    known = {name: value for name, value in request.items() if name not in ("temperature", "top_p", "top_k")}
    assert _read(_REQUEST.validate_python(known)) == known  # keys that no type has would be gone
    return request


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _read(entry) for name, entry in value.items()}
    # Of an iterable only what is asked for is validated.
    return [_read(entry) for entry in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def text(said: str, *citations: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": said, "citations": list(citations) or None}


def thinking(said: str, signature: str = "sig+/=") -> dict[str, Any]:
    return {"type": "thinking", "thinking": said, "signature": signature}


def tool_use(name: str, id: str = "toolu_01", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def cited(url: str, title: str | None) -> dict[str, Any]:
    location = {"type": "web_search_result_location", "url": url, "title": title}
    return {**location, "cited_text": "…", "encrypted_index": "Eo8B"}


def message(
    *blocks: dict[str, Any], stop: str = "end_turn", usage: dict[str, Any] = USAGE, **more: Any
) -> dict[str, Any]:
    head = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-opus-4-8"}
    return {**head, "content": list(blocks), "stop_reason": stop, "stop_sequence": None, "usage": usage, **more}


def events(message: dict[str, Any], split: int = 3) -> Iterator[dict[str, Any]]:
    """Yield a message as Anthropic streams it, its texts in pieces of `split` characters."""
    start = {**message["usage"], "output_tokens": 1}
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": start}}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        opening, deltas = _spread(block, split)
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_details": message.get("stop_details")}
    yield {"type": "message_delta", "delta": delta, "usage": {**message["usage"], "input_tokens": None}}
    yield {"type": "message_stop"}


def _spread(block: dict[str, Any], split: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def cut(text: str) -> list[str]:
        return [text[at : at + split] for at in range(0, len(text), split)]

    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
        return {"type": "text", "text": ""}, [
            *deltas,
            *({"type": "citations_delta", "citation": citation} for citation in block["citations"] or ()),
        ]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
        return thinking("", ""), [*deltas, {"type": "signature_delta", "signature": block["signature"]}]
    if block["type"] in ("tool_use", "server_tool_use"):
        pieces = ["", *cut(json.dumps(block["input"]))] if block["input"] else [""]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block, []


def wired(events: Iterable[dict[str, Any]]) -> bytes:
    """Return events as bytes."""
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def answer(message: dict[str, Any]) -> Any:
    """Return a script that answers with a message, streamed or not, as it was asked for."""

    def script(request: Any) -> bytes:
        if request.json.get("stream"):
            return streaming() + chunked(wired(events(message)))
        return json_answer(message)

    return script


def error(kind: str, said: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_011"}
