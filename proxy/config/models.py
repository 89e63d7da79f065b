"""`[models.PATTERN]`: where a model is served, and how it may be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from proxy.config.connection import ModelTimeoutsSchema
from proxy.config.fields import FlagField, SecondsField, described, texts, whole
from proxy.settings import Retry, Target

_retry = Retry()


class RetrySchema(Schema):
    """`retry = { … }` of a model."""

    attempts = whole(
        1, 20, load_default=_retry.attempts, metadata=described("calls of upstreams in one exchange, at most")
    )
    backoff = SecondsField(
        load_default=_retry.backoff,
        metadata=described("the first wait before a target is tried again is drawn up to it"),
    )
    longest_wait = SecondsField(
        load_default=_retry.longest_wait,
        metadata=described("no wait is longer; an upstream that asks for more is not tried again"),
    )


class TargetField(fields.Field[Target]):
    """A target as text, or as a table with a weight."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Target:
        said = value if isinstance(value, dict) else {"to": value}
        to, weight = said.get("to"), said.get("weight")
        if not isinstance(to, str) or not to or said.keys() - {"to", "weight"}:
            raise ValidationError('must be "PROVIDER", "PROVIDER/MODEL" or { to = "PROVIDER/MODEL", weight = 1 }')
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0):
            raise ValidationError("its weight must be a number above 0")
        provider, slash, model = to.partition("/")
        if slash and not model:
            raise ValidationError(f"no model after the slash: {to!r}")
        return Target(provider, model or None, weight)


class ModelSchema(Schema):
    """`[models.PATTERN]`."""

    targets = fields.List(
        TargetField(),
        required=True,
        validate=validate.Length(min=1),
        metadata=described(
            'where it is served, tried in order: `"PROVIDER"`, `"PROVIDER/MODEL"`, or `{ to = "…", weight = 2 }`: '
            "of those with a weight one is drawn to be first"
        ),
    )
    chain = texts("plugins for this model's exchanges; the top-level chain where it is left out", load_default=None)
    public = FlagField(load_default=False, metadata=described("callers need no credential"))
    web_search = FlagField(load_default=False, metadata=described("callers may ask for web search"))
    strict = FlagField(
        load_default=False,
        metadata=described("refuse parameters that the target does not know, instead of dropping them"),
    )
    parameters = texts("request parameters beyond OpenAI's that callers may set; `*` allows all", load_default=[])
    timeouts = fields.Nested(
        ModelTimeoutsSchema, load_default=dict, metadata=described("instead of the provider's, one by one")
    )
    retry = fields.Nested(
        RetrySchema, load_default=lambda: RetrySchema().load({}), metadata=described("how often targets are tried")
    )
