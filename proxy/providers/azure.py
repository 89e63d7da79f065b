"""The provider for Azure OpenAI: its URLs and credentials; answers without the marks of its content filter."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.exchange import Exchange
from proxy.providers import call_ids, options
from proxy.providers.base import Outgoing
from proxy.providers.dialects import AZURE
from proxy.providers.dialects.answers import DialectCall
from proxy.providers.translation import Seal, unsupported
from proxy.upstreams.renewal import Credential, CredentialField


class Azure:
    """Sends the request to a deployment of Azure OpenAI."""

    name = "azure"
    native = False
    parameters: frozenset[str] = frozenset()

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "azure"`."""

        endpoint = options.base_url("the resource, such as `https://NAME.openai.azure.com`", required=True)
        api_version = fields.String(
            validate=validate.Regexp(r"\d{4}-\d\d-\d\d(-preview)?"),
            load_default=None,
            metadata={
                "help": "asks for deployments by their URLs, such as `2024-10-21`; without it the v1 API is used"
            },
        )
        deployments = fields.Dict(
            keys=fields.String(),
            values=fields.String(validate=validate.Length(min=1)),
            load_default=dict,
            metadata={"help": "the deployment of each model; by default it has the model's name"},
        )
        api_key = CredentialField(load_default=None, metadata={"help": "a key of the resource"})
        token = CredentialField(load_default=None, metadata={"help": "a token of Microsoft Entra ID, instead of a key"})
        parameters = fields.List(
            fields.String(),
            load_default=list,
            metadata={"help": "request parameters beyond OpenAI's that callers may set, such as `data_sources`"},
        )

        @validates_schema
        def one_credential(self, data: dict[str, Any], **_: Any) -> None:
            """Want a key or a token."""
            if data.get("api_key") is not None and data.get("token") is not None:
                raise ValidationError("give either api_key or token", "token")

    def __init__(self, config: dict[str, Any]) -> None:
        self.parameters = frozenset(config["parameters"])
        self._root = config["endpoint"].rstrip("/").removesuffix("/openai") + "/openai"
        self._version = config["api_version"]
        self._deployments = config["deployments"]
        self._key: Credential | None = config["api_key"]
        self._token: Credential | None = config["token"]

    def renew(self) -> float | None:
        """Renew the credential where it expires."""
        credential = self._key or self._token
        return None if credential is None else credential.renew()

    def probe(self) -> Outgoing:
        """Return a request that costs nothing and needs the credential."""
        return Outgoing(self._url("v1/models", "models"), b"", self._headers(), method="GET")

    def open(self, exchange: Exchange, body: dict[str, Any]) -> DialectCall:
        """Begin one call; raise `Reject` for a search, which Azure has none of here."""
        if body.get("web_search_options") is not None:
            raise unsupported("web_search_options")
        body["messages"] = call_ids.own_ids(body["messages"], Seal(self.name, None, call_ids.SHORT))
        deployment = body["model"] = self._deployments.get(body["model"], body["model"])
        if exchange.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        url = self._url("v1/chat/completions", f"deployments/{quote(deployment, safe='')}/chat/completions")
        return DialectCall(Outgoing(url, orjson.dumps(body), self._headers()), AZURE, exchange, [])

    def _url(self, v1: str, classic: str) -> str:
        return f"{self._root}/{v1}" if self._version is None else f"{self._root}/{classic}?api-version={self._version}"

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["api-key"] = self._key.value()
        elif self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.value()}"
        return headers
