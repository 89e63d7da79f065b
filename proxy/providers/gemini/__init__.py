"""Google's Gemini by its own API, `generateContent` and `streamGenerateContent`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import orjson
from marshmallow import Schema

from proxy import failures, sse
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers import options
from proxy.providers.base import Outgoing
from proxy.providers.gemini.answers import Answer, failure
from proxy.providers.gemini.requests import translated
from proxy.providers.translation import Seal
from proxy.upstreams.renewal import Credential, CredentialField
from proxy.upstreams.sealing import Sealer

#: Request parameters beyond OpenAI's that callers may set.
PARAMETERS = frozenset({"top_k"})

_END = sse.Event(b"end", b"")
_BARE = re.compile(rb"[\r\n][\[{]")
_MOST_BARE = 1 << 20


class Gemini:
    """Google's Gemini: translates requests and answers; signatures of thoughts travel in the ids of tool calls."""

    name = "gemini"
    native = False
    parameters = PARAMETERS

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "gemini"`."""

        base_url = options.base_url(
            "where the API begins, its version included; `/models/…` is added",
            load_default="https://generativelanguage.googleapis.com/v1beta",
        )
        api_key = CredentialField(load_default=None, metadata={"help": "sent as `x-goog-api-key`"})

    def __init__(self, config: dict[str, Any]) -> None:
        self.sealer: Sealer | None = None
        self._base = config["base_url"].rstrip("/")
        self._key: Credential | None = config["api_key"]

    def renew(self) -> float | None:
        """Renew the API key where it expires."""
        return None if self._key is None else self._key.renew()

    def probe(self) -> Outgoing:
        """Ask for one of the models."""
        return Outgoing(f"{self._base}/models?pageSize=1", b"", self._credential(), "GET")

    def open(self, exchange: Exchange, body: dict[str, Any]) -> GeminiCall:
        """Begin one call; raise `Reject` for what Gemini cannot do."""
        return call(exchange, body, Seal(self.name, self.sealer), self._base, self._credential())

    def _credential(self) -> dict[str, str]:
        return {} if self._key is None else {"x-goog-api-key": self._key.value()}


def call(exchange: Exchange, body: dict[str, Any], seal: Seal, base: str, headers: dict[str, str]) -> GeminiCall:
    """Return a call in Gemini's dialect; `base` is the URL before `/models`, `headers` hold the credential."""
    model = body["model"].removeprefix("models/")
    request, dropped = translated(body, seal, model)
    method = "streamGenerateContent?alt=sse" if exchange.stream else "generateContent"
    # The name may be the caller's own: it is one segment of the path and nothing else.
    url = f"{base}/models/{quote(model, safe='')}:{method}"
    outgoing = Outgoing(url, orjson.dumps(request), {"Content-Type": "application/json", **headers})
    legacy = not body.get("tools") and bool(body.get("functions"))
    return GeminiCall(outgoing, dropped, Answer(exchange, seal, model, legacy))


class GeminiCall:
    """One exchange in Gemini's dialect. There is no mark for the end of a stream: it is the end of the body."""

    __slots__ = ("_answer", "_bare", "_last", "_parser", "complete", "dropped", "outgoing")

    def __init__(self, outgoing: Outgoing, dropped: list[str], answer: Answer) -> None:
        self.outgoing = outgoing
        self.dropped = dropped
        self.complete = False
        self._answer = answer
        self._parser = sse.Parser()
        self._bare: bytes | None = None
        self._last = b"\n"

    def frames(self, chunk: bytes) -> Iterable[sse.Event]:
        """Cut bytes into server-sent events, and into one of the JSON that comes without `data:` when it fails."""
        if not chunk:
            return (sse.Event(b"bare", self._bare), _END) if self._bare is not None else (_END,)
        if self._bare is None:
            bare = _BARE.search(self._last + chunk)
            if bare is None:
                self._last = chunk[-1:]
                return self._parser.feed(chunk)
            events = self._parser.feed(chunk[: bare.start()])
            self._bare = chunk[bare.start() :]
            return events
        if len(self._bare) < _MOST_BARE:
            self._bare += chunk
        return ()

    def events(self, payload: sse.Event) -> Iterable[Event]:
        """Turn one event into chunks; raise `UpstreamError` where it is an error."""
        if payload is _END:
            events = self._answer.end()
            self.complete = self._answer.complete
            return events
        return self._answer.take(orjson.loads(payload.data))

    def completion(self, body: bytes) -> dict[str, Any]:
        """Turn a whole answer into a completion; raise `UpstreamError` where it is none."""
        return self._answer.completion(failures.parsed(body))

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read Google's error object, which may stand in a list."""
        try:
            said = orjson.loads(body)
        except ValueError:
            said = {}
        said = said[0] if isinstance(said, list) and said else said
        return failure(status, headers, said.get("error") if isinstance(said, dict) else None)
