"""Google's Vertex AI: Gemini, and Claude as Google serves it, behind Google's credentials."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import google.auth
import orjson
from google.auth.transport.requests import Request
from marshmallow import Schema, fields, validate

from proxy.exchange import Exchange
from proxy.providers import gemini, options
from proxy.providers.anthropic.answers import AnthropicCall
from proxy.providers.anthropic.requests import Options, translate
from proxy.providers.base import Call, Outgoing
from proxy.providers.translation import Seal
from proxy.secrets import PathField
from proxy.upstreams.renewal import RENEWED_AT, Credential
from proxy.upstreams.sealing import Sealer

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ANTHROPIC_VERSION = "vertex-2023-10-16"

_CLAUDE = re.compile(r"claude-")
#: What Claude's API takes here in the body and Vertex names in the path, or does not know.
_NOT_IN_BODY = ("model", "service_tier")


class Vertex:
    """Google's models and Anthropic's on Vertex AI; what begins with `claude-` is Anthropic's."""

    name = "vertex"
    native = False
    parameters = gemini.PARAMETERS

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "vertex"`."""

        project = fields.String(
            required=True,
            validate=validate.Regexp(r"[a-z0-9.:-]+$", error="must be the id of a project"),
            metadata={"help": "the id of the project that is billed"},
        )
        location = fields.String(
            load_default="global",
            validate=validate.Regexp(r"[a-z0-9-]+$", error="must be a location such as europe-west4, or global"),
            metadata={"help": "where the models run"},
        )
        base_url = options.base_url(
            "where the API begins, its version included; the location's own where it is left out", load_default=None
        )
        credentials = PathField(
            exists="file",
            load_default=None,
            metadata={
                "help": "a file of credentials, of a service account or a federation; where it is left out those that "
                "the machine has (Google's application default credentials)"
            },
        )
        max_tokens = fields.Integer(
            strict=True,
            validate=validate.Range(min=1),
            load_default=Options().max_tokens,
            metadata={"help": "the most tokens of an answer of Claude's where the request does not say it"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self.sealer: Sealer | None = None
        self.http: Callable[[], Any] | None = None
        location = config["location"]
        base = (config["base_url"] or f"https://{_host(location)}/v1").rstrip("/")
        self._base = f"{base}/projects/{config['project']}/locations/{location}/publishers"
        self._options = Options(max_tokens=config["max_tokens"])
        self._file = config["credentials"]
        self._source: Any = None
        self._token = Credential()

    def renew(self) -> float:
        """Fetch a token; raise what google-auth raises where there is no credential, or it is refused."""
        request = Request(self.http() if self.http is not None else None)
        if self._source is None:
            self._source = self._found(request)
        self._source.refresh(request)
        expires = self._source.expiry.replace(tzinfo=UTC).timestamp()
        self._token = Credential(self._source.token, expires)
        return float(expires - datetime.now(UTC).timestamp()) * RENEWED_AT

    def probe(self) -> Outgoing:
        """Have the tokens of nothing counted, which is refused as incomplete."""
        url = f"{self._base}/google/models/gemini-2.5-flash:countTokens"
        return Outgoing(url, b"{}", {"Content-Type": "application/json", **self._credential()})

    def open(self, exchange: Exchange, body: dict[str, Any]) -> Call:
        """Begin one call; raise `Reject` for what the model cannot do."""
        headers = self._credential()
        if _CLAUDE.match(body["model"]):
            return self._claude(exchange, body, headers)
        return gemini.call(exchange, body, Seal("vertex", self.sealer), f"{self._base}/google", headers)

    def _credential(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.value()}"}

    def _claude(self, exchange: Exchange, body: dict[str, Any], headers: dict[str, str]) -> AnthropicCall:
        seal = Seal("vertex-anthropic", self.sealer)
        made = translate(body, seal, self._options)
        request = {name: value for name, value in made.request.items() if name not in _NOT_IN_BODY}
        request |= {"anthropic_version": ANTHROPIC_VERSION, "stream": exchange.stream}
        method = "streamRawPredict" if exchange.stream else "rawPredict"
        # The name may be the caller's own: it is one segment of the path and nothing else.
        url = f"{self._base}/anthropic/models/{quote(body['model'], safe='@')}:{method}"
        outgoing = Outgoing(url, orjson.dumps(request), {"Content-Type": "application/json", **headers})
        return AnthropicCall(exchange, made, outgoing, seal)

    def _found(self, request: Request) -> Any:
        with warnings.catch_warnings():
            # It warns of files from others, and of a user's own credentials; what is used is the operator's choice.
            warnings.simplefilter("ignore")
            if self._file is None:
                return google.auth.default(scopes=[SCOPE], request=request)[0]
            load: Any = google.auth.load_credentials_from_file
            return load(str(self._file), scopes=[SCOPE], request=request)[0]


def _host(location: str) -> str:
    """Return where a location is served: the world's, a union's, or its own."""
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("eu", "us"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"
