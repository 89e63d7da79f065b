"""Requests and answers to show: each request is one that the gateway takes."""

from __future__ import annotations

from typing import Any

MODEL = "assistant"

_HELLO = [{"role": "user", "content": "Say hello."}]
_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
_DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _request(summary: str, messages: list[dict[str, Any]], **parameters: Any) -> dict[str, Any]:
    return {"summary": summary, "value": {"model": MODEL, "messages": messages, **parameters}}


REQUESTS: dict[str, dict[str, Any]] = {
    "short": _request("As short as can be", _HELLO),
    "streamed": _request("Streamed, with the tokens used", _HELLO, stream=True, stream_options={"include_usage": True}),
    "conversation": _request(
        "Several turns, with bounds",
        [
            {"role": "system", "content": "You answer in one sentence."},
            {"role": "user", "content": "What is a gateway?"},
            {"role": "assistant", "content": "A place where all traffic passes."},
            {"role": "user", "content": "And a lock gate?"},
        ],
        temperature=0.2,
        max_completion_tokens=200,
    ),
    "image": _request(
        "An image",
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What colour is this?"},
                    {"type": "image_url", "image_url": {"url": _DOT, "detail": "low"}},
                ],
            }
        ],
    ),
    "tools": _request(
        "A function that the model may call",
        [{"role": "user", "content": "How is the weather in Oslo?"}],
        tools=[_WEATHER],
        tool_choice="auto",
    ),
    "tool_result": _request(
        "What the function gave",
        [
            {"role": "user", "content": "How is the weather in Oslo?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees, rain"},
        ],
        tools=[_WEATHER],
    ),
    "schema": _request(
        "JSON that fits a schema",
        [{"role": "user", "content": "Name a city and its country."}],
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "place",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
                    "required": ["city", "country"],
                    "additionalProperties": False,
                },
            },
        },
    ),
    "search": _request(
        "With web search, where it is granted",
        [{"role": "user", "content": "What happened in Oslo today?"}],
        web_search_options={
            "search_context_size": "low",
            "user_location": {"type": "approximate", "approximate": {"country": "NO", "city": "Oslo"}},
        },
    ),
}

_USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
_BASE: dict[str, Any] = {"id": "chatcmpl-8f14e45f", "created": 1767225600, "model": MODEL}

COMPLETION: dict[str, Any] = {
    **_BASE,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**_BASE, "object": "chat.completion.chunk", "choices": [choice]}


CHUNKS: list[dict[str, Any]] = [
    _chunk({"role": "assistant", "content": "", "refusal": None}),
    _chunk({"content": "Hello"}),
    _chunk({"content": " there."}),
    _chunk({}, "stop"),
    {**_BASE, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE},
]

MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 1767225600, "owned_by": "lockgate"}],
}

REQUEST_PAGE: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "req_1f3870be274f6c49b3e31a0c6728957f",
            "object": "request",
            "created": 1767225600,
            "path": "/v1/chat/completions",
            "model": MODEL,
            "status": 200,
            "state": "ended",
            "error": None,
            "streamed": True,
            "user_agent": "OpenAI/Python 3.54.0",
            "usage": {**_USAGE, "cached_tokens": 0, "reasoning_tokens": None},
            "cost": 120,
            "estimated": False,
            "duration": 0.84,
        }
    ],
    "has_more": False,
    "next_cursor": None,
    "source": "ledger",
}
