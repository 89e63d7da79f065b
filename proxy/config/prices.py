"""The schemas of `[prices]` and `[estimates]`: what tokens cost, in dollars, and how they are estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.config.fields import FlagField, described, whole
from proxy.settings import EstimatesSettings

#: No price is higher, in dollars.
HIGHEST = 1e6

_estimates = EstimatesSettings()


class DollarsField(fields.Float):
    """A price in dollars; at most six decimals count."""

    def __init__(self, help: str) -> None:
        super().__init__(validate=validate.Range(min=0, max=HIGHEST), metadata=described(help))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if isinstance(value, str | bool):
            raise self.make_error("invalid", input=value)
        return float(super()._deserialize(value, attr, data, **kwargs) or 0)


class RatesSchema(Schema):
    """What a long prompt changes."""

    input = DollarsField("a million tokens of the prompt")
    output = DollarsField("a million tokens of the answer")
    cached_input = DollarsField("a million tokens that the upstream had in its cache; as `input` where left out")
    cache_write = DollarsField("a million tokens that it put into its cache; as `input` where left out")
    reasoning = DollarsField("a million tokens of reasoning; as `output` where left out")
    audio_input = DollarsField("a million tokens of sound in the prompt; as `input` where left out")
    audio_output = DollarsField("a million tokens of sound in the answer; as `output` where left out")
    request = DollarsField("each request")
    search = DollarsField("each search of the web")


class PriceSchema(RatesSchema):
    """`[prices."PROVIDER/MODEL"]`."""

    long_above = whole(1, metadata=described("a prompt of more tokens is priced by `long`"))
    long = fields.Nested(RatesSchema, metadata=described("what is different then"))

    @validates_schema
    def check_long(self, data: dict[str, Any], **kwargs: Any) -> None:
        """Refuse half of the pair."""
        if ("long" in data) != ("long_above" in data):
            raise ValidationError("goes with the other: long_above = 200000, long = { input = … }", "long")


class EstimatesSchema(Schema):
    """`[estimates]`."""

    exact = FlagField(
        load_default=_estimates.exact,
        metadata=described("count prompts with tiktoken, whose files must be in `$TIKTOKEN_CACHE_DIR`"),
    )
    completion_tokens = whole(
        1,
        10**6,
        load_default=_estimates.completion_tokens,
        metadata=described("what an answer is expected to have at most where the request sets no bound"),
    )
