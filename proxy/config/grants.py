"""The schemas of grants and limits: one for keys, teams, tokens and plugins."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from proxy.access.grants import CAPABILITIES, WINDOWS
from proxy.config.fields import described, texts, whole
from proxy.config.problems import flatten

MICRO = 1_000_000
#: The largest budget, in dollars: its micro-dollars fit into 53 bits, and so into every JSON reader.
LARGEST_BUDGET_USD = 1_000_000_000
LARGEST = 2**53 - 1
#: The longest name of a team, in characters.
LONGEST_TEAM = 200


class BudgetField(fields.Field[dict[str, Any]]):
    """`{ usd = 50, window = "month" }`. Loads as `{"amount": 50000000, "window": "month"}`, in micro-dollars."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or value.keys() != {"usd", "window"}:
            raise ValidationError('must be { usd = 50, window = "month" }')
        usd, window = value["usd"], value["window"]
        if window not in WINDOWS:
            raise ValidationError(f"its window must be one of {', '.join(WINDOWS)}")
        if isinstance(usd, bool) or not isinstance(usd, (int, float)) or not 0 < usd <= LARGEST_BUDGET_USD:
            raise ValidationError(f"its usd must be a number above 0, at most {LARGEST_BUDGET_USD}")
        # Through its decimal text: 0.29 dollars are 290,000 micro-dollars, and not one less.
        amount = int((Decimal(str(usd)) * MICRO).to_integral_value(ROUND_HALF_UP))
        if not amount:
            raise ValidationError("its usd must be at least 0.000001")
        return {"amount": amount, "window": window}


class GrantsSchema(Schema):
    """What may be used. A key that is left out takes nothing away from what the next wider level allows."""

    models = texts("models that may be used, exactly or with `*`; all where it is left out")
    capabilities = fields.List(
        fields.String(validate=validate.OneOf(CAPABILITIES, error=f"must be one of {', '.join(CAPABILITIES)}")),
        metadata=described(f"capabilities that may be used, of {', '.join(CAPABILITIES)}; all where it is left out"),
    )
    max_tokens = whole(1, LARGEST, metadata=described("most tokens of an answer that may be asked for"))
    n = whole(1, 128, metadata=described("most choices of an answer that may be asked for"))
    service_tier = texts("service tiers that may be asked for")
    parameters = texts("request parameters beyond OpenAI's that may be set; `*` means all")


class LimitsSchema(Schema):
    """How much may be used."""

    requests_per_minute = whole(1, LARGEST, metadata=described("requests in a minute"))
    tokens_per_minute = whole(1, LARGEST, metadata=described("tokens in a minute, of prompts and answers"))
    concurrent = whole(1, LARGEST, metadata=described("requests at once"))
    budget = BudgetField(metadata=described('money over a window: `{ usd = 50, window = "month" }`'))


class TeamSchema(Schema):
    """`[teams.NAME]`."""

    grants = fields.Nested(GrantsSchema, load_default=dict, metadata=described("what its keys may use, at most"))
    limits = fields.Nested(
        LimitsSchema,
        load_default=dict,
        metadata=described("the limits of those of its keys that have none of their own"),
    )


def checked(kind: type[Schema], said: Any, where: str) -> dict[str, Any]:
    """Return what a schema makes of a mapping; raises `ValueError` with one line for each mistake, under `where`."""
    schema = kind()
    try:
        return dict(schema.load(said, unknown=RAISE))
    except ValidationError as failure:
        raise ValueError("\n".join(flatten(failure.messages, where, schema))) from None


def written(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits as they are written, with the budget in dollars: what `LimitsSchema` loads."""
    said = dict(limits)
    if "budget" in said:
        budget = said["budget"]
        usd = Decimal(budget["amount"]) / MICRO
        said["budget"] = {"usd": int(usd) if usd == int(usd) else float(usd), "window": budget["window"]}
    return said
