"""A small value for a JSON schema, which the echo provider needs to call tools and to fill in structured answers."""

from __future__ import annotations

import json
import math
from typing import Any

#: How much one answer says at most: `n` multiplies it, and a few nested references in a schema ask for millions.
MOST_CHARACTERS = 100_000


def example(schema: dict[str, Any], text: str) -> Any:
    """Return a small value that fits a JSON schema: required properties only, and `text` for strings.

    Understands what structured outputs allow: types, `enum`, `const`, `$ref` within the schema, `anyOf`, bounds. What
    is nested without end, or grows too long, is null there.
    """
    return _Example(schema, text).of(schema)


class _Example:
    """One walk over a schema, and how many more characters it may write."""

    def __init__(self, root: dict[str, Any], text: str) -> None:
        self.root = root
        self.text = text
        self.left = MOST_CHARACTERS

    def of(self, schema: Any, depth: int = 0) -> Any:
        self.left -= 1
        if not isinstance(schema, dict) or depth > 30 or self.left < 0:
            return None
        if "const" in schema:
            return self._given(schema["const"])
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self._given(schema["enum"][0])
        if isinstance(schema.get("$ref"), str):
            return self.of(self._at(schema["$ref"]), depth + 1)
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self.of(schema[key][0], depth + 1)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        low = _number(schema, "minimum", 0)
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return math.ceil(low if low > 0 else min(0, math.floor(_number(schema, "maximum", 0))))
            case "number":
                return low if low > 0 else min(0, _number(schema, "maximum", 0))
            case "boolean":
                return False
        return None

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        values: list[Any] = []
        while len(values) < _number(schema, "minItems", 0) and self.left > 0:
            values.append(self.of(schema.get("items", {}), depth + 1))
        return values

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        known = schema.get("properties")
        required = schema.get("required")
        value = {}
        for name in required if isinstance(required, list) else []:
            self.left -= len(str(name))
            if self.left < 0:
                break
            value[str(name)] = self.of(known.get(name, {}) if isinstance(known, dict) else {}, depth + 1)
        return value

    def _string(self, schema: dict[str, Any]) -> str:
        most = min(_number(schema, "maxLength", self.left), self.left)
        least = min(_number(schema, "minLength", 0), most)
        text = self.text[: max(int(most), 0)].ljust(int(least), "x")
        self.left -= len(text)
        return text

    def _given(self, value: Any) -> Any:
        self.left -= len(json.dumps(value, ensure_ascii=False))
        return value if self.left >= 0 else None

    def _at(self, reference: str) -> Any:
        """Resolve a JSON pointer into the schema itself (RFC 6901); anything else is nothing."""
        found: Any = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _number(schema: dict[str, Any], key: str, default: float) -> float:
    value = schema.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else default
