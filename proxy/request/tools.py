"""The tools of a chat request, and the ways to choose among them."""

from __future__ import annotations

from proxy.request.parameters import Boolean, Choice, Parameter, Text
from proxy.request.structures import Array, Object, Tagged

# OpenAI also limits the letters of a name. That is left to the upstream: engines take dotted names.
_FUNCTION: dict[str, Parameter] = {
    "name": Text("What the model calls the function by.", required=True, filled=True, max_length=64),
    "description": Text("What the function does, for the model."),
    "parameters": Object({}, "The arguments as JSON Schema; absent means none."),
}
_STRICT: dict[str, Parameter] = {"strict": Boolean("Whether arguments must keep to the schema.", allow_none=True)}

FUNCTION = Object(_FUNCTION)
"""A function of the older `functions` parameter."""

_GRAMMAR = Object({"definition": Text(required=True), "syntax": Choice("lark", "regex", required=True)}, required=True)
_FORMAT = Tagged("type", {"text": Object({}), "grammar": Object({"grammar": _GRAMMAR})}, "What input looks like.")
_CUSTOM = Object(
    {
        "name": Text("What the model calls the tool by.", required=True, filled=True),
        "description": Text("What the tool does, for the model."),
        "format": _FORMAT,
    },
    required=True,
)

# Search tools are not in OpenAI's chat contract; whether a model may search is decided where capabilities are checked.
TOOL = Tagged(
    "type",
    {
        "function": Object({"function": Object(_FUNCTION | _STRICT, required=True)}),
        "custom": Object({"custom": _CUSTOM}),
    },
    passing="web_search",
)
"""One entry of `tools`."""

_NAMED = Object({"name": Text(required=True)}, required=True)
_ALLOWED = Object(
    {"mode": Choice("auto", "required", required=True), "tools": Array(Object({}), required=True, of="tools")},
    required=True,
)

TOOL_CHOICE = Tagged(
    "type",
    {
        "function": Object({"function": _NAMED}),
        "custom": Object({"custom": _NAMED}),
        "allowed_tools": Object({"allowed_tools": _ALLOWED}),
    },
)
"""The forms of `tool_choice` that name tools."""
