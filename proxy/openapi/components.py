"""Component schemas from marshmallow schemas: what has a title there becomes one of its own."""

from __future__ import annotations

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from proxy.request.parameters import Parameter, described

_OF_THE_USE = ("default", "deprecated")


class Components:
    """The component schemas of one document: `schemas`, added under their titles by whatever uses them."""

    def __init__(self, title: str, version: str, **info: Any) -> None:
        """Begin a document; `info` is its `info` object's."""
        self._marshmallow = MarshmallowPlugin()
        self.spec = APISpec(title, version, "3.1.1", plugins=[self._marshmallow], info=info)
        converter = self._marshmallow.converter
        assert converter is not None
        components = self

        def parameter(_: Any, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
            if not isinstance(field, Parameter):
                return {}
            # What was found before knows nothing of the field's forms.
            ret.clear()
            return components.hoisted(described(field))

        converter.add_attribute_function(parameter)  # type: ignore[no-untyped-call]

    def add(self, name: str, schema: type[Schema], description: str, **keywords: Any) -> None:
        """Add a schema under a name, and all titled forms in it; `keywords` are JSON Schema's beside its fields."""
        self.spec.components.schema(name, component={"description": description, **keywords}, schema=schema)

    def hoisted(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a JSON Schema in which forms with a title are references, after adding these.

        Raises `ValueError` where one title has two forms.
        """
        own = {name: value for name, value in schema.items() if name != "title"}
        if "properties" in own:
            own["properties"] = {name: self.hoisted(member) for name, member in own["properties"].items()}
        if "anyOf" in own:
            own["anyOf"] = [self.hoisted(form) for form in own["anyOf"]]
        for keyword in ("items", "additionalProperties"):
            if keyword in own:
                own[keyword] = self.hoisted(own[keyword])
        if "title" not in schema:
            return own
        use = {name: own.pop(name) for name in _OF_THE_USE if name in own}
        nullable = _without_null(own)
        there = self.spec.components.schemas
        if there.setdefault(schema["title"], own) != own:
            raise ValueError(f"two different forms are called {schema['title']}")
        reference = {"$ref": f"#/components/schemas/{schema['title']}"}
        if not nullable:
            return reference | use
        told = {"description": own["description"]} if "description" in own else {}
        return {"anyOf": [reference, {"type": "null"}], **told, **use}


def _without_null(schema: dict[str, Any]) -> bool:
    """Take null out of what a form allows, in place; say whether it was there."""
    if isinstance(schema.get("type"), list):
        schema["type"] = next(kind for kind in schema["type"] if kind != "null")
        return True
    forms = schema.get("anyOf", [])
    schema_of_null = {"type": "null"}
    if "type" not in schema and schema_of_null in forms:
        schema["anyOf"] = [form for form in forms if form != schema_of_null]
        return True
    return False
