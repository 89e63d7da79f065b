"""The native provider: any upstream that speaks OpenAI's chat completions (OpenAI, vLLM, Ollama, llama.cpp, TGI)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from marshmallow import Schema, ValidationError, fields, validate

from proxy import failures, sse
from proxy.errors import UpstreamError
from proxy.exchange import Event, Exchange
from proxy.providers.base import Outgoing
from proxy.secrets import Secret, SecretField


class CredentialField(SecretField):
    """A secret that goes into a header."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Secret:
        secret = super()._deserialize(value, attr, data, **kwargs)
        # RFC 9110, 5.5: no control characters; `requests` alone would let some of them through.
        if not re.fullmatch(r"[\x20-\x7e]*", secret.reveal()):
            raise ValidationError("must be printable ASCII on one line")
        return secret


class HeaderField(CredentialField):
    """The value of a header: a text, or where it is a credential a secret. Loads as a `Secret` either way."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Secret:
        if isinstance(value, str) and re.fullmatch(r"[\x20-\x7e]*", value):
            return Secret(value)
        return super()._deserialize(value, attr, data, **kwargs)


class OpenAI:
    """Sends the request on as it is and reads OpenAI's own answers."""

    name = "openai"
    native = True
    parameters: frozenset[str] = frozenset()

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "openai"`."""

        base_url = fields.Url(
            schemes={"http", "https"},
            require_tld=False,
            validate=validate.Regexp(r"[^?#]*$", error="must not have a query or a fragment"),
            load_default="https://api.openai.com/v1",
            metadata={"help": "where the upstream's API begins; `/chat/completions` is added"},
        )
        api_key = CredentialField(load_default=None, metadata={"help": "sent as bearer token"})
        headers = fields.Dict(
            keys=fields.String(validate=validate.Regexp(r"^[A-Za-z0-9-]+$")),
            values=HeaderField(),
            load_default=dict,
            metadata={"help": "further request headers, such as `OpenAI-Organization`; a credential as a secret"},
        )
        parameters = fields.List(
            fields.String(),
            load_default=list,
            metadata={"help": "request parameters beyond OpenAI's that this upstream understands and callers may set"},
        )
        stream_usage = fields.Boolean(
            load_default=True,
            metadata={"help": "ask for the usage of streams; false for an upstream that refuses `stream_options`"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self.parameters = frozenset(config["parameters"])
        self._url = config["base_url"].rstrip("/") + "/chat/completions"
        self._stream_usage = config["stream_usage"]
        self._headers = {"Content-Type": "application/json"}
        self._headers |= {name: value.reveal() for name, value in config["headers"].items()}
        key: Secret | None = config["api_key"]
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key.reveal()}"

    def open(self, exchange: Exchange, body: dict[str, Any]) -> OpenAICall:
        """Begin one call."""
        if exchange.stream and self._stream_usage:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return OpenAICall(Outgoing(self._url, orjson.dumps(body), self._headers))


class OpenAICall:
    """One exchange on OpenAI's own wire."""

    __slots__ = ("complete", "outgoing", "parser")

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.complete = False
        self.parser = sse.Parser()

    def frames(self, chunk: bytes) -> Iterable[sse.Event]:
        """Cut bytes into server-sent events."""
        return self.parser.feed(chunk)

    def events(self, payload: sse.Event) -> Iterable[Event]:
        """Turn one server-sent event into a chunk; raise `UpstreamError` where it carries an error in any shape."""
        if payload.data == b"[DONE]":
            self.complete = True
            return ()
        event = orjson.loads(payload.data)
        if not isinstance(event, dict):
            raise ValueError("an event that is not an object")
        error = event.get("error")
        if error is not None:
            raise failures.in_answer(error)
        choices = event.get("choices")
        if choices is None:
            if payload.name == b"error" or "message" in event or "detail" in event:
                raise failures.in_answer({**event, "message": event.get("message") or event.get("detail")})
            if not event.get("usage"):
                return ()
            event["choices"] = []
        event.pop("error", None)
        return (event,)

    def completion(self, body: bytes) -> dict[str, Any]:
        """Check a whole answer; raise `UpstreamError` where it is none."""
        try:
            completion: dict[str, Any] = orjson.loads(body)
        except ValueError:
            raise UpstreamError(502, "upstream_malformed", "The upstream's answer is not JSON.") from None
        if isinstance(completion, dict) and completion.get("error") is not None:
            raise failures.in_answer(completion["error"])
        choices = completion.get("choices") if isinstance(completion, dict) else None
        if not choices or not all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in choices):
            raise UpstreamError(502, "upstream_empty_response", "The upstream's answer holds no completion.")
        # What filters will look into must be what it seems.
        if not all(isinstance(call, dict) for c in choices for call in c["message"].get("tool_calls") or ()):
            raise UpstreamError(502, "upstream_malformed", "The upstream's answer holds calls that are none.")
        return completion

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        """Read the error of an OpenAI-like upstream: an object, a text, or a flat body."""
        try:
            said = orjson.loads(body)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        error = said.get("error", said)
        if not isinstance(error, dict):
            error = {"message": error}
        message = error.get("message") or error.get("detail") or ""
        return failures.failure(status, headers, message, error.get("code"), error.get("type"), error.get("param"))
