"""OpenAI's request in the words of Bedrock's Converse API."""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.errors import Reject
from proxy.providers import claude
from proxy.providers.bedrock.turns import blocks, said, told
from proxy.providers.translation import (
    JSON_INSTRUCTION,
    Block,
    Seal,
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

#: What Converse takes for the id of a tool call.
LEGAL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Parts of Converse's own request that a caller may send beside OpenAI's parameters.
OWN = frozenset(("additionalModelRequestFields", "performanceConfig"))
#: Besides Claude up to 4.0, models that keep to a schema only as that of a tool.
_BY_TOOL = re.compile(r"nova|mistral-large")
_REFUSED = ("n", "logprobs", "top_logprobs", "modalities", "audio")
_DROPPED = ("seed", "presence_penalty", "frequency_penalty", "logit_bias", "moderation")
_TIERS = {"default": "default", "flex": "flex", "priority": "priority", "fast": "priority"}
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")


def translate(body: dict[str, Any], seal: Seal) -> Translated:
    """Return the request for either operation; raise `Reject` for what it has no words for."""
    for name in _REFUSED:
        if asks(body, name):
            raise unsupported(name)
    system, turns = conversation(body["messages"], seal)
    made = Translated({}, [name for name in _DROPPED if asks(body, name)])
    request, found = made.request, tools(body)
    made.legacy = found.legacy
    if system:
        request["system"] = [block for text in system for block in said(text)]
    made.json = _form(made, body, found)
    if made.json:
        request.setdefault("system", []).append({"text": JSON_INSTRUCTION})
    _tools(made, found, body)
    if "toolConfig" not in request:
        # Without tools Converse takes no calls and results in the conversation either.
        turns = [told(turn) for turn in turns]
    alternating = merged((turn.role, blocks(turn)) for turn in turns)
    request["messages"] = [{"role": role, "content": blocks} for role, blocks in alternating]
    if inference := _inference(body):
        request["inferenceConfig"] = inference
    _thinking(made, body, turns)
    if tier := body.get("service_tier"):
        if tier in _TIERS:
            request["serviceTier"] = {"type": _TIERS[tier]}
        elif tier != "auto":
            made.dropped.append("service_tier")
    noted = (body.get("metadata") or {}).items()
    if noted := {
        name: text for name, text in noted if name and _METADATA.fullmatch(name) and _METADATA.fullmatch(text)
    }:
        request["requestMetadata"] = noted
    _further(request, body)
    return made


def _further(request: dict[str, Any], body: dict[str, Any]) -> None:
    """Take over parameters that are not OpenAI's: those that are not Converse's either are the model's own."""
    fields = request.get("additionalModelRequestFields", {})
    for name in body.keys() - CHAT_PARAMETERS:
        if name in OWN and not isinstance(body[name], dict):
            raise Reject(400, "invalid_type", f"Invalid type for '{name}': expected an object.", param=name)
        if name == "additionalModelRequestFields":
            fields = fields | body[name]
        elif name in OWN:
            request[name] = body[name]
        elif body[name] is not None:
            fields = fields | {name: body[name]}
    if fields:
        request["additionalModelRequestFields"] = fields


def _tools(made: Translated, found: Tools, body: dict[str, Any]) -> None:
    if found.others:
        raise unsupported("tools", "Tools of this type are not supported with this model.")
    offered: list[Block] = [{"toolSpec": _function(function)} for function in found.functions]
    if body.get("web_search_options") is not None:
        if "nova" not in body["model"]:
            raise unsupported("web_search_options")
        offered.append({"systemTool": {"name": "nova_grounding"}})
    if not offered or found.choice == "none":
        return
    config: dict[str, Any] = {"tools": offered}
    if found.name is not None:
        config["toolChoice"] = {"tool": {"name": found.name}}
    elif found.choice == "required":
        config["toolChoice"] = {"any": {}}
    made.request["toolConfig"] = config
    if not found.parallel and not found.legacy:
        made.dropped.append("parallel_tool_calls")


def _function(function: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    tool: dict[str, Any] = {"name": function["name"], "inputSchema": {"json": schema}}
    if function.get("description"):
        tool["description"] = function["description"]
    if function.get("strict"):
        tool["strict"] = True
    return tool


def _form(made: Translated, body: dict[str, Any], found: Tools) -> bool:
    """Ask for the form of the answer; return whether the model must be told in words."""
    asked = body.get("response_format") or {}
    named = asked.get("json_schema") or {}
    schema = named.get("schema")
    if asked.get("type") not in ("json_object", "json_schema"):
        return False
    if schema is None:
        return True
    if claude.structured(body["model"]) and not _BY_TOOL.search(body["model"]):
        structure = {"name": named["name"], "schema": orjson.dumps(schema).decode()}
        if named.get("description"):
            structure["description"] = named["description"]
        made.request["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": structure}}}
        return False
    if found.functions:
        message = "'response_format' of type 'json_schema' is not supported with this model beside 'tools'."
        raise unsupported("response_format", message)
    made.form = named["name"]
    found.functions.append({"name": made.form, "description": named.get("description"), "parameters": schema})
    found.choice, found.name = "named", made.form
    return False


def _inference(body: dict[str, Any]) -> dict[str, Any]:
    said = {
        "maxTokens": most_tokens(body),
        "temperature": None if body.get("temperature") is None else min(body["temperature"], 1),
        "topP": body.get("top_p"),
        "stopSequences": stops(body) or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _thinking(made: Translated, body: dict[str, Any], turns: list[Turn]) -> None:
    effort, request = body.get("reasoning_effort"), made.request
    if effort is None:
        return
    if "claude" not in body["model"]:
        made.dropped.append("reasoning_effort")
        return
    if effort == "none":
        request["additionalModelRequestFields"] = {"thinking": {"type": "disabled"}}
        return
    if claude.budgeted(body["model"]):
        inference = request.get("inferenceConfig", {})
        budget = claude.budget(effort, inference.get("maxTokens", 1 << 20))
        forced = "toolChoice" in request.get("toolConfig", {})
        if budget is None or forced or not claude.may_think(turns):
            made.dropped.append("reasoning_effort")
            return
        thinking = {"type": "enabled", "budget_tokens": budget}
    else:
        thinking = {"type": "adaptive"}
        request["outputConfig"] = {**request.get("outputConfig", {}), "effort": claude.EFFORTS.get(effort, effort)}
    request["additionalModelRequestFields"] = {"thinking": thinking}
    # With thinking they have only their defaults.
    inference = request.get("inferenceConfig", {})
    for name, own in (("temperature", "temperature"), ("top_p", "topP")):
        if inference.pop(own, 1) != 1:
            made.dropped.append(name)
    if not inference:
        request.pop("inferenceConfig", None)
