"""The configuration of the issuers whose tokens are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.access.tokens.source import ALGORITHMS, safe
from proxy.config.fields import described, texts
from proxy.secrets import PathField

#: The algorithms that an issuer may use where nothing is said.
DEFAULT = ("RS256", "PS256", "ES256", "EdDSA")


class UrlField(fields.String):
    """A URL that keys may be fetched from."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        url = str(super()._deserialize(value, attr, data, **kwargs))
        if not safe(url):
            raise ValidationError("must be an https:// URL; http:// is for this machine alone")
        return url


class IssuerSchema(Schema):
    """One of `issuers`."""

    issuer = fields.String(required=True, metadata=described("the `iss` of its tokens, exactly"))
    audience = texts("the `aud` that a token must have one of", required=True, validate=validate.Length(min=1))
    jwks_url = UrlField(
        load_default=None, metadata=described("where its keys are; else its discovery document says it")
    )
    jwks_file = PathField(exists="file", load_default=None, metadata=described("a file with its keys instead"))
    algorithms = fields.List(
        fields.String(validate=validate.OneOf(sorted(ALGORITHMS))),
        load_default=list(DEFAULT),
        validate=validate.Length(min=1),
        metadata=described("the algorithms that it signs with"),
    )
    subject = fields.String(load_default="sub", metadata=described("the claim that says who is calling"))
    name = fields.String(load_default=None, metadata=described("the claim with a name to show"))
    team = fields.String(load_default=None, metadata=described('the claim with the team, e.g. `"groups"`'))
    teams = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        load_default=dict,
        metadata=described("teams by what that claim may hold; the first one that fits counts"),
    )
    default_team = fields.String(load_default=None, metadata=described("the team of tokens that name none"))
    grants = fields.String(load_default=None, metadata=described("the claim with grants, in the form that keys have"))
    limits = fields.String(load_default=None, metadata=described("the claim with limits, in the form that keys have"))

    @validates_schema(skip_on_field_errors=True)
    def together(self, said: dict[str, Any], **_: Any) -> None:
        """Refuse what contradicts itself."""
        if said.get("jwks_url") and said.get("jwks_file"):
            raise ValidationError("there is a jwks_url already", "jwks_file")
        if not said.get("jwks_url") and not said.get("jwks_file") and not safe(said["issuer"]):
            raise ValidationError("must be an https:// URL, or there must be a jwks_url or a jwks_file", "issuer")
        if said.get("teams") and not said.get("team"):
            raise ValidationError("needs `team`, the claim to look at", "teams")


def seconds(low: float, high: float, default: float, help: str) -> fields.Float:
    """Return a field for a time in seconds."""
    return fields.Float(validate=validate.Range(low, high), load_default=default, metadata=described(help))


class TokensSchema(Schema):
    """Options of a plugin that takes tokens."""

    issuers = fields.List(
        fields.Nested(IssuerSchema),
        required=True,
        validate=validate.Length(min=1),
        metadata=described("whose tokens are taken, as `[[plugins.NAME.issuers]]`"),
    )
    leeway = seconds(0, 300, 30, "seconds that the issuer's clock may be wrong by")
    refresh = seconds(30, 86400, 300, "seconds between two fetches of the keys")
    stale = seconds(60, 604800, 86400, "seconds that keys stay in use while no new ones can be fetched")

    @validates_schema(skip_on_field_errors=True)
    def together(self, said: dict[str, Any], **_: Any) -> None:
        """Refuse an issuer that is there twice."""
        names = [issuer["issuer"] for issuer in said["issuers"]]
        if len(set(names)) < len(names):
            raise ValidationError("an issuer is there twice", "issuers")
