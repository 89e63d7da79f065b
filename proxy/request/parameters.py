"""The marshmallow fields of request parameters: strict JSON types, bounds, and OpenAI's words for what is wrong.

Each field checks values as `proxy.request.body.parse` gives them and hands them back as they are, except that a whole
float becomes the integer it is; arrays and objects are changed in place. `metadata` holds the field's JSON Schema
keywords beside its description, so that an API description can be made from the schemas alone.
"""

from __future__ import annotations

import re
from typing import Any

from marshmallow import fields, missing

from proxy.request import violations

_INT64 = 2**63


class Parameter(fields.Field[Any]):
    """A field that is also usable inside arrays and objects: `deserialize(value, path)` is all they need.

    `default` is what OpenAI does when the parameter is absent; it is told, not filled in. A `title` makes the value's
    form one that the API's description has under this name, wherever it occurs.
    """

    kinds: tuple[type, ...] = ()
    expected = "a value"
    simple = False
    """Whether a value of one of `kinds` needs no further look: containers then need not write its path."""

    def __init__(
        self,
        description: str = "",
        *,
        required: bool = False,
        allow_none: bool = False,
        default: Any = missing,
        deprecated: bool = False,
        title: str = "",
    ) -> None:
        metadata = self.describe()
        if title:
            metadata["title"] = title
        if description:
            metadata["description"] = description
        if default is not missing:
            metadata["default"] = default
        if deprecated:
            metadata["deprecated"] = True
        super().__init__(required=required, allow_none=allow_none, metadata=metadata)

    def describe(self) -> dict[str, Any]:
        """Return the JSON Schema keywords of a value that is not null."""
        return {}

    def examine(self, value: Any, path: str) -> Any:
        """Return the value, or raise what `proxy.request.violations` makes; its type is one of `kinds`."""
        return value

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        """Return the checked value; `attr` is its whole path, e.g. `messages[0].content`."""
        path = attr or self.name or ""
        if type(value) in self.kinds:
            return self.examine(value, path)
        if value is None and self.allow_none:
            return None
        if value is missing:
            if self.required:
                raise violations.missing_parameter(path)
            return missing
        raise violations.wrong_type(path, self.expected, value)


class Boolean(Parameter):
    """`true` or `false`."""

    kinds = (bool,)
    expected = "a boolean"
    simple = True

    def describe(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Number(Parameter):
    """A number with both bounds."""

    kinds = (int, float)
    word = "decimal"

    def __init__(self, description: str = "", *, minimum: int, maximum: int, **options: Any) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.expected = f"a number between {minimum} and {maximum}"
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}

    def examine(self, value: Any, path: str) -> Any:
        if not self.minimum <= value <= self.maximum:
            raise violations.out_of_range(path, self.word, value, self.minimum, self.maximum)
        return value


class Integer(Number):
    """An integer of 64 bits with a sign, or less; `1.0` is one, as in JSON Schema, and becomes `1`."""

    word = "integer"

    def __init__(
        self, description: str = "", *, minimum: int = -_INT64, maximum: int = _INT64 - 1, **options: Any
    ) -> None:
        super().__init__(description, minimum=minimum, maximum=maximum, **options)
        self.expected = "an integer"
        if maximum < _INT64 - 1:
            self.expected = f"an integer between {minimum} and {maximum}"
        elif minimum > -_INT64:
            self.expected = f"an integer of at least {minimum}"

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"type": "integer"}

    def examine(self, value: Any, path: str) -> Any:
        if type(value) is float and not value.is_integer():
            raise violations.wrong_type(path, self.expected, value)
        # Bounds first: an int made of 1e300 would be one that JSON writers refuse.
        return int(super().examine(value, path))


class Text(Parameter):
    """A string; `filled` says that it must not be empty."""

    kinds = (str,)
    expected = "a string"

    def __init__(
        self,
        description: str = "",
        *,
        filled: bool = False,
        max_length: int | None = None,
        pattern: str | None = None,
        **options: Any,
    ) -> None:
        self.filled, self.max_length = filled, max_length
        self.pattern = re.compile(pattern) if pattern else None
        self.simple = not filled and max_length is None and pattern is None
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        keywords: dict[str, Any] = {"type": "string"}
        if self.filled:
            keywords["minLength"] = 1
        if self.max_length is not None:
            keywords["maxLength"] = self.max_length
        if self.pattern:
            keywords["pattern"] = f"^{self.pattern.pattern}$"
        return keywords

    def examine(self, value: Any, path: str) -> Any:
        if self.filled and not value:
            raise violations.empty(path, "a string")
        if self.max_length is not None and len(value) > self.max_length:
            raise violations.too_long(path, "a string", len(value), self.max_length)
        if self.pattern and not self.pattern.fullmatch(value):
            raise violations.wrong_pattern(path, f"^{self.pattern.pattern}$")
        return value


class Choice(Parameter):
    """One of a few strings."""

    kinds = (str,)

    def __init__(self, *values: str, description: str = "", **options: Any) -> None:
        self.values = values
        self.expected = f"one of {violations.quoted(values, 'or')}" if len(values) > 1 else f"'{values[0]}'"
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.values)}

    def examine(self, value: Any, path: str) -> Any:
        if value not in self.values:
            raise violations.unsupported(path, value, self.values)
        return value


def described(field: Parameter) -> dict[str, Any]:
    """Return the JSON Schema of a field inside another, null and description included."""
    keywords = dict(field.metadata)
    if not field.allow_none:
        return keywords
    if "type" in keywords:
        keywords["type"] = [keywords["type"], "null"]
        if "enum" in keywords:
            keywords["enum"] = [*keywords["enum"], None]
        return keywords
    return {**keywords, "anyOf": [*keywords["anyOf"], {"type": "null"}]}
