"""What an event costs that is translated, beside one that passes as it came."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EVENTS = 400


def translation(best_us: Callable[..., float]) -> Iterable[str]:
    """Yield the figures: read, translated, kept track of and encoded, with one event in each read."""
    from proxy import relay, sse
    from proxy.exchange import Exchange
    from proxy.providers.anthropic import Anthropic
    from proxy.providers.bedrock import Bedrock
    from proxy.providers.gemini import Gemini
    from proxy.providers.openai import OpenAI
    from proxy.upstreams.renewal import Credential

    exchange = Exchange("req_bench", "POST", "/v1/chat/completions", {}, "127.0.0.1", stream=True)
    exchange.body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    exchange.model = "m"

    def relayed(provider: Any, chunks: list[bytes]) -> None:
        track = relay.Track(exchange)
        answer: Any = _Answer(chunks)
        call = provider.open(exchange, dict(exchange.body))
        for piece in relay.streamed(answer, call, provider.native, track, lambda: None):
            if not isinstance(piece, bytes):
                sse.encode(relay.dumped(piece))

    bedrock = Bedrock(Bedrock.Config().load({"region": "eu-central-1"}))
    bedrock._key = Credential("key")
    passed = 0.0
    for name, provider, chunks in (
        ("openai", OpenAI(OpenAI.Config().load({})), [*_openai()]),
        ("openai, repaired", OpenAI(OpenAI.Config().load({"dialect": "groq"})), [*_openai()]),
        ("anthropic", Anthropic(Anthropic.Config().load({})), [*_anthropic()]),
        ("bedrock", bedrock, [*_bedrock()]),
        ("gemini", Gemini(Gemini.Config().load({})), [*_gemini()]),
    ):
        cost = best_us(lambda provider=provider, chunks=chunks: relayed(provider, chunks), 5) / len(chunks)
        passed = passed or cost
        yield f"{name}: {cost:.1f} µs an event, {cost - passed:.1f} more than one that passes (goal 40)"


class _Answer:
    """An upstream's answer that has come already."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.read = iter([*chunks, b""]).__next__


def _openai() -> Iterator[bytes]:
    for at in range(EVENTS):
        choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": "stop" if at == EVENTS - 1 else None}
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        yield b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _anthropic() -> Iterator[bytes]:
    yield _named("message_start", message={"usage": {"input_tokens": 1}})
    yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for _ in range(EVENTS):
        yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": " word"})
    yield _named("content_block_stop", index=0)
    yield _named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": EVENTS})
    yield _named("message_stop")


def _named(kind: str, **event: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **event})}\n\n".encode()


def _bedrock() -> Iterator[bytes]:
    yield _frame("messageStart", role="assistant")
    for _ in range(EVENTS):
        yield _frame("contentBlockDelta", contentBlockIndex=0, delta={"text": " word"})
    yield _frame("contentBlockStop", contentBlockIndex=0)
    yield _frame("messageStop", stopReason="end_turn")
    yield _frame("metadata", usage={"inputTokens": 1, "outputTokens": EVENTS, "totalTokens": EVENTS + 1})


def _frame(kind: str, **event: Any) -> bytes:
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += (
            struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        )
    payload = json.dumps(event).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    start = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return start + struct.pack("!I", zlib.crc32(start))


def _gemini() -> Iterator[bytes]:
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    for at in range(EVENTS):
        candidate = {"content": {"role": "model", "parts": [{"text": " word"}]}, "index": 0}
        candidate |= {"finishReason": "STOP"} if at == EVENTS - 1 else {}
        event = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}
        yield f"data: {json.dumps(event)}\r\n\r\n".encode()
