"""Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from upstreams import json_answer, stream_answer

from dialects.said import CACHED, COMPLETION, PROMPT, REASONING, Said, Speaker

Block = dict[str, Any]
_STOPS = {"stop": "end_turn", "length": "max_tokens", "filter": "refusal"}


def _blocks(said: Said) -> Iterator[Block]:
    if said.reasoning:
        yield {"type": "thinking", "thinking": said.reasoning, "signature": "c2ln"}
    if said.cited:
        start, end = said.span
        query = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
        yield from (query, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []})
        yield {"type": "text", "text": said.text[:start]}
        citation = {"type": "web_search_result_location", "url": said.cited[1], "title": "A title", "cited_text": "x"}
        yield {"type": "text", "text": said.text[start:end], "citations": [citation]}
        yield {"type": "text", "text": said.text[end:]}
    elif said.text:
        yield {"type": "text", "text": said.text}
    for at, (name, arguments) in enumerate(said.calls):
        yield {"type": "tool_use", "id": f"toolu_{at}", "name": name, "input": json.loads(arguments)}


def _deltas(block: Block) -> tuple[Block, list[Block]]:
    """Return a block as it begins, and what is said in it piece by piece."""
    kind = block["type"]
    if kind == "text":
        text = block["text"]
        deltas = [{"type": "text_delta", "text": text[at : at + 5]} for at in range(0, len(text), 5)]
        cited = [{"type": "citations_delta", "citation": citation} for citation in block.get("citations") or ()]
        return {"type": "text", "text": ""}, cited + deltas
    if kind == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [thought, signed]
    if kind in ("tool_use", "server_tool_use"):
        said = json.dumps(block["input"])
        pieces = ["", *(said[at : at + 4] for at in range(0, len(said), 4))]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block, []


def _events(said: Said) -> Iterator[Block]:
    usage = {"input_tokens": PROMPT - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0}
    head = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
    }
    yield {"type": "message_start", "message": {**head, "usage": {**usage, "output_tokens": 1}}}
    yield {"type": "ping"}
    for index, block in enumerate(_blocks(said)):
        opening, deltas = _deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        if said.broken:
            yield {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            return
        yield {"type": "content_block_stop", "index": index}
    stop = "tool_use" if said.calls else _STOPS[said.end]
    delta = {"stop_reason": stop, "stop_sequence": None, "stop_details": _details(said)}
    yield {"type": "message_delta", "delta": delta, "usage": _used(said)}
    yield {"type": "unheard_of"}
    yield {"type": "message_stop"}


def _details(said: Said) -> Block | None:
    return {"type": "refusal", "explanation": said.refusal} if said.refusal else None


def _used(said: Said) -> Block:
    return {"output_tokens": COMPLETION, "output_tokens_details": {"thinking_tokens": REASONING * bool(said.reasoning)}}


def _streamed(said: Said) -> bytes:
    body = b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + json.dumps(event).encode() + b"\n\n"
        for event in _events(said)
    )
    return stream_answer(body)


def _whole(said: Said) -> bytes:
    if said.broken:
        return _error(529, "overloaded_error", "Overloaded")
    usage = {"input_tokens": PROMPT - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0}
    stop = "tool_use" if said.calls else _STOPS[said.end]
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": stop}
    head["stop_details"] = _details(said)
    return json_answer({**head, "content": list(_blocks(said)), "usage": {**usage, **_used(said)}})


def _error(status: int, kind: str, message: str, **headers: Any) -> bytes:
    told = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_x"}
    return json_answer(told, status, **headers)


SPEAKER = Speaker(
    _streamed,
    _whole,
    lambda: _error(429, "rate_limit_error", "Slow down", retry_after=7),
    lambda: _error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
)
