"""JSON Schemas as rows for readers: names, types in words, bounds, and what unfolds under them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

_BOUNDS = (
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("maxProperties", "at most {} entries"),
    ("pattern", "matches {}"),
)
_INT64 = 2**63
_PLURAL = {"string": "strings", "integer": "integers", "number": "numbers", "object": "objects", "boolean": "booleans"}


@dataclass(slots=True)
class Row:
    """A parameter or member. `forms` are what its value may look like inside, each with rows of its own."""

    name: str
    kind: str
    required: bool
    description: str
    deprecated: bool
    default: str | None
    values: list[str]
    bounds: list[str]
    forms: list[Form]


@dataclass(slots=True)
class Form:
    """One form of an object; `label` tells it from the others where there are several."""

    label: str
    description: str
    rows: list[Row]


@dataclass(slots=True)
class _Shape:
    kinds: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)


def rows(document: dict[str, Any], schema: dict[str, Any]) -> list[Row]:
    """Return the members of an object's schema, required ones first."""
    schema = resolved(document, schema)
    required = schema.get("required", [])
    made = [_row(document, name, member, name in required) for name, member in schema.get("properties", {}).items()]
    return sorted(made, key=lambda row: not row.required)


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or what it refers to with what is said beside the reference."""
    if "$ref" not in schema:
        return schema
    target: dict[str, Any] = document
    for name in schema["$ref"].removeprefix("#/").split("/"):
        target = target[name]
    return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}


def _row(document: dict[str, Any], name: str, schema: dict[str, Any], required: bool) -> Row:
    schema = resolved(document, schema)
    shape = _shape(document, schema)
    return Row(
        name=name,
        kind=" or ".join(dict.fromkeys(shape.kinds)),
        required=required,
        description=schema.get("description", ""),
        deprecated=schema.get("deprecated", False),
        default=orjson.dumps(schema["default"]).decode() if "default" in schema else None,
        values=shape.values,
        bounds=shape.bounds,
        forms=shape.forms,
    )


def _shape(document: dict[str, Any], schema: dict[str, Any]) -> _Shape:
    schema = resolved(document, schema)
    if "type" not in schema:
        shape = _Shape()
        for alternative in schema.get("anyOf", []):
            inner = _shape(document, alternative)
            shape.kinds += inner.kinds
            shape.values += inner.values
            shape.bounds += inner.bounds
            shape.forms += inner.forms
        return shape
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    values = [orjson.dumps(value).decode() for value in schema.get("enum", []) if value is not None]
    shape = _Shape(list(kinds), values, _bounds(schema))
    if "array" in kinds:
        inner = _shape(document, schema["items"])
        of = " or ".join(dict.fromkeys(_PLURAL.get(kind, kind) for kind in inner.kinds))
        shape.kinds[kinds.index("array")] = f"array of {of}"
        shape.values += inner.values
        shape.forms = inner.forms
    elif isinstance(schema.get("additionalProperties"), dict):
        inner = _shape(document, schema["additionalProperties"])
        shape.kinds[kinds.index("object")] = f"object of {' or '.join(_PLURAL[kind] for kind in inner.kinds)}"
        shape.bounds += inner.bounds
    elif "properties" in schema:
        shape.forms = [_form(document, schema)]
    return shape


def _form(document: dict[str, Any], schema: dict[str, Any]) -> Form:
    tags = [
        f"{name}: {member['enum'][0]}"
        for name, member in schema["properties"].items()
        if len(member.get("enum", ())) == 1 and name in ("type", "role")
    ]
    return Form(tags[0] if tags else "", schema.get("description", ""), rows(document, schema))


def _bounds(schema: dict[str, Any]) -> list[str]:
    told = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and -_INT64 < low and high < _INT64 - 1:
        told.append(f"{low} to {high}")
    elif low is not None and low > -_INT64:
        told.append(f"at least {low}")
    for keyword, phrase in _BOUNDS:
        if keyword in schema and (keyword, schema[keyword]) not in (("minLength", 1), ("minItems", 1)):
            told.append(phrase.format(schema[keyword]))
        elif keyword in schema:
            told.append("not empty")
    if "maxLength" in schema.get("propertyNames", {}):
        told.append(f"names of at most {schema['propertyNames']['maxLength']} characters")
    return told
