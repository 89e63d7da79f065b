"""What must be done to a request for one dialect or another beyond leaving parameters out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from proxy.providers.translation import asks

Step = Callable[[dict[str, Any], list[str]], None]
"""Changes a request in place and adds to the names of what was left out; raises `Reject` where that cannot be done."""


def renamed(**names: str) -> Step:
    """Call parameters otherwise."""

    def step(body: dict[str, Any], dropped: list[str]) -> None:
        for name, other in names.items():
            if body.get(name) is not None:
                body[other] = body[name]
            body.pop(name, None)

    return step


def only(keys: str, names: str) -> Step:
    """Leave nothing in messages but these keys, and `name` in those of one role: such upstreams refuse all others."""
    kept = frozenset(keys.split())

    def step(body: dict[str, Any], dropped: list[str]) -> None:
        body["messages"] = [
            {
                key: value
                for key, value in message.items()
                if (key in kept and (value is not None or key == "content"))
                or (key == "name" and message["role"] == names)
            }
            for message in body["messages"]
        ]

    return step


def without(names: str, models: str) -> Step:
    """Leave parameters out for those upstream models that begin so."""

    def step(body: dict[str, Any], dropped: list[str]) -> None:
        if re.match(models, body["model"]):
            for name in names.split():
                if asks(body, name):
                    dropped.append(name)
                body.pop(name, None)

    return step


def short_ids(body: dict[str, Any], dropped: list[str]) -> None:
    """Give calls ids of nine letters and digits, the same for the same id; Mistral refuses all others."""

    def short(id: str) -> str:
        return id if re.fullmatch(r"[A-Za-z0-9]{9}", id) else hashlib.sha256(id.encode()).hexdigest()[:9]

    for message in body["messages"]:
        if message.get("tool_calls"):
            message["tool_calls"] = [{**call, "id": short(call["id"])} for call in message["tool_calls"]]
            for call in message["tool_calls"]:
                call.pop("index", None)
        if message["role"] == "tool":
            message["tool_call_id"] = short(message["tool_call_id"])


def any_tool(body: dict[str, Any], dropped: list[str]) -> None:
    """Say "any" where OpenAI says "required"."""
    if body.get("tool_choice") == "required":
        body["tool_choice"] = "any"


def without_strict(body: dict[str, Any], dropped: list[str]) -> None:
    """Take `strict` out of functions."""
    if body.get("tools"):
        body["tools"] = [_replaced(tool, "function", _less(tool.get("function"), "strict")) for tool in body["tools"]]


def plain_schemas(body: dict[str, Any], dropped: list[str]) -> None:
    """Take out of schemas what Mistral refuses there."""
    without_strict(body, dropped)
    for tool in body.get("tools") or ():
        if tool.get("function") and "parameters" in tool["function"]:
            parameters = _cleaned(tool["function"]["parameters"], ("$schema", "additionalProperties"))
            tool["function"] = {**tool["function"], "parameters": parameters}
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema" and "schema" in form["json_schema"]:
        schema = _cleaned(form["json_schema"]["schema"], ("$schema",))
        body["response_format"] = {**form, "json_schema": {**form["json_schema"], "schema": schema}}


def _cleaned(schema: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_cleaned(entry, keys) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _cleaned(entry, keys) for name, entry in value.items()}
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else _cleaned(value, keys)
        for key, value in schema.items()
        if key not in keys
    }


def closing_prefix(body: dict[str, Any], dropped: list[str]) -> None:
    """Leave out what the assistant has not said, and mark a last message of it as the answer's beginning."""
    body["messages"] = [
        message
        for message in body["messages"]
        if message["role"] != "assistant" or message.get("content") or message.get("tool_calls")
    ] or body["messages"]
    if body["messages"][-1]["role"] == "assistant":
        body["messages"][-1] = {**body["messages"][-1], "prefix": True}


def alternating(body: dict[str, Any], dropped: list[str]) -> None:
    """Put the instructions first and join what follows each other in the same role; Perplexity refuses all else."""
    system = [message for message in body["messages"] if message["role"] in ("system", "developer")]
    joined: list[dict[str, Any]] = []
    for message in [*system, *(message for message in body["messages"] if message not in system)]:
        role = "system" if message["role"] == "developer" else message["role"]
        if joined and joined[-1]["role"] == role:
            joined[-1]["content"] = _parts(joined[-1].get("content")) + _parts(message.get("content"))
        else:
            joined.append({"role": role, "content": message.get("content") or ""})
    for message in joined:
        if isinstance(message["content"], list) and all(part["type"] == "text" for part in message["content"]):
            message["content"] = "\n\n".join(part["text"] for part in message["content"])
    body["messages"] = joined


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def grammar(body: dict[str, Any], dropped: list[str]) -> None:
    """Say as all versions of TGI understand it which JSON the answer must be."""
    form = body.get("response_format") or {}
    if form.get("type") in ("json_object", "json_schema"):
        schema = (form.get("json_schema") or {}).get("schema") or {"type": "object"}
        body["response_format"] = {"type": "json", "value": schema}


def any_object(body: dict[str, Any], dropped: list[str]) -> None:
    """Ask for any object by a schema; LM Studio refuses `json_object`."""
    if (body.get("response_format") or {}).get("type") == "json_object":
        schema = {"name": "object", "schema": {"type": "object"}}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}


def thinking_switch(body: dict[str, Any], dropped: list[str]) -> None:
    """Turn DeepSeek's thinking off or on; it has no degrees."""
    effort = body.pop("reasoning_effort", None)
    if effort is not None and "thinking" not in body:
        body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}


def reasoning_object(body: dict[str, Any], dropped: list[str]) -> None:
    """Say how much to think in OpenRouter's own parameter, which has no "max"."""
    effort = body.pop("reasoning_effort", None)
    if effort is not None and "reasoning" not in body:
        body["reasoning"] = {"effort": "xhigh" if effort == "max" else effort}


def searched_by_groq(body: dict[str, Any], dropped: list[str]) -> None:
    """Let Groq's compound models search, as they do by themselves, and give others its browser."""
    options = body.pop("web_search_options", None)
    if options is None:
        return
    dropped += (f"web_search_options.{name}" for name in ("search_context_size", "user_location") if options.get(name))
    if "compound" not in body["model"]:
        body["tools"] = [*(body.get("tools") or ()), {"type": "browser_search"}]


def searched_by_perplexity(body: dict[str, Any], dropped: list[str]) -> None:
    """Say where the user is in one flat object without a time zone."""
    options = body.get("web_search_options")
    if not options or not options.get("user_location"):
        return
    place = dict(options["user_location"]["approximate"])
    if place.pop("timezone", None):
        dropped.append("web_search_options.user_location.timezone")
    body["web_search_options"] = {**options, "user_location": place}


def searched_by_openrouter(body: dict[str, Any], dropped: list[str]) -> None:
    """Ask for OpenRouter's search, which works with every model there."""
    options = body.get("web_search_options")
    if options is None:
        return
    size = options.get("search_context_size") or "medium"
    if options.get("user_location"):
        dropped.append("web_search_options.user_location")
    others = [plugin for plugin in body.get("plugins") or () if plugin.get("id") != "web"]
    body["plugins"] = [*others, {"id": "web", "max_results": {"low": 3, "medium": 5, "high": 10}[size]}]
    body["web_search_options"] = {"search_context_size": size}


def _less(value: Any, key: str) -> Any:
    return {name: each for name, each in value.items() if name != key} if isinstance(value, dict) else value


def _replaced(value: dict[str, Any], key: str, other: Any) -> dict[str, Any]:
    return {**value, key: other} if key in value else value
