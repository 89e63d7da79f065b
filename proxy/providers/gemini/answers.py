"""What Gemini answers, as OpenAI's chunks: candidates, thoughts, calls, grounding, what was blocked, errors."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy import failures
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers import chunks
from proxy.providers.chunks import Chunks
from proxy.providers.gemini.grounding import grounded
from proxy.providers.translation import Seal

_OVERFLOW = re.compile(r"input token count|exceeds the maximum number of tokens", re.IGNORECASE)
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


@dataclass(slots=True)
class _Choice:
    """What is kept of a candidate: its parts, a thought as `None`, for the offsets of what grounds them."""

    parts: list[list[str] | None] = field(default_factory=list)
    grounding: dict[str, Any] = field(default_factory=dict)
    finish: str | None = None
    logprobs: dict[str, Any] | None = None


class Answer:
    """One answer; `complete` once its end has come and every candidate has said why it ends."""

    def __init__(self, exchange: Exchange, seal: Seal, model: str, legacy: bool) -> None:
        self.complete = False
        self._exchange = exchange
        self._seal = seal
        self._model = model
        self._chunks = Chunks(exchange, legacy)
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[str, Any] = {}

    def take(self, said: Any) -> list[Event]:
        """Return the chunks of a `GenerateContentResponse`, or of a list of them.

        Raises `UpstreamError` for an error, and what relaying takes for malformed where it is something else.
        """
        if isinstance(said, list):
            return [event for each in said for event in self.take(each)]
        if said.get("error") is not None:
            raise failure(200, {}, said["error"])
        self._usage = said.get("usageMetadata") or self._usage
        candidates = said.get("candidates")
        if not candidates:
            if not (said.get("promptFeedback") or {}).get("blockReason"):
                return []
            self._choices.setdefault(0, _Choice()).finish = "content_filter"
            return self._chunks.begin()
        return [event for candidate in candidates for event in self._candidate(candidate)]

    def end(self) -> list[Event]:
        """Return the chunks that end the answer; none where it was cut."""
        choices = sorted(self._choices.items())
        if not choices or any(choice.finish is None for _, choice in choices):
            return []
        self.complete = True
        events: list[Event] = []
        searches = 0
        for index, choice in choices:
            if choice.grounding:
                events += self._chunks.annotations(grounded(choice.parts, choice.grounding), index)
                searches += len(choice.grounding.get("webSearchQueries") or ())
            events += self._chunks.finish(choice.finish or "stop", index)
            events[-1]["choices"][0]["logprobs"] = choice.logprobs
        return [*events, *(self._chunks.usage(_usage(self._usage, searches)) if self._usage else ())]

    def completion(self, said: Any) -> dict[str, Any]:
        """Return a whole answer; raise `UpstreamError` where it is none."""
        events = [*self.take(said), *self.end()]
        if not self.complete:
            raise failures.empty()
        return chunks.folded(events)

    def _candidate(self, candidate: dict[str, Any]) -> list[Event]:
        index = candidate.get("index") or 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[int(index)] = _Choice()
        events: list[Event] = []
        for at, part in enumerate((candidate.get("content") or {}).get("parts") or ()):
            text = part.get("text")
            if text is not None:
                events += self._text(choice, text, bool(part.get("thought")), at == 0, index)
            elif part.get("functionCall") is not None:
                events += self._call(part, index)
            elif "inlineData" in part or "fileData" in part:
                raise UpstreamError(
                    502, "upstream_unsupported_output", "The model has made output that is no text.", fallback=False
                )
        events = events or self._chunks.begin(index)
        if candidate.get("logprobsResult"):
            choice.logprobs = _logprobs(candidate["logprobsResult"])
        if choice.logprobs is not None and events:
            events[-1]["choices"][0]["logprobs"], choice.logprobs = choice.logprobs, None
        grounding = candidate.get("groundingMetadata")
        if grounding and (grounding.get("groundingSupports") or not choice.grounding):
            choice.grounding = grounding
        reason = candidate.get("finishReason")
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            choice.finish = chunks.finish_reason(reason, self._chunks.calls(index) > 0)
        return events

    def _text(self, choice: _Choice, text: str, thought: bool, first: bool, index: int) -> list[Event]:
        if thought:
            if not (first and choice.parts and choice.parts[-1] is None):
                choice.parts.append(None)
            return self._chunks.reasoning(text, index)
        known = choice.parts[-1] if choice.parts and first else None
        # The first part of an event goes on with the last one of the event before.
        if known is None:
            choice.parts.append([text])
        else:
            known.append(text)
        return self._chunks.text(text, index)

    def _call(self, part: dict[str, Any], index: int) -> list[Event]:
        call = part["functionCall"]
        arguments, name, own = call.get("args") or {}, call["name"], call.get("id")
        if not isinstance(arguments, dict) or not isinstance(name, str):
            raise ValueError("a call that is none")
        made = f"{self._exchange.id} {index} {self._chunks.calls(index)}"
        id = own or "call_" + hashlib.sha256(made.encode()).hexdigest()[:24]
        carried: dict[str, Any] = {"id": True} if own else {}
        if part.get("thoughtSignature"):
            carried |= {"signature": part["thoughtSignature"], "model": self._model}
        events = self._chunks.call(self._seal.close(id, carried), name, index)
        return events + self._chunks.arguments(orjson.dumps(arguments).decode(), None, index)


def failure(status: int, headers: dict[str, str], error: Any) -> UpstreamError:
    """Return what a client is told of Google's error object; `status` 200 is that of an error inside an answer."""
    said = error if isinstance(error, dict) else {"message": error}
    word, message = said.get("status"), said.get("message")
    if status == 200:
        code = said.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else _STATUSES.get(str(word), 500)
    details = [each for each in said.get("details") or () if isinstance(each, dict)]
    if any(each.get("reason") == "API_KEY_INVALID" for each in details):
        status = 401  # Google says 400
    waits = [each["retryDelay"] for each in details if isinstance(each.get("retryDelay"), str)]
    if waits and "retry-after" not in headers:
        headers = {**headers, "retry-after": waits[0].rstrip("s")}
    if status == 400 and isinstance(message, str) and _OVERFLOW.search(message):
        word = "context_length_exceeded"
    return failures.failure(408 if status == 504 else status, headers, message or "", word)


def _usage(said: dict[str, Any], searches: int) -> dict[str, Any]:
    def count(name: str) -> int:
        return int(said.get(name) or 0)

    thoughts = count("thoughtsTokenCount")
    return chunks.usage(
        count("promptTokenCount") + count("toolUsePromptTokenCount"),
        count("candidatesTokenCount") + thoughts,
        cached=count("cachedContentTokenCount"),
        reasoning=thoughts,
        searches=searches,
    )


def _logprobs(result: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's log probabilities; the likely tokens at a position are those of the same place in the list."""
    tops: list[Any] = result.get("topCandidates") or []
    content = []
    for at, chosen in enumerate(result.get("chosenCandidates") or ()):
        likely = tops[at].get("candidates") if at < len(tops) else None
        content.append(_token(chosen) | {"top_logprobs": [_token(each) for each in likely or ()]})
    return {"content": content, "refusal": None}


def _token(said: dict[str, Any]) -> dict[str, Any]:
    token = said.get("token") or ""
    # A log probability of 0 is left out, as every zero.
    return {"token": token, "logprob": said.get("logProbability", 0.0), "bytes": list(token.encode())}
