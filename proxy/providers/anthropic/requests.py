"""OpenAI's request in the words of Anthropic's Messages API."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from proxy.providers import claude
from proxy.providers.parts import Media, Text, not_taken
from proxy.providers.translation import (
    JSON_INSTRUCTION,
    Block,
    Seal,
    ToolCall,
    ToolResult,
    Tools,
    Translated,
    Turn,
    asks,
    conversation,
    merged,
    most_tokens,
    stops,
    tools,
    unsupported,
)
from proxy.request.schemas import CHAT_PARAMETERS

#: From this version of the API on there are no sampling parameters, not even with their default values.
WITHOUT_SAMPLING = "2026-10-21"
#: How often the tool searches at most, by `search_context_size`.
_SEARCHES = {"low": 1, "medium": 5, "high": 10}
_IMAGES = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
_REFUSED = ("n", "logprobs", "top_logprobs", "modalities", "audio")
_DROPPED = ("seed", "presence_penalty", "frequency_penalty", "logit_bias", "moderation")
_TIERS = {"auto": "auto", "default": "standard_only"}


@dataclass(slots=True, frozen=True)
class Options:
    """What the operator chooses: the API's `version`, tokens of an answer that bounds none, the search tool's type."""

    version: str = "2023-06-01"
    max_tokens: int = 4096
    web_search: str = "web_search_20250305"


def translate(body: dict[str, Any], seal: Seal, options: Options) -> Translated:
    """Return the request but for `stream`; raise `Reject` for what it has no words for."""
    for name in _REFUSED:
        if asks(body, name):
            raise unsupported(name)
    system, turns = conversation(body["messages"], seal)
    request: dict[str, Any] = {
        "model": body["model"],
        "max_tokens": most_tokens(body) or options.max_tokens,
        "messages": [{"role": role, "content": blocks} for role, blocks in merged(map(_turn, turns))],
    }
    made = Translated(request, [name for name in _DROPPED if asks(body, name)])
    found = tools(body)
    made.legacy = found.legacy
    _tools(request, found, body, options)
    instructions: list[Block] = [_text(text) for text in system]
    made.json = _form(made, body)
    if made.json:
        instructions.append({"type": "text", "text": JSON_INSTRUCTION})
    if instructions:
        request["system"] = instructions
    _thinking(made, body, turns, bounded=request["max_tokens"] != options.max_tokens)
    _sampling(made, body, options)
    if words := stops(body):
        request["stop_sequences"] = words
    if user := body.get("safety_identifier") or body.get("user"):
        request["metadata"] = {"user_id": user}
    if tier := body.get("service_tier"):
        if tier in _TIERS:
            request["service_tier"] = _TIERS[tier]
        else:
            made.dropped.append("service_tier")
    request |= {name: body[name] for name in body.keys() - CHAT_PARAMETERS if body[name] is not None}
    return made


def _turn(turn: Turn) -> tuple[str, list[Block]]:
    blocks: list[Block] = []
    called = False
    for piece in turn.pieces:
        if isinstance(piece, ToolCall):
            # The first call's thoughts began the message, before its text; those of others stood between the calls.
            blocks[len(blocks) if called else 0 : 0] = piece.carried or []
            called = True
            blocks.append({"type": "tool_use", "id": piece.id, "name": piece.name, "input": piece.arguments})
        elif isinstance(piece, ToolResult):
            content = [_block(inner) for inner in piece.content]
            result = {"type": "tool_result", "tool_use_id": piece.id}
            blocks.append(result | {"content": content} if content else result)
        else:
            blocks.append(_block(piece))
    return turn.role, blocks


def _block(piece: Text | Media) -> Block:
    return _text(piece) if isinstance(piece, Text) else _media(piece)


def _text(text: Text) -> Block:
    block: Block = {"type": "text", "text": text.text}
    return block | {"cache_control": {"type": "ephemeral"}} if text.cache else block


def _media(media: Media) -> Block:
    kind, source = media.media_type, dict[str, Any]()
    if media.url is not None:
        source = {"type": "url", "url": media.url}
    elif media.kind == "image" and kind in _IMAGES or media.kind == "file" and kind == "application/pdf":
        source = {"type": "base64", "media_type": kind, "data": media.data}
    elif media.kind == "file" and (kind.startswith("text/") or kind in ("application/json", "application/xml")):
        text = base64.b64decode(media.data).decode("utf-8", "replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
    if not source or media.kind == "audio":
        raise not_taken(media.path, f"Content of type '{kind}' is not supported with this model.")
    block: Block = {"type": "image" if media.kind == "image" else "document", "source": source}
    if media.kind == "file" and media.name:
        block["title"] = media.name
    return block | {"cache_control": {"type": "ephemeral"}} if media.cache else block


def _tools(request: dict[str, Any], found: Tools, body: dict[str, Any], options: Options) -> None:
    offered = [_function(function) for function in found.functions]
    search = body.get("web_search_options")
    for tool in found.others:
        if tool["type"] in ("web_search", "web_search_preview"):
            search = search or tool
        elif tool["type"].startswith(("web_search_2", "web_fetch_2")):
            offered.append(tool)
        else:
            raise unsupported("tools", f"Tools of type '{tool['type']}' are not supported with this model.")
    if search is not None:
        offered.append(_search(search, options.web_search))
    if not offered:
        return
    request["tools"] = offered
    choice: dict[str, Any] = {"type": {"required": "any", "named": "tool"}.get(found.choice, found.choice)}
    if found.name is not None:
        choice["name"] = found.name
    if found.choice != "none" and not found.parallel:
        choice["disable_parallel_tool_use"] = True
    if choice != {"type": "auto"}:
        request["tool_choice"] = choice


def _function(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": {"type": "object", **(function.get("parameters") or {})}}
    tool["input_schema"].setdefault("properties", {})
    if function.get("description"):
        tool["description"] = function["description"]
    if function.get("strict"):
        tool["strict"] = True
    return tool


def _search(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    tool = {"type": kind, "name": "web_search", "max_uses": _SEARCHES[asked.get("search_context_size") or "medium"]}
    place = asked.get("user_location")
    if place:
        # In the Responses API's tool the place is flat.
        tool["user_location"] = {"type": "approximate"} | (place.get("approximate") or place)
    return tool


def _form(made: Translated, body: dict[str, Any]) -> bool:
    """Ask for the form of the answer; return whether the model must be told in words."""
    asked = body.get("response_format") or {}
    schema = (asked.get("json_schema") or {}).get("schema")
    if asked.get("type") not in ("json_object", "json_schema"):
        return False
    if schema is None:
        return True
    if claude.structured(made.request["model"]):
        made.request["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return False
    if "tools" in made.request:
        message = "'response_format' of type 'json_schema' is not supported with this model beside 'tools'."
        raise unsupported("response_format", message)
    named = asked["json_schema"]
    made.form = named["name"]
    function = {"name": made.form, "description": named.get("description"), "parameters": schema}
    made.request["tools"] = [_function(function)]
    made.request["tool_choice"] = {"type": "tool", "name": made.form, "disable_parallel_tool_use": True}
    return False


def _thinking(made: Translated, body: dict[str, Any], turns: list[Turn], bounded: bool) -> None:
    effort, request = body.get("reasoning_effort"), made.request
    if effort is None:
        return
    if effort == "none":
        request["thinking"] = {"type": "disabled"}
    elif not claude.budgeted(request["model"]):
        request["thinking"] = {"type": "adaptive", "display": "summarized"}
        request["output_config"] = {**request.get("output_config", {}), "effort": claude.EFFORTS.get(effort, effort)}
    else:
        if not bounded:
            request["max_tokens"] += claude.BUDGETS[effort]
        budget = claude.budget(effort, request["max_tokens"])
        forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
        if budget is None or forced or not claude.may_think(turns):
            made.dropped.append("reasoning_effort")
        else:
            request["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _sampling(made: Translated, body: dict[str, Any], options: Options) -> None:
    """Take over temperature and nucleus where the API has them, and thinking leaves them free."""
    free = options.version < WITHOUT_SAMPLING and made.request.get("thinking", {}).get("type") in (None, "disabled")
    for name in ("temperature", "top_p"):
        value = body.get(name)
        if value in (None, 1):  # the defaults of both
            continue
        if free:
            made.request[name] = min(value, 1)
        else:
            made.dropped.append(name)
