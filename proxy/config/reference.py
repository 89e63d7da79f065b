"""The options of a schema as rows for people: key, type, default, help."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from marshmallow import Schema, fields, missing, validate

TYPES = {
    "Boolean": "true or false",
    "FlagField": "true or false",
    "Integer": "whole number",
    "Float": "number",
    "SecondsField": "seconds",
    "DollarsField": "dollars",
    "String": "text",
    "BindField": "address",
    "ProxyField": "URL or secret",
    "DatabaseUrlField": "URL or secret",
    "RedisUrlField": "URL or secret",
    "ZoneField": "time zone",
    "BudgetField": "budget",
    "SecretField": "secret",
    "PathField": "path",
    "Dict": "table",
    "ScopesField": "table",
    "Nested": "table",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One key. `default` is written as in TOML; `None` where there is none."""

    key: str
    type: str
    default: str | None
    required: bool
    help: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def options(schema: type[Schema] | Schema | None) -> list[Option]:
    """Return a schema's options in the order in which it declares them, those of its tables after the table."""
    if schema is None:
        return []
    rows = []
    for name, field in (schema() if isinstance(schema, type) else schema).fields.items():
        key = field.data_key or name
        rows.append(Option(key, type_of(field), _default(field), bool(field.required), field.metadata.get("help", "")))
        if isinstance(field, fields.Nested):
            inner = options(field.schema)
            rows += [Option(f"{key}.{row.key}", row.type, row.default, row.required, row.help) for row in inner]
    return rows


def type_of(field: fields.Field[Any]) -> str:
    """Return what may be written for a field, with its bounds."""
    if isinstance(field, fields.List):
        return f"list of {_plural(type_of(field.inner))}"
    name = type(field).__name__
    words = TYPES.get(name) or re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Field")).lower()
    for validator in field.validators:
        if isinstance(validator, validate.OneOf):
            return " or ".join(f"`{choice}`" for choice in validator.choices)
        if isinstance(validator, validate.Range) and name != "SecondsField":
            words += _bounds(validator)
    return words


def literal(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {literal(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)


def _default(field: fields.Field[Any]) -> str | None:
    if "default" in field.metadata:
        return literal(field.metadata["default"])
    default = field.load_default
    return None if default is missing or default is None or callable(default) else literal(default)


def _plural(words: str) -> str:
    return words if words.startswith("`") else re.sub(r"(?<=[a-z])(?=$|,)", "s", words, count=1)


def _bounds(range: validate.Range) -> str:
    low, high = range.min, range.max
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""
