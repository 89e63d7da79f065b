"""Anthropic's answers, whole and streamed, as OpenAI's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from proxy import failures, sse
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers import chunks
from proxy.providers.base import Outgoing
from proxy.providers.translation import Seal, Translated

#: How often a turn that the upstream has paused goes on.
MOST_CONTINUATIONS = 8

#: The statuses of errors that come inside an answer; https://docs.anthropic.com/en/api/errors
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "timeout_error": 408,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


class AnthropicCall:
    """One exchange in the Messages API."""

    def __init__(self, exchange: Exchange, made: Translated, outgoing: Outgoing, seal: Seal) -> None:
        self.outgoing = outgoing
        self.dropped = made.dropped
        self.complete = False
        self._made = made
        self._seal = seal
        self._chunks = chunks.Chunks(exchange, made.legacy, made.json)
        self._parser = sse.Parser()
        self._whole: list[Event] = []
        self._block: dict[str, Any] = {}
        self._start = 0
        self._pieces: list[str] = []
        self._said: list[dict[str, Any]] = []
        self._carried: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._stop: str | None = None
        self._refusal: str | None = None
        self._usage: dict[str, Any] = {}
        self._used: list[dict[str, Any]] = []

    def frames(self, chunk: bytes) -> Iterable[sse.Event]:
        """Cut bytes into server-sent events."""
        return self._parser.feed(chunk)

    def events(self, payload: sse.Event) -> Iterable[Event]:
        """Turn one server-sent event into chunks; raise `UpstreamError` where it carries an error."""
        event = orjson.loads(payload.data)
        kind = event["type"]
        if kind == "content_block_delta":
            return self._delta(event["delta"])
        if kind == "content_block_start":
            return self._open(event["content_block"])
        if kind == "content_block_stop":
            return self._close()
        if kind == "message_start":
            self._usage = dict(event["message"].get("usage") or {})
        elif kind == "message_delta":
            self._stopped(event["delta"])
            # Cumulative; what is not repeated stays as it was.
            self._usage |= {name: count for name, count in (event.get("usage") or {}).items() if count is not None}
        elif kind == "message_stop":
            return self._end()
        elif kind == "error":
            raise _in_answer(event)
        return ()

    def completion(self, body: bytes) -> dict[str, Any]:
        """Turn a whole answer into a completion, as far as it goes; raise `UpstreamError` where it is none."""
        message = failures.parsed(body)
        if message.get("type") == "error":
            raise _in_answer(message)
        if "content" not in message or message.get("stop_reason") is None:
            raise failures.empty()
        for block in message["content"]:
            self._whole += self._open(block)
            self._whole += self._close()
        self._stopped(message)
        self._usage = message.get("usage") or {}
        self._whole += self._end()
        return chunks.folded(self._whole)

    def continuation(self) -> Outgoing | None:
        """Return the request by which a paused turn goes on, `None` where the answer has come to its end."""
        if self._stop != "pause_turn" or not self._goes_on():
            return None
        messages = [*self._made.request["messages"], {"role": "assistant", "content": self._said}]
        request = {**orjson.loads(self.outgoing.body), "messages": messages}
        self.complete, self._stop, self._parser = False, None, sse.Parser()
        return Outgoing(self.outgoing.url, orjson.dumps(request), self.outgoing.headers)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read the upstream's error answer."""
        error = failures.refusal(body).get("error")
        return _failure(status, headers, error if isinstance(error, dict) else {})

    def _open(self, block: dict[str, Any]) -> list[Event]:
        """Begin a content block. Blocks come one after the other."""
        self._block = block
        self._pieces = []
        self._start = self._chunks.length()
        kind = block["type"]
        if kind == "text":
            return self._text(block.get("text") or "")
        if kind == "thinking":
            return self._thought(block.get("thinking") or "")
        if kind == "tool_use" and block["name"] != self._made.form:
            id = self._seal.close(block["id"], self._carried)
            self._carried = []
            return self._chunks.call(id, block["name"])
        return []

    def _delta(self, delta: dict[str, Any]) -> list[Event]:
        kind = delta["type"]
        if kind == "text_delta":
            return self._text(delta["text"])
        if kind == "input_json_delta":
            return self._input(delta["partial_json"])
        if kind == "thinking_delta":
            return self._thought(delta["thinking"])
        if kind == "signature_delta":
            self._block["signature"] = self._block.get("signature", "") + delta["signature"]
        elif kind == "citations_delta":
            self._block["citations"] = [*(self._block.get("citations") or ()), delta["citation"]]
        return []

    def _text(self, text: str) -> list[Event]:
        self._pieces.append(text)
        return self._chunks.text(text)

    def _thought(self, text: str) -> list[Event]:
        self._pieces.append(text)
        return self._chunks.reasoning(text)

    def _input(self, text: str) -> list[Event]:
        self._pieces.append(text)
        if self._block["type"] != "tool_use":
            return []
        if self._block["name"] == self._made.form:
            return self._chunks.text(text)
        return self._chunks.arguments(text)

    def _close(self) -> list[Event]:
        """End the block: what it is as a whole is kept for the next turn, or to go on with."""
        block, events = self._block, list[Event]()
        kind = block.get("type")
        if kind == "text":
            block = {**block, "text": "".join(self._pieces)}
            end = self._chunks.length()
            for found in block.get("citations") or ():
                if found.get("url"):
                    title = found.get("title") or found["url"]
                    self._annotations.append(chunks.citation(found["url"], title, self._start, end))
        elif kind == "thinking":
            block = {**block, "thinking": "".join(self._pieces)}
            self._carried.append(block)
        elif kind == "redacted_thinking":
            self._carried.append(block)
        elif kind in ("tool_use", "server_tool_use"):
            if not any(self._pieces):
                events = self._input(orjson.dumps(block.get("input") or {}).decode())
            if kind == "server_tool_use":
                block = {**block, "input": orjson.loads("".join(self._pieces))}
        # An empty text is refused when it is sent back.
        if kind != "text" or not block["text"].isspace() and block["text"]:
            self._said.append(block)
        self._block = {}
        return events

    def _stopped(self, delta: dict[str, Any]) -> None:
        self._stop = delta.get("stop_reason") or self._stop
        details = delta.get("stop_details") or {}
        self._refusal = details.get("explanation") or self._refusal

    def _goes_on(self) -> bool:
        return len(self._used) <= MOST_CONTINUATIONS

    def _end(self) -> list[Event]:
        """End this answer; a turn that was only paused has no finish yet."""
        self.complete = True
        self._used.append(self._usage)
        if self._stop == "pause_turn" and self._goes_on():
            return []
        # Without any it was the form of the answer that was called as a tool.
        said = "stop" if self._stop == "tool_use" and not self._chunks.calls() else self._stop
        events = self._chunks.refusal(self._refusal) if self._refusal else []
        events += self._chunks.annotations(self._annotations)
        events += self._chunks.finish(chunks.finish_reason(said))
        return events + self._chunks.usage(_usage(self._used))


def _usage(used: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the answers of one turn used. Anthropic's input counts neither what was cached nor what is now."""

    def total(name: str, part: str | None = None) -> int:
        counts = [usage if part is None else usage.get(part) or {} for usage in used]
        return sum(count.get(name) or 0 for count in counts)

    cached, written = total("cache_read_input_tokens"), total("cache_creation_input_tokens")
    return chunks.usage(
        total("input_tokens") + cached + written,
        total("output_tokens"),
        cached=cached,
        cache_write=written,
        reasoning=total("thinking_tokens", "output_tokens_details"),
        searches=total("web_search_requests", "server_tool_use"),
    )


def _in_answer(event: dict[str, Any]) -> UpstreamError:
    error = event.get("error") or {}
    told = _failure(_STATUSES.get(str(error.get("type")), 500), {}, error)
    told.fallback = told.fallback or told.status >= 500
    return told


def _failure(status: int, headers: dict[str, str], error: dict[str, Any]) -> UpstreamError:
    message, code = str(error.get("message") or ""), None
    if status == 400:
        if "content filtering policy" in message:
            code = "content_filter"
        elif "credit balance" in message or "usage limits" in message:
            code = "insufficient_quota"
    return failures.failure(status, headers, message, code, error.get("type"))
