"""OpenAI, and upstreams that nearly speak as it does: the same events, bent as each of them bends them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from upstreams import json_answer, sse, stream_answer

from dialects.said import REASONING, Said, Speaker

Events = list[dict[str, Any]]
Bend = Callable[[Events, dict[str, Any], Said], Events]
"""Bends events, or a whole answer as its only one; gets the usage, which it must put into them."""

OVERFLOW = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."


def parts(events: Events) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the choices with what is said in them."""
    return [
        (choice, choice["delta"] if "delta" in choice else choice["message"])
        for event in events
        for choice in event.get("choices") or ()
    ]


def is_whole(events: Events) -> bool:
    """Tell whether this is a whole answer."""
    return len(events) == 1 and "message" in events[0]["choices"][0]


def last(events: Events, usage: dict[str, Any]) -> Events:
    """Tell the usage as OpenAI does."""
    if is_whole(events):
        return [{**events[0], "usage": usage}]
    return [*events, {**events[-1], "choices": [], "usage": usage}]


def openai(events: Events, usage: dict[str, Any], said: Said) -> Events:
    return last(events, usage)


def vllm(events: Events, usage: dict[str, Any], said: Said) -> Events:
    for event in events:
        event |= {"prompt_logprobs": None, "kv_transfer_params": None}
    for choice, _ in parts(events):
        choice |= {"stop_reason": None, "token_ids": None}
    events = last(events, usage)
    if not events[-1]["choices"]:
        events[-1]["choices"] = None
    return events


def ollama(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """All calls in one event with index 0, arguments as objects, and "stop" after them."""
    if said.calls:
        calls = [
            {"index": 0, "id": f"call_{at}", "function": {"name": name, "arguments": json.loads(arguments)}}
            for at, (name, arguments) in enumerate(said.calls)
        ]
        for _, message in parts(events):
            message.pop("tool_calls", None)
        parts(events)[0 if is_whole(events) else -2][1]["tool_calls"] = calls
        parts(events)[-1][0]["finish_reason"] = "stop"
    for _, message in parts(events):
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
    return last(events, usage)


def llama(events: Events, usage: dict[str, Any], said: Said) -> Events:
    events = last(events, usage)
    events[-1]["timings"] = {"predicted_ms": 1.5}
    return events


def tgi(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """A call that is no list and has no id; "eos_token"."""
    for choice, message in parts(events):
        if len(said.calls) == 1 and message.get("tool_calls"):
            [call] = message["tool_calls"]
            message["tool_calls"] = {**call, "id": ""}
        if choice["finish_reason"] == "stop":
            choice["finish_reason"] = "eos_token"
    return last(events, usage)


def lmstudio(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """Thoughts within the content, and no role."""
    thinking = [message for _, message in parts(events) if message.get("reasoning_content")]
    for message in thinking:
        opening = "<think>" if message is thinking[0] else ""
        closing = "\n</think>\n\n" if message is thinking[-1] else ""
        message["content"] = opening + message.pop("reasoning_content") + closing + (message.get("content") or "")
    for choice, message in parts(events):
        if "delta" in choice:
            message.pop("role", None)
    return last(events, usage)


def mistral(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """Contents as lists, short ids, "" beside calls, a reason of its own for length; usage with the finish."""
    for choice, message in parts(events):
        if message.get("reasoning_content"):
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": message.pop("reasoning_content")}]}
            text = [{"type": "text", "text": message["content"]}] if message.get("content") else []
            message["content"] = [thinking, *text]
        for call in message.get("tool_calls") or ():
            if call.get("id"):
                call["id"] = call["id"].replace("_", "") + "abcd"
            message["content"] = message.get("content") or ""
        if choice["finish_reason"] == "length":
            choice["finish_reason"] = "model_length"
    return [*events[:-1], {**events[-1], "usage": usage}]


def groq(events: Events, usage: dict[str, Any], said: Said) -> Events:
    for _, message in parts(events):
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
    if is_whole(events):
        return last(events, usage)
    return [{**events[0], "x_groq": {"id": "req_x"}}, *events[1:-1], {**events[-1], "x_groq": {"usage": usage}}]


def deepseek(events: Events, usage: dict[str, Any], said: Said) -> Events:
    usage = {**usage, "prompt_cache_hit_tokens": usage["prompt_tokens_details"]["cached_tokens"]}
    return last(events, usage)


def xai(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """Empty reasons while it goes on and after calls; reasoning beside the completion's tokens."""
    for choice, _ in parts(events):
        if choice["finish_reason"] in (None, "tool_calls"):
            choice["finish_reason"] = ""
    if said.reasoning:
        usage = {**usage, "completion_tokens": usage["completion_tokens"] - REASONING}
    return last(events, usage)


def perplexity(events: Events, usage: dict[str, Any], said: Said) -> Events:
    """The whole message beside each delta, usage on every event, sources at the top."""
    text = ""
    for event in events:
        event |= {"usage": usage, "citations": [said.cited[1]] if said.cited else []}
        if said.cited:
            event["search_results"] = [{"url": said.cited[1], "title": "A title"}]
    for choice, message in parts(events):
        message.pop("annotations", None)
        if "delta" in choice:
            text += message.get("content") or ""
            choice["message"] = {"role": "assistant", "content": text}
            message["role"] = "assistant"
    return events


def openrouter(events: Events, usage: dict[str, Any], said: Said) -> Events:
    for choice, message in parts(events):
        choice["native_finish_reason"] = choice["finish_reason"]
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
            message["reasoning_details"] = [{"type": "reasoning.text", "text": message["reasoning"]}]
        for call in message.get("tool_calls") or ():
            # Some of the models behind it tell these again with every piece.
            call |= {"id": call.get("id") or f"call_{call['index']}", "type": "function"}
    return last(events, {**usage, "cost": 0.001})


def speaker(
    bend: Bend, *, flat: bool = False, done: bool = True, noise: bytes = b"", int_codes: bool = False
) -> Speaker:
    """Return how an upstream speaks that bends events so; `flat` errors are no objects in an object."""

    def streamed(said: Said) -> bytes:
        events = bend(copy.deepcopy(said.events()), said.usage(), said)
        if said.broken:
            error = {"error": {"message": "boom", "type": "server_error", "code": 500}}
            return stream_answer(sse([*events[:3], error], done=False))
        return stream_answer(sse(events, done=done).replace(b"\n\n", b"\n\n" + noise))

    def whole(said: Said) -> bytes:
        if said.broken:
            return json_answer(error(500, "boom", "server_error"), 500)
        [made] = bend([copy.deepcopy(said.completion())], said.usage(), said)
        if done is False and said.calls and isinstance(made["choices"][0]["message"]["tool_calls"], dict):
            made["choices"][0]["message"]["tool_calls"] = [made["choices"][0]["message"]["tool_calls"]]
        return json_answer(made)

    def error(status: int, message: str, code: str | None) -> dict[str, Any]:
        told: dict[str, Any] = {"message": message, "type": "invalid_request_error", "param": None}
        told["code"] = status if int_codes else code
        return {"object": "error", **told} if flat else {"error": told}

    return Speaker(
        streamed,
        whole,
        lambda: json_answer(error(429, "Slow down", "rate_limit_exceeded"), 429, retry_after=7),
        lambda: json_answer(error(400, OVERFLOW, None), 400),
    )


SPEAKERS: dict[str, Speaker] = {
    "openai": speaker(openai),
    "vllm": speaker(vllm, int_codes=True),
    "ollama": speaker(ollama),
    "llama.cpp": speaker(llama, int_codes=True),
    "tgi": speaker(tgi, done=False),
    "lmstudio": speaker(lmstudio),
    "mistral": speaker(mistral, flat=True),
    "groq": speaker(groq),
    "deepseek": speaker(deepseek, noise=b": keep-alive\n\n"),
    "xai": speaker(xai),
    "perplexity": speaker(perplexity),
    "openrouter": speaker(openrouter, noise=b": OPENROUTER PROCESSING\n\n", int_codes=True),
}
