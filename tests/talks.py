"""What the tests of translating providers ask, and how they gather the answer."""

from __future__ import annotations

from typing import Any

import openai

from proxy.fold import Fold

PNG = "iVBORw0KGgoAAAANSUhEUg=="
PDF = "JVBERi0xLjQK"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": CITY}}
HI = [{"role": "user", "content": "Hi"}]
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY, "strict": True}}


def ask(client: openai.OpenAI, stream: bool = False, **body: Any) -> Any:
    """Return an answer, whole or as OpenAI's client gathers a streamed one."""
    body = {"messages": HI, **body}
    if not stream:
        return client.chat.completions.create(**body)
    with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as events:
        return events.get_final_completion()


def folded(call: Any, *chunks: bytes) -> dict[str, Any]:
    """Return the answer that a provider's call makes of the bytes of a complete stream."""
    fold = Fold()
    for chunk in (*chunks, b""):
        for payload in call.frames(chunk):
            for event in call.events(payload):
                fold.add(event)
    assert call.complete
    return fold.completion()
