"""The provider for Amazon Bedrock's Converse API."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import botocore.credentials
import botocore.session
import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.eventstream import EventStreamBuffer, ParserError
from marshmallow import Schema, fields, validate

from proxy.exchange import Exchange
from proxy.providers import options
from proxy.providers.base import Outgoing
from proxy.providers.bedrock.answers import BedrockCall, Message
from proxy.providers.bedrock.requests import LEGAL_ID, OWN, translate
from proxy.providers.translation import Seal
from proxy.upstreams.renewal import Credential, CredentialField, unavailable
from proxy.upstreams.sealing import Sealer

#: How often credentials that expire are looked at, in seconds; botocore fetches new ones 15 minutes before their end.
RENEWED_S = 60.0


class Frames:
    """Cuts bytes as they come into the messages of an event stream, whose checksums are verified."""

    def __init__(self) -> None:
        self._buffer: Any = EventStreamBuffer()
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that `chunk` completes; an empty one is the end.

        Raises `ValueError` for what is no message, and for an end in the middle of one.
        """
        if not chunk and self._held:
            raise ValueError("an event stream that ends within a frame")
        self._buffer.add_data(chunk)
        self._held += len(chunk)
        try:
            for message in self._buffer:
                self._held -= message.prelude.total_length
                yield Message(message.headers, message.payload)
        except (ParserError, struct.error, IndexError):
            raise ValueError("a broken frame of an event stream") from None


class Bedrock:
    """Speaks Converse and ConverseStream with any model of Amazon Bedrock; signs requests as version 4 says."""

    name = "bedrock"
    native = False
    parameters = OWN | {"top_k"}

    class Config(Schema):
        """Options of `[providers.NAME]` with `use = "bedrock"`."""

        region = fields.String(
            required=True,
            validate=validate.Regexp(r"[a-z0-9-]+$"),
            metadata={"help": "the AWS region, such as `eu-central-1`"},
        )
        base_url = options.base_url("another endpoint than the region's public one, such as a VPC's", load_default=None)
        profile = fields.String(
            load_default=None,
            metadata={"help": "a profile of AWS's configuration files; without one AWS's usual chain is followed"},
        )
        api_key = CredentialField(
            load_default=None, metadata={"help": "a Bedrock API key, sent as bearer token instead of a signature"}
        )
        guardrail = fields.String(
            validate=validate.Regexp(r"[A-Za-z0-9:/-]+:(\d+|DRAFT)$", error="must be ID:VERSION"),
            load_default=None,
            metadata={"help": "a guardrail that every request passes, as `ID:VERSION`"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self.sealer: Sealer | None = None
        self._region = config["region"]
        url = config["base_url"] or f"https://bedrock-runtime.{self._region}.amazonaws.com"
        self._url = url.rstrip("/") + "/model/"
        self._profile = config["profile"]
        self._key: Credential | None = config["api_key"]
        self._guardrail: dict[str, str] | None = None
        if config["guardrail"]:
            id, _, version = config["guardrail"].rpartition(":")
            self._guardrail = {"guardrailIdentifier": id, "guardrailVersion": version}
        self._chain: Any = None
        self._credentials: Any = None

    def renew(self) -> float | None:
        """Fetch credentials by AWS's chain: environment, profile, role, container or instance. Raises `ValueError`."""
        if self._key is not None:
            return self._key.renew()
        if self._chain is None:
            self._chain = botocore.session.Session(profile=self._profile).get_credentials()
        if self._chain is None:
            raise ValueError("AWS's chain of credentials holds none")
        self._credentials = self._chain.get_frozen_credentials()
        return RENEWED_S if isinstance(self._chain, botocore.credentials.RefreshableCredentials) else None

    def probe(self) -> Outgoing:
        """Return a request that costs nothing and needs the credential: one without messages, to the smallest model."""
        url = f"{self._url}amazon.nova-micro-v1%3A0/converse"
        return Outgoing(url, b"{}", self._signed(url, b"{}"))

    def open(self, exchange: Exchange, body: dict[str, Any]) -> BedrockCall:
        """Begin one call."""
        seal = Seal(self.name, self.sealer, LEGAL_ID)
        made = translate(body, seal)
        if self._guardrail is not None:
            made.request["guardrailConfig"] = self._guardrail
        operation = "converse-stream" if exchange.stream else "converse"
        url = f"{self._url}{quote(body['model'], safe='')}/{operation}"
        data = orjson.dumps(made.request)
        return BedrockCall(exchange, made, Outgoing(url, data, self._signed(url, data)), seal, Frames().feed)

    def _signed(self, url: str, data: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            return {**headers, "Authorization": f"Bearer {self._key.value()}"}
        if self._credentials is None:
            raise unavailable()
        request = AWSRequest("POST", url, headers, data)
        SigV4Auth(self._credentials, "bedrock", self._region).add_auth(request)
        return dict(request.headers.items())
