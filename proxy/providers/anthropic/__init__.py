"""The provider for Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.exchange import Exchange
from proxy.providers import options
from proxy.providers.anthropic.answers import AnthropicCall
from proxy.providers.anthropic.requests import Options, translate
from proxy.providers.base import Outgoing
from proxy.providers.translation import Seal
from proxy.upstreams.renewal import Credential, CredentialField
from proxy.upstreams.sealing import Sealer

_DEFAULTS = Options()


class Anthropic:
    """Speaks the Messages API of Anthropic, or of whoever offers the same."""

    name = "anthropic"
    native = False
    parameters = frozenset(("top_k", "thinking", "cache_control"))

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "anthropic"`."""

        base_url = options.base_url(
            "where the upstream's API begins; `/messages` is added", load_default="https://api.anthropic.com/v1"
        )
        api_key = CredentialField(load_default=None, metadata={"help": "sent as `x-api-key`"})
        auth_token = CredentialField(load_default=None, metadata={"help": "sent as bearer token instead"})
        version = fields.String(
            validate=validate.Regexp(r"\d{4}-\d\d-\d\d$"),
            load_default=_DEFAULTS.version,
            metadata={"help": "`anthropic-version`; from `2026-10-21` on there are no sampling parameters"},
        )
        betas = fields.List(
            fields.String(validate=validate.Regexp(r"[a-z0-9.-]+$")),
            load_default=list,
            metadata={"help": "sent as `anthropic-beta`"},
        )
        max_tokens = fields.Integer(
            strict=True,
            validate=validate.Range(min=1),
            load_default=_DEFAULTS.max_tokens,
            metadata={"help": "the most tokens of an answer where the request does not say it, thinking not counted"},
        )
        web_search = fields.String(
            validate=validate.Regexp(r"web_search_\d{8}$"),
            load_default=_DEFAULTS.web_search,
            metadata={"help": "the type of the tool that `web_search_options` becomes"},
        )
        headers = options.headers("further request headers; a credential as a secret")

        @validates_schema
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            """Refuse two credentials: the API would take the key, and not say so."""
            if data["api_key"] is not None and data["auth_token"] is not None:
                raise ValidationError("there is an `api_key` already", "auth_token")

    def __init__(self, config: dict[str, Any]) -> None:
        self.sealer: Sealer | None = None
        self._url = config["base_url"].rstrip("/") + "/messages"
        self._options = Options(config["version"], config["max_tokens"], config["web_search"])
        self._headers = {"Content-Type": "application/json", "anthropic-version": config["version"]}
        if config["betas"]:
            self._headers["anthropic-beta"] = ",".join(config["betas"])
        self._headers |= {name: value.reveal() for name, value in config["headers"].items()}
        self._key: Credential | None = config["api_key"]
        self._token: Credential | None = config["auth_token"]

    def renew(self) -> float | None:
        """Renew the credential where it expires."""
        credential = self._key or self._token
        return None if credential is None else credential.renew()

    def probe(self) -> Outgoing:
        """Return a request that costs nothing and needs the credential."""
        return Outgoing(self._url.removesuffix("/messages") + "/models", b"", self._authorized(), method="GET")

    def open(self, exchange: Exchange, body: dict[str, Any]) -> AnthropicCall:
        """Begin one call."""
        seal = Seal(self.name, self.sealer)
        made = translate(body, seal, self._options)
        request = {**made.request, "stream": True} if exchange.stream else made.request
        return AnthropicCall(exchange, made, Outgoing(self._url, orjson.dumps(request), self._authorized()), seal)

    def _authorized(self) -> dict[str, str]:
        if self._key is not None:
            return {**self._headers, "x-api-key": self._key.value()}
        if self._token is not None:
            return {**self._headers, "Authorization": f"Bearer {self._token.value()}"}
        return self._headers
