"""The native provider: any upstream that speaks OpenAI's chat completions, or nearly."""

from __future__ import annotations

import re
from typing import Any

import orjson
from marshmallow import Schema, fields, validate

from proxy.exchange import Exchange
from proxy.providers import call_ids, options
from proxy.providers.base import Outgoing
from proxy.providers.dialects import DIALECTS
from proxy.providers.dialects.answers import DialectCall
from proxy.providers.dialects.requests import fit
from proxy.providers.openai_answers import OpenAICall
from proxy.providers.translation import Seal
from proxy.upstreams.renewal import Credential, CredentialField
from proxy.upstreams.sealing import Sealer

_OWN = re.compile(r"https://([\w-]+\.)?api\.openai\.com(/|$)")


class OpenAI:
    """Sends the request on as it is and reads OpenAI's own answers; with a `dialect` it does away with its quirks."""

    name = "openai"
    native = True
    parameters: frozenset[str] = frozenset()

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "openai"`."""

        dialect = fields.String(
            validate=validate.OneOf(["openai", *DIALECTS]),
            load_default="openai",
            metadata={"help": "what the upstream is, where it only nearly speaks OpenAI"},
        )
        base_url = options.base_url(
            "where the upstream's API begins; `/chat/completions` is added. By default the dialect's own, "
            "`https://api.openai.com/v1` for OpenAI",
            load_default=None,
        )
        api_key = CredentialField(load_default=None, metadata={"help": "sent as bearer token"})
        headers = options.headers("further request headers, such as `OpenAI-Organization`; a credential as a secret")
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
        self.sealer: Sealer | None = None
        self._dialect = DIALECTS.get(config["dialect"])
        self.native = self._dialect is None or self._dialect.native
        self.parameters = frozenset(config["parameters"])
        url = config["base_url"]
        self._stream_usage = config["stream_usage"]
        if self._dialect is not None:
            self.parameters |= self._dialect.parameters
            url = url or self._dialect.base_url
            self._stream_usage = self._stream_usage and self._dialect.stream_options
        # An upstream elsewhere may carry something in its own ids, as another gateway does.
        elsewhere = self._dialect is None and url is not None and not _OWN.match(url)
        self._legal = call_ids.ANY if elsewhere else call_ids.SHORT
        self._url = (url or "https://api.openai.com/v1").rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        self._headers |= {name: value.reveal() for name, value in config["headers"].items()}
        self._key: Credential | None = config["api_key"]

    def renew(self) -> float | None:
        """Renew the API key where it expires."""
        return None if self._key is None else self._key.renew()

    def probe(self) -> Outgoing:
        """Return a request that costs nothing and needs the credential."""
        if self._dialect is not None and not self._dialect.lists:
            return Outgoing(f"{self._url}/chat/completions", b"{}", self._authorized())
        return Outgoing(self._url + "/models", b"", self._authorized(), method="GET")

    def open(self, exchange: Exchange, body: dict[str, Any]) -> OpenAICall:
        """Begin one call; raise `Reject` 400 `unsupported_parameter` for what the dialect cannot do."""
        # What was thought is of use to the model alone that has thought it.
        seal = Seal(f"{self.name} {body['model']}", self.sealer, self._legal)
        body["messages"] = call_ids.own_ids(body["messages"], seal)
        dropped = [] if self._dialect is None else fit(self._dialect, body)
        if exchange.stream and self._stream_usage:
            told = {} if self._dialect is not None else body.get("stream_options") or {}
            body["stream_options"] = {**told, "include_usage": True}
        elif self._dialect is not None:
            body.pop("stream_options", None)
        outgoing = Outgoing(f"{self._url}/chat/completions", orjson.dumps(body), self._authorized())
        if self._dialect is None:
            return OpenAICall(outgoing)
        return DialectCall(outgoing, self._dialect, exchange, dropped, seal)

    def _authorized(self) -> dict[str, str]:
        if self._key is None:
            return self._headers
        return {**self._headers, "Authorization": f"Bearer {self._key.value()}"}
