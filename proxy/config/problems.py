"""What marshmallow finds wrong, as lines for the operator: the path in the file, the mistake, the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from marshmallow import Schema, fields

#: marshmallow's texts that speak to programmers, and ours.
TEXTS = {
    "Field may not be null.": "must have a value",
    "Not a valid integer.": "must be a whole number",
    "Not a valid number.": "must be a number",
    "Not a valid string.": "must be a text in quotes",
    "Not a valid boolean.": "must be true or false",
    "Not a valid list.": 'must be a list, e.g. ["one", "two"]',
    "Not a valid mapping type.": "must be a table of its own",
    "Invalid input type.": "must be a table of its own",
    "Length must be at least 1.": "must not be empty",
    "Shorter than minimum length 1.": "must not be empty",
}
UNKNOWN = "Unknown field."
MISSING = "Missing data for required field."


def join(where: str, key: object) -> str:
    """Return the path of `key` inside of `where`, written as in TOML: `models."gpt-*".targets[0]`."""
    if isinstance(key, int):
        return f"{where}[{key}]"
    name = str(key)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{where}.{name}" if where else name


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'burst'?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(word: str, known: Iterable[str]) -> str:
    """Say that a key does not exist: what is near, else what there is."""
    known = sorted(known)
    remedy = suggestion(word, known) or (f"; known: {', '.join(known)}" if known else "; there are none here")
    return f"unknown key{remedy}"


def flatten(errors: Any, where: str, schema: Schema | None = None, others: Iterable[str] = ()) -> list[str]:
    """Return one line for each error of a marshmallow `ValidationError.messages`.

    `schema` is what was loaded with, for suggestions; `others` are keys that are known beside its own.
    """
    if isinstance(errors, dict):
        lines = []
        for key, inner in errors.items():
            path = where if key == "_schema" else join(where, key)
            field = _field(schema, key)
            if inner == [UNKNOWN]:
                lines.append(f"{path}: {unknown(str(key), [*_keys(schema), *others])}")
            elif inner == [MISSING]:
                lines.append(f"{path}: missing{_help(field)}")
            else:
                # An index leads to the same schema: the field was a list of its tables.
                lines += flatten(inner, path, schema if isinstance(key, int) else _inner(field))
        return lines
    if isinstance(errors, list):
        return [line for error in errors for line in flatten(error, where, schema)]
    return [f"{where}: {_text(str(errors))}"]


def _text(message: str) -> str:
    if message in TEXTS:
        return TEXTS[message]
    # The validators' own are whole sentences: "Must be greater than or equal to 1."
    if message.startswith("Must "):
        message = "must " + message.removeprefix("Must ")
    return message.removesuffix(".")


def _keys(schema: Schema | None) -> list[str]:
    return [field.data_key or name for name, field in schema.fields.items()] if schema else []


def _field(schema: Schema | None, key: object) -> fields.Field[Any] | None:
    if schema is None:
        return None
    return next((field for name, field in schema.fields.items() if (field.data_key or name) == key), None)


def _inner(field: fields.Field[Any] | None) -> Schema | None:
    while isinstance(field, fields.List):
        field = field.inner
    return field.schema if isinstance(field, fields.Nested) else None


def _help(field: fields.Field[Any] | None) -> str:
    text = field.metadata.get("help") if field is not None else None
    return f": {text}" if text else "; it is required"
