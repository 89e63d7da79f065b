"""The marshmallow fields that hold other fields: arrays, objects, and values of one of several forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import missing

from proxy.request import violations
from proxy.request.parameters import Parameter, described

_TAG = "Which form this is."


class Array(Parameter):
    """An array of one kind of item.

    `filled` says that it must not be empty; items that `plain` is true of need no further look.
    """

    kinds = (list,)

    def __init__(
        self,
        item: Parameter,
        description: str = "",
        *,
        filled: bool = False,
        max_length: int | None = None,
        of: str = "",
        plain: Callable[[Any], bool] | None = None,
        **options: Any,
    ) -> None:
        self.item, self.plain = item, plain
        self.filled, self.max_length = filled, max_length
        self.expected = f"an array of {of}" if of else "an array"
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        keywords: dict[str, Any] = {"type": "array", "items": described(self.item)}
        if self.filled:
            keywords["minItems"] = 1
        if self.max_length is not None:
            keywords["maxItems"] = self.max_length
        return keywords

    def examine(self, value: Any, path: str) -> Any:
        if self.filled and not value:
            raise violations.empty(path, "an array")
        if self.max_length is not None and len(value) > self.max_length:
            raise violations.too_long(path, "an array", len(value), self.max_length)
        plain = self.plain
        for index, entry in enumerate(value):
            if plain is not None and plain(entry):
                continue
            value[index] = self.item.deserialize(entry, f"{path}[{index}]")
        return value


class Object(Parameter):
    """An object; keys that are not members are legal and are left as they are."""

    kinds = (dict,)
    expected = "an object"

    def __init__(self, members: Mapping[str, Parameter], description: str = "", **options: Any) -> None:
        self.members = members
        self.simple = not members
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        keywords: dict[str, Any] = {"type": "object"}
        if self.members:
            keywords["properties"] = {name: described(member) for name, member in self.members.items()}
        if required := [name for name, member in self.members.items() if member.required]:
            keywords["required"] = required
        return keywords

    def examine(self, value: Any, path: str) -> Any:
        for name, member in self.members.items():
            if name in value:
                entry = value[name]
                if not (member.simple and type(entry) in member.kinds):
                    value[name] = member.deserialize(entry, f"{path}.{name}")
            elif member.required:
                raise violations.missing_parameter(f"{path}.{name}")
        return value


class Entries(Parameter):
    """An object whose keys are the caller's own."""

    kinds = (dict,)
    expected = "an object"

    def __init__(
        self,
        entry: Parameter,
        description: str = "",
        *,
        max_entries: int | None = None,
        max_name: int | None = None,
        **options: Any,
    ) -> None:
        self.entry, self.max_entries, self.max_name = entry, max_entries, max_name
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        keywords: dict[str, Any] = {"type": "object", "additionalProperties": described(self.entry)}
        if self.max_entries is not None:
            keywords["maxProperties"] = self.max_entries
        if self.max_name is not None:
            keywords["propertyNames"] = {"maxLength": self.max_name}
        return keywords

    def examine(self, value: Any, path: str) -> Any:
        if self.max_entries is not None and len(value) > self.max_entries:
            raise violations.too_many_properties(path, len(value), self.max_entries)
        for name, entry in value.items():
            if self.max_name is not None and len(name) > self.max_name:
                raise violations.long_property_name(path, len(name), self.max_name)
            value[name] = self.entry.deserialize(entry, f"{path}.{violations.shortened(name)}")
        return value


class Tagged(Parameter):
    """An object of one of several forms, told by its string `tag`; tags in which `passing` is found go unchecked."""

    kinds = (dict,)
    expected = "an object"

    def __init__(
        self,
        tag: str,
        forms: Mapping[str, Object],
        description: str = "",
        *,
        passing: re.Pattern[str] | None = None,
        **options: Any,
    ) -> None:
        self.tag, self.forms, self.passing = tag, forms, passing
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        forms: list[dict[str, Any]] = []
        for name, form in self.forms.items():
            keywords = described(form)
            keywords["properties"] = {self.tag: {"type": "string", "enum": [name], "description": _TAG}} | keywords.get(
                "properties", {}
            )
            keywords["required"] = [self.tag, *keywords.get("required", [])]
            forms.append(keywords)
        if self.passing:
            named = {"type": "string", "pattern": self.passing.pattern, "description": _TAG}
            forms.append({"type": "object", "properties": {self.tag: named}, "required": [self.tag]})
        return {"anyOf": forms}

    def examine(self, value: Any, path: str) -> Any:
        tag = value.get(self.tag, missing)
        if type(tag) is not str:
            if tag is missing:
                raise violations.missing_parameter(f"{path}.{self.tag}")
            raise violations.wrong_type(f"{path}.{self.tag}", "a string", tag)
        form = self.forms.get(tag)
        if form is not None:
            return form.examine(value, path)
        if self.passing and self.passing.search(tag):
            return value
        raise violations.unsupported(f"{path}.{self.tag}", tag, tuple(self.forms))


class Either(Parameter):
    """A value of one of several JSON types."""

    def __init__(self, *alternatives: Parameter, description: str = "", **options: Any) -> None:
        self.alternatives = alternatives
        self.by_kind = {kind: alternative for alternative in alternatives for kind in alternative.kinds}
        self.kinds = tuple(self.by_kind)
        self.expected = " or ".join(alternative.expected for alternative in alternatives)
        super().__init__(description, **options)

    def describe(self) -> dict[str, Any]:
        return {"anyOf": [described(alternative) for alternative in self.alternatives]}

    def examine(self, value: Any, path: str) -> Any:
        return self.by_kind[type(value)].examine(value, path)
