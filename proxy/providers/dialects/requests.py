"""How a request is made to fit a dialect: what is renamed, clamped, left out and told, or refused."""

from __future__ import annotations

from typing import Any

from proxy.providers.dialects import Dialect
from proxy.providers.translation import allowed, asks, function_name, unsupported
from proxy.request.schemas import CHAT_PARAMETERS

#: What does not bear upon the answer: left out without a word.
QUIET = frozenset(
    ("metadata", "store", "user", "safety_identifier")
    + ("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options")
)
#: What the shape of the answer depends on, or what must not happen unchecked: refused where it is not understood.
SHAPE = frozenset(
    ("n", "logprobs", "top_logprobs", "audio", "modalities", "tools", "functions", "function_call", "moderation")
)
_LOOKED_AFTER = frozenset(
    ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "tool_choice")
    + ("response_format", "reasoning_effort", "web_search_options")
)
_NOTHING: dict[str, Any] = {"tools": [], "functions": [], "parallel_tool_calls": True}
_LIMITS = ("max_completion_tokens", "max_tokens")
_NO_FORM = "Invalid parameter: 'response_format' of type '{}' is not supported with this model."


def fit(dialect: Dialect, body: dict[str, Any]) -> list[str]:
    """Make a request fit, in place; return the names of the parameters that were left out.

    Raises `Reject` 400 `unsupported_parameter` for what cannot be left out.
    """
    dropped: list[str] = []
    for name in [name for name in body if name in CHAT_PARAMETERS and name not in _LOOKED_AFTER | dialect.takes]:
        asked = asks(body, name) and body[name] != _NOTHING.get(name)
        del body[name]
        if asked and name in SHAPE:
            raise unsupported(name)
        if asked and name not in QUIET:
            dropped.append(name)
    given = [body.pop(name, None) for name in _LIMITS]
    most = given[1] if given[0] is None else given[0]
    if most is not None:
        body[dialect.limit] = most
    for name, (low, high) in dialect.clamped.items():
        if body.get(name) is not None:
            body[name] = min(max(body[name], low), high)
    _tools(dialect, body)
    for step in dialect.steps:
        step(body, dropped)
    form = (body.get("response_format") or {}).get("type", "text")
    if form == "text":
        body.pop("response_format", None)
    elif form in ("json_object", "json_schema") and form not in dialect.forms:
        raise unsupported("response_format", _NO_FORM.format(form))
    # What no step has taken up is not understood.
    if "web_search_options" in body and "web_search_options" not in dialect.takes:
        raise unsupported("web_search_options")
    if "reasoning_effort" not in dialect.takes and body.pop("reasoning_effort", None) is not None:
        dropped.append("reasoning_effort")
    body["messages"] = [
        {**message, "role": "system"} if message["role"] == "developer" else message for message in body["messages"]
    ]
    return dropped


def _tools(dialect: Dialect, body: dict[str, Any]) -> None:
    """Bring the choice among the tools into a form that the dialect takes."""
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    if any(tool["type"] == "custom" for tool in tools):
        raise unsupported("tools", "Tools of type 'custom' are not supported with this model.")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        tools, choice = allowed(tools, choice["allowed_tools"])
        body["tools"], body["tool_choice"] = tools, choice
    if choice is None:
        return
    kind = "named" if isinstance(choice, dict) else choice
    if kind == "named" and "one" in dialect.choices:
        name = choice["function"]["name"]
        body["tools"] = [tool for tool in tools if function_name(tool) == name]
        body["tool_choice"] = "required"
    elif kind not in dialect.choices:
        raise unsupported("tool_choice")
    elif "tool_choice" not in dialect.takes:
        del body["tool_choice"]
        if kind == "none":
            body.pop("tools", None)
