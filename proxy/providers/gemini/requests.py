"""OpenAI's request as Gemini's `generateContent` takes it."""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.providers import parts, translation
from proxy.providers.parts import Media, Text
from proxy.providers.translation import Block, Seal, ToolCall, ToolResult, Turn, asks, unsupported

#: What Gemini 3 takes in place of a call's signature that nobody has, as for a call that another model made.
NO_SIGNATURE = "skip_thought_signature_validator"

#: Our name for a parameter that is a number, or a text, on both sides.
_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
#: What there is no word for, and what the answer is the same without in shape.
_DROPPED = ("logit_bias", "moderation", "prediction", "service_tier", "verbosity")
_CHOICES = {"none": "NONE", "auto": "AUTO", "required": "ANY", "named": "ANY"}

_LEVELS = {"none": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
#: Tokens for the thoughts of models before Gemini 3, as Google's own layer for OpenAI's clients has them.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192}
_LARGEST_BUDGET = 24576
#: A model that cannot be kept from thinking takes this as the least.
_PRO_BUDGETS = {"none": 128}
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


def translated(body: dict[str, Any], seal: Seal, model: str) -> tuple[dict[str, Any], list[str]]:
    """Return Gemini's request and the names of the parameters that are not in it.

    Raises `Reject` for what cannot be left out.
    """
    dropped = [name for name in _DROPPED if asks(body, name) and body[name] not in ("default", "medium")]
    if asks(body, "modalities"):
        raise unsupported("modalities")
    system, turns = translation.conversation(body["messages"], seal)
    request: dict[str, Any] = {"contents": _contents(turns, model)}
    if system:
        request["systemInstruction"] = {"parts": [{"text": text.text} for text in system]}
    request |= _tools(body, dropped)
    generation = _generation(body)
    effort = body.get("reasoning_effort")
    if effort is not None:
        thinking = _thinking(model, effort)
        if thinking is None:
            dropped.append("reasoning_effort")
        else:
            generation["thinkingConfig"] = thinking
    if generation:
        request["generationConfig"] = generation
    return request, dropped


def _contents(turns: list[Turn], model: str) -> list[Block]:
    given: set[str] = set()  # the ids that Gemini has made itself: it wants these back, and no others
    order: dict[str, int] = {}
    spoken: list[tuple[str, list[Block]]] = []
    for turn in turns:
        blocks: list[Block] = []
        signed = False
        results: list[tuple[int, Block]] = []
        for piece in turn.pieces:
            if isinstance(piece, Text):
                blocks.append({"text": piece.text})
            elif isinstance(piece, Media):
                if piece.url is not None:
                    raise parts.by_url(piece)
                blocks.append({"inlineData": {"mimeType": piece.media_type, "data": piece.data}})
            elif isinstance(piece, ToolCall):
                carried = piece.carried or {}
                order[piece.id] = len(order)
                call: Block = {"name": piece.name, "args": piece.arguments}
                if carried.get("id"):
                    given.add(piece.id)
                    call["id"] = piece.id
                block: Block = {"functionCall": call}
                signature = carried.get("signature") if carried.get("model") == model else None
                if signature is None and not signed and _major(model) >= 3:
                    signature = NO_SIGNATURE
                if signature is not None:
                    block["thoughtSignature"] = signature
                # Of calls that are made at once only the first has a signature.
                signed = True
                blocks.append(block)
            else:
                results.append((order.get(piece.id, len(order)), _result(piece, given)))
        # Results without ids are told apart by their order, which must be that of the calls.
        blocks += [block for _, block in sorted(results, key=lambda result: result[0])]
        spoken.append(("model" if turn.role == "assistant" else "user", blocks))
    return [{"role": role, "parts": blocks} for role, blocks in translation.merged(spoken)]


def _result(result: ToolResult, given: set[str]) -> Block:
    """What a tool has said is an object to Gemini: any other JSON, and text, is its `result`."""
    said = "\n".join(piece.text for piece in result.content if isinstance(piece, Text))
    try:
        response = orjson.loads(said)
    except ValueError:
        response = None
    own: Block = {"name": result.name, "response": response if isinstance(response, dict) else {"result": said}}
    if result.id in given:
        own["id"] = result.id
    return {"functionResponse": own}


def _tools(body: dict[str, Any], dropped: list[str]) -> Block:
    tools = translation.tools(body)
    request: Block = {}
    offered: list[Block] = []
    if tools.functions:
        offered.append({"functionDeclarations": [_declaration(function) for function in tools.functions]})
        mode = _CHOICES[tools.choice]
        if mode == "AUTO" and any(function.get("strict") for function in tools.functions):
            mode = "VALIDATED"
        calling: Block = {"mode": mode}
        if tools.name is not None:
            calling["allowedFunctionNames"] = [tools.name]
        if mode != "AUTO":
            request["toolConfig"] = {"functionCallingConfig": calling}
        if not tools.parallel:
            dropped.append("parallel_tool_calls")
    search = body.get("web_search_options")
    if search is not None:
        offered.append({"googleSearch": {}})
        dropped += [f"web_search_options.{name}" for name in search if search[name] is not None]
    for tool in tools.others:
        kind = re.sub(r"[^a-z]", "", tool["type"].lower())
        if kind.startswith("urlcontext"):
            offered.append({"urlContext": {}})
        elif not kind.startswith(("websearch", "googlesearch")):
            raise unsupported("tools", "Tools of this type are not supported with this model.")
        elif {"googleSearch": {}} not in offered:
            offered.append({"googleSearch": {}})
    if offered:
        request["tools"] = offered
    return request


def _declaration(function: dict[str, Any]) -> Block:
    declared: Block = {"name": function["name"]}
    if function.get("description"):
        declared["description"] = function["description"]
    if function.get("parameters"):
        declared["parametersJsonSchema"] = function["parameters"]
    return declared


def _generation(body: dict[str, Any]) -> Block:
    generation: Block = {theirs: body[ours] for ours, theirs in _SAME.items() if body.get(ours) is not None}
    most = translation.most_tokens(body)
    if most:
        generation["maxOutputTokens"] = most
    stops = translation.stops(body)
    if stops:
        generation["stopSequences"] = stops
    if body.get("seed") is not None:
        generation["seed"] = body["seed"] & 0x7FFFFFFF  # 32 bits there, 64 at OpenAI
    if body.get("logprobs"):
        generation["responseLogprobs"] = True
        generation["logprobs"] = body.get("top_logprobs") or 0
    form = body.get("response_format") or {"type": "text"}
    if form["type"] != "text":
        generation["responseMimeType"] = "application/json"
        if form["type"] == "json_schema" and form["json_schema"].get("schema") is not None:
            generation["responseJsonSchema"] = form["json_schema"]["schema"]
    return generation


def _thinking(model: str, effort: str) -> Block | None:
    """Return how much to think in a model's own words; `None` for one that does not think, or is not known to."""
    version = _VERSION.search(model)
    if _major(model) >= 3 or (version is None and model.endswith("-latest")):
        thinking: Block = {"thinkingLevel": _LEVELS.get(effort, "MINIMAL")}
    elif version is not None and version.groups() == ("2", "5"):
        least = _PRO_BUDGETS if "-pro" in model else {}
        thinking = {"thinkingBudget": least.get(effort, _BUDGETS.get(effort, _LARGEST_BUDGET))}
    else:
        return None
    return thinking | ({"includeThoughts": True} if effort != "none" else {})


def _major(model: str) -> int:
    version = _VERSION.search(model)
    return int(version[1]) if version else 0
