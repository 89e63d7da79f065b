"""Bedrock's answers, whole and streamed, as OpenAI's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from proxy import failures
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers import chunks
from proxy.providers.base import Outgoing
from proxy.providers.translation import Seal, Translated

#: The statuses of exceptions, which come in answers without one, and instead of one that says little.
#: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html#API_runtime_ConverseStream_Errors
_STATUSES = {
    "ValidationException": 400,
    "ServiceQuotaExceededException": 402,
    "AccessDeniedException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ExpiredTokenException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 502,
    "ModelStreamErrorException": 502,
    "InternalServerException": 502,
    "ThrottlingException": 429,
    "ModelNotReadyException": 503,
    "ServiceUnavailableException": 503,
}


class Message(NamedTuple):
    """One message of an event stream: its headers, and its payload, which is JSON unless it is an error."""

    headers: dict[str, Any]
    payload: bytes


class BedrockCall:
    """One exchange by Converse or ConverseStream.

    A stream's finish comes before its usage, which is its end; one that ends between the two is whole all the same.
    """

    def __init__(
        self,
        exchange: Exchange,
        made: Translated,
        outgoing: Outgoing,
        seal: Seal,
        decode: Callable[[bytes], Iterable[Message]],
    ) -> None:
        """`decode` cuts bytes as they come into messages; raises `ValueError` for what is none, or ends half-way."""
        self.outgoing = outgoing
        self.dropped = made.dropped
        self.complete = False
        self._form = made.form
        self._seal = seal
        self._chunks = chunks.Chunks(exchange, made.legacy, made.json)
        self._decode = decode
        self._stopped = False
        self._open: int | None = None
        self._start = 0
        self._tool: dict[str, Any] | None = None
        self._arguments = False
        self._thought: dict[str, Any] = {}
        self._cited: list[dict[str, Any]] = []
        self._carried: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def frames(self, chunk: bytes) -> Iterable[Message]:
        """Cut bytes into messages; raise `ValueError` where a checksum or a length is wrong, or a message is cut."""
        messages = self._decode(chunk)
        if not chunk:
            self.complete = self.complete or self._stopped
        return messages

    def events(self, payload: Message) -> Iterable[Event]:
        """Turn one message into chunks; raise `UpstreamError` where it is an exception."""
        headers = payload.headers
        kind = headers.get(":message-type")
        if kind == "exception":
            name = str(headers.get(":exception-type"))
            raise _in_answer(name[:1].upper() + name[1:], _message(payload.payload))
        if kind == "error":
            raise _in_answer(str(headers.get(":error-code")), str(headers.get(":error-message") or ""))
        event_type = headers.get(":event-type")
        event = orjson.loads(payload.payload)
        if event_type == "contentBlockDelta":
            return [*self._begin(event.get("contentBlockIndex", 0)), *self._delta(event["delta"])]
        if event_type == "contentBlockStart":
            return [*self._begin(event.get("contentBlockIndex", 0)), *self._started(event["start"])]
        if event_type == "contentBlockStop":
            return self._close()
        if event_type == "messageStop":
            self._stopped = True
            return self._finish(event.get("stopReason"))
        if event_type == "metadata":
            self.complete = True
            return self._chunks.usage(_usage(event.get("usage") or {}))
        return ()

    def completion(self, body: bytes) -> dict[str, Any]:
        """Turn a whole answer into a completion; raise `UpstreamError` where it is none."""
        answer = failures.parsed(body)
        message = (answer.get("output") or {}).get("message")
        if message is None or answer.get("stopReason") is None:
            raise failures.empty()
        events: list[Event] = []
        for at, block in enumerate(message["content"]):
            events += self._begin(at)
            events += self._block(block)
            events += self._close()
        events += self._finish(answer["stopReason"])
        events += self._chunks.usage(_usage(answer.get("usage") or {}))
        return chunks.folded(events)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read the upstream's error answer."""
        said = failures.refusal(body)
        name = headers.get("x-amzn-errortype") or said.get("__type") or said.get("code") or ""
        return _failure(str(name).partition(":")[0].rpartition("#")[2], status, headers, _message(body))

    def _begin(self, index: int) -> list[Event]:
        """Begin a content block, if it is another; most are not announced."""
        if index == self._open:
            return []
        events = self._close()
        self._open, self._start = index, self._chunks.length()
        return events

    def _started(self, start: dict[str, Any]) -> list[Event]:
        tool = start.get("toolUse")
        # The upstream's own searches are of no concern to the client.
        if tool is None or tool.get("type") == "server_tool_use":
            return []
        self._tool, self._arguments = tool, False
        if tool["name"] == self._form:
            return []
        id = self._seal.close(tool["toolUseId"], self._carried)
        self._carried = []
        return self._chunks.call(id, tool["name"])

    def _delta(self, delta: dict[str, Any]) -> list[Event]:
        if "text" in delta:
            return self._chunks.text(delta["text"])
        if "toolUse" in delta:
            return self._input(delta["toolUse"]["input"])
        if "reasoningContent" in delta:
            return self._thinks(delta["reasoningContent"])
        if "citation" in delta:
            self._cited.append(delta["citation"])
        return []

    def _input(self, text: str) -> list[Event]:
        if self._tool is None:
            return []
        self._arguments = self._arguments or bool(text)
        return self._chunks.text(text) if self._tool["name"] == self._form else self._chunks.arguments(text)

    def _thinks(self, said: dict[str, Any]) -> list[Event]:
        """Take in what the model thinks; its parts come in pieces."""
        for name in ("text", "signature", "redactedContent"):
            if said.get(name):
                self._thought[name] = self._thought.get(name, "") + said[name]
        return self._chunks.reasoning(said.get("text") or "")

    def _block(self, block: dict[str, Any]) -> list[Event]:
        """Take in a whole content block."""
        if "toolUse" in block:
            events = self._started(block)
            return events + self._input(orjson.dumps(block["toolUse"].get("input") or {}).decode())
        if "reasoningContent" in block:
            reasoning = block["reasoningContent"]
            return self._thinks(reasoning.get("reasoningText") or reasoning)
        if "citationsContent" in block:
            cited = block["citationsContent"]
            self._cited += cited.get("citations") or ()
            return [event for part in cited.get("content") or () for event in self._delta(part)]
        return self._delta({"text": block["text"]}) if "text" in block else []

    def _close(self) -> list[Event]:
        """End the content block that is open."""
        events = self._input("{}") if self._tool is not None and not self._arguments else []
        self._tool = self._open = None
        for citation in self._cited:
            web = (citation.get("location") or {}).get("web") or {}
            if web.get("url"):
                title = citation.get("title") or web["url"]
                annotation = chunks.citation(web["url"], title, self._start, self._chunks.length())
                self._annotations.append(annotation)
        self._cited = []
        if "redactedContent" in self._thought:
            self._carried.append({"reasoningContent": {"redactedContent": self._thought["redactedContent"]}})
        elif self._thought:
            self._carried.append({"reasoningContent": {"reasoningText": {"text": "", **self._thought}}})
        self._thought = {}
        return events

    def _finish(self, said: Any) -> list[Event]:
        # Without any it was the form of the answer that was called as a tool.
        reason = "stop" if said == "tool_use" and not self._chunks.calls() else said
        events = [*self._close(), *self._chunks.annotations(self._annotations)]
        return events + self._chunks.finish(chunks.finish_reason(reason))


def _usage(used: dict[str, Any]) -> dict[str, Any]:
    """Read what was used. Whether the input counts what was cached differs, and shows in the total."""
    prompt, completion = used.get("inputTokens") or 0, used.get("outputTokens") or 0
    cached, written = used.get("cacheReadInputTokens") or 0, used.get("cacheWriteInputTokens") or 0
    if used.get("totalTokens") != prompt + completion:
        prompt += cached + written
    return chunks.usage(prompt, completion, cached=cached, cache_write=written)


def _message(body: bytes) -> str:
    said = failures.refusal(body)
    text = said.get("message") or said.get("Message")
    return text if isinstance(text, str) else ""


def _in_answer(name: str, message: str) -> UpstreamError:
    told = _failure(name, 502, {}, message)
    told.fallback = told.fallback or told.status >= 500
    return told


def _failure(name: str, status: int, headers: dict[str, str], message: str) -> UpstreamError:
    if name == "ValidationException" and "model identifier is invalid" in message:
        name = "ResourceNotFoundException"
    return failures.failure(_STATUSES.get(name, status), headers, message)
