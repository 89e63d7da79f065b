"""The tools of a chat request, and the ways to choose among them."""

from __future__ import annotations

import re

from proxy.request.parameters import Boolean, Choice, Parameter, Text
from proxy.request.structures import Array, Object, Tagged

# OpenAI also limits the letters of a name. That is left to the upstream: engines take dotted names.
_FUNCTION: dict[str, Parameter] = {
    "name": Text("What the model calls the function by.", required=True, filled=True, max_length=64),
    "description": Text("What the function does, for the model."),
    "parameters": Object({}, "The arguments as JSON Schema; absent means none."),
}
_STRICT: dict[str, Parameter] = {"strict": Boolean("Whether arguments must keep to the schema.", allow_none=True)}

FUNCTION = Object(_FUNCTION, title="Function")
"""A function of the older `functions` parameter."""

_GRAMMAR = Object(
    {
        "definition": Text("The grammar.", required=True),
        "syntax": Choice("lark", "regex", description="What the grammar is written in.", required=True),
    },
    "What input must fit.",
    required=True,
)
_FORMAT = Tagged(
    "type",
    {"text": Object({}, "Any text."), "grammar": Object({"grammar": _GRAMMAR}, "Text that fits a grammar.")},
    "What input looks like.",
)
_CUSTOM = Object(
    {
        "name": Text("What the model calls the tool by.", required=True, filled=True),
        "description": Text("What the tool does, for the model."),
        "format": _FORMAT,
    },
    "The tool.",
    required=True,
)

SEARCH_TOOL = re.compile(
    r"^(?!file_search|tool_search).*([Ss]earch|[Ww]eb_|[Bb]rows|[Uu]rl_?[Cc]ontext|[Gg]rounding|visit_website)"
    r"|^builtin_function$"
)
"""The types of tools by which providers search the web themselves; `builtin_function` is Moonshot's."""

# Search tools are not in OpenAI's chat contract; whether a model may search is decided where capabilities are checked.
TOOL = Tagged(
    "type",
    {
        "function": Object(
            {"function": Object(_FUNCTION | _STRICT, "The function.", required=True)},
            "A function of the caller's, which gets JSON.",
            title="FunctionTool",
        ),
        "custom": Object({"custom": _CUSTOM}, "A tool of the caller's, which gets text.", title="CustomTool"),
    },
    passing=SEARCH_TOOL,
    title="Tool",
)
"""One entry of `tools`."""

_NAMED = Object({"name": Text("The name of the tool.", required=True)}, "Which one.", required=True)
_ALLOWED = Object(
    {
        "mode": Choice("auto", "required", description="Whether one of them must be called.", required=True),
        "tools": Array(Object({}), "The tools, each by its type and name.", required=True, of="tools"),
    },
    "Which ones, and whether one must be called.",
    required=True,
)

TOOL_CHOICE = Tagged(
    "type",
    {
        "function": Object({"function": _NAMED}, "This function must be called.", title="FunctionChoice"),
        "custom": Object({"custom": _NAMED}, "This custom tool must be called.", title="CustomToolChoice"),
        "allowed_tools": Object({"allowed_tools": _ALLOWED}, "Only these may be called.", title="AllowedTools"),
    },
)
"""The forms of `tool_choice` that name tools."""
