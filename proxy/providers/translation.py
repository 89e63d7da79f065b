"""OpenAI's requests for providers that translate: turns, tool calls and what is sealed into their ids, parameters."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.errors import Reject
from proxy.providers.parts import Media, Text, pieces
from proxy.upstreams.sealing import Sealer

#: The values of parameters that ask for nothing.
_NEUTRAL: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "service_tier": "auto",
    "response_format": {"type": "text"},
}

#: What a model is told that has no other way of being asked for JSON.
JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no other text, and no code fence around it."

Block = dict[str, Any]
"""A part of a message in an upstream's own dialect."""


@dataclass(slots=True)
class ToolCall:
    """A call that the model has made. `carried` is what was sealed into its id, which here is the upstream's again."""

    id: str
    name: str
    arguments: dict[str, Any]
    carried: Any = None


@dataclass(slots=True)
class ToolResult:
    """What a tool has said to a call."""

    id: str
    name: str
    content: list[Text | Media]


@dataclass(slots=True)
class Turn:
    """What one message says, or several results of tools together; `role` is "user" or "assistant"."""

    role: str
    pieces: list[Text | Media | ToolCall | ToolResult]


@dataclass(slots=True, frozen=True)
class Seal:
    """Carries in the ids of tool calls what a dialect needs from turn to turn. `legal` is what it takes for an id."""

    dialect: str
    sealer: Sealer | None
    legal: re.Pattern[str] = re.compile(r"[A-Za-z0-9_-]{1,64}")

    def close(self, id: str, carried: Any) -> str:
        """Return the id for the client; `carried` is JSON's, and what must come back with the call if anything."""
        if not carried or self.sealer is None:
            return id
        return self.sealer.seal(zlib.compress(orjson.dumps([self.dialect, id, carried])))

    def open(self, id: str) -> tuple[str, Any]:
        """Return the upstream's id and what was carried; an id that comes from elsewhere is made legal, with `None`.

        So is what was sealed for another dialect: its id means nothing to this one.
        """
        sealed = self.sealer.open(id) if self.sealer is not None else None
        if sealed is not None:
            dialect, inner, carried = orjson.loads(zlib.decompress(sealed))
            if dialect == self.dialect:
                return inner, carried
        elif self.legal.fullmatch(id):
            return id, None
        return "call_" + hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:24], None


def conversation(messages: list[dict[str, Any]], seal: Seal) -> tuple[list[Text], list[Turn]]:
    """Return the instructions of all system and developer messages, and the turns of the others.

    Results that follow each other make one turn. Blank texts are left out, and turns that hold nothing. There must be
    something to answer: instructions alone are it. Raises `Reject` as `pieces` does.
    """
    system: list[Text] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    legacy = ""
    results: Turn | None = None
    for at, message in enumerate(messages):
        role = message["role"]
        content = pieces(message.get("content"), f"messages[{at}].content")
        if role in ("tool", "function"):
            if results is None:
                results = Turn("user", [])
                turns.append(results)
            id = message["tool_call_id"] if role == "tool" else legacy
            name = names.get(id) or message.get("name") or ""
            results.pieces.append(ToolResult(seal.open(id)[0], name, content))
            continue
        results = None
        if role in ("system", "developer"):
            system += [piece for piece in content if isinstance(piece, Text)]
            continue
        turn = Turn(role, [*content])
        if role == "assistant":
            if (message.get("refusal") or "").strip():
                turn.pieces.append(Text(message["refusal"]))
            calls = list(message.get("tool_calls") or ())
            if message.get("function_call"):
                legacy = f"call_{at}"
                calls.append({"id": legacy, "function": message["function_call"]})
            for call in calls:
                name, said = _called(call)
                names[call["id"]] = name
                id, carried = seal.open(call["id"])
                turn.pieces.append(ToolCall(id, name, arguments(said), carried))
        if turn.pieces:
            turns.append(turn)
    return (system, turns) if turns else ([], [Turn("user", [*system])])


def _called(call: dict[str, Any]) -> tuple[str, str]:
    if "function" in call:
        return call["function"]["name"], call["function"]["arguments"]
    return call["custom"]["name"], call["custom"]["input"]


def arguments(text: str) -> dict[str, Any]:
    """Return a call's arguments as an object. What a model has said that is none stays in the conversation as text."""
    try:
        value = orjson.loads(text or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": text}


def merged(turns: Iterable[tuple[str, list[Block]]]) -> list[tuple[str, list[Block]]]:
    """Join turns of one role that follow each other, for upstreams whose roles alternate; leave out empty ones."""
    joined: list[tuple[str, list[Block]]] = []
    for role, blocks in turns:
        if blocks and joined and joined[-1][0] == role:
            joined[-1][1].extend(blocks)
        elif blocks:
            joined.append((role, list(blocks)))
    return joined


@dataclass(slots=True)
class Tools:
    """The functions that may be called (`name`, `description`, `parameters`, `strict`) and what was said of calling.

    `choice` is "none", "auto", "required" or "named", `name` the function that is named. `others` are tools that are
    no functions, as they came. `legacy` says that the caller speaks of `functions`, and must be answered so.
    """

    functions: list[dict[str, Any]]
    choice: str = "auto"
    name: str | None = None
    parallel: bool = True
    others: list[dict[str, Any]] = field(default_factory=list)
    legacy: bool = False


def tools(body: dict[str, Any]) -> Tools:
    """Return the tools of a request in whichever form they came; raise `Reject` for custom ones."""
    offered, choice = body.get("tools") or [], body.get("tool_choice")
    legacy = not offered and bool(body.get("functions"))
    if legacy:
        offered = [{"type": "function", "function": function} for function in body["functions"]]
        choice = body.get("function_call")
        choice = {"type": "function", "function": choice} if isinstance(choice, dict) else choice
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        offered, choice = allowed(offered, choice["allowed_tools"])
    if any(tool["type"] == "custom" for tool in offered) or (isinstance(choice, dict) and choice["type"] == "custom"):
        raise unsupported("tools", "Tools of type 'custom' are not supported with this model.")
    found = Tools([tool["function"] for tool in offered if tool["type"] == "function"], legacy=legacy)
    found.others = [tool for tool in offered if tool["type"] != "function"]
    found.parallel = body.get("parallel_tool_calls") is not False and not legacy
    if isinstance(choice, dict):
        found.choice, found.name = "named", choice["function"]["name"]
    elif choice is not None:
        found.choice = choice
    return found


def allowed(offered: list[dict[str, Any]], said: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return those of the tools offered that `allowed_tools` names, and its mode, which is then the choice."""
    names = {function_name(tool) for tool in said["tools"]}
    return [tool for tool in offered if function_name(tool) in names], said["mode"]


def function_name(tool: dict[str, Any]) -> str | None:
    """Return the name of a tool's function; `None` where the tool is none."""
    return (tool.get("function") or {}).get("name")


def asks(body: dict[str, Any], name: str) -> bool:
    """Tell whether a parameter is there and asks for more than what is so without it."""
    value = body.get(name)
    return value is not None and value != _NEUTRAL.get(name)


def unsupported(name: str, message: str | None = None) -> Reject:
    """Return what a parameter is answered with that the target cannot do and the answer would not be the same without.

    OpenAI's own sentence, unless there is more to say.
    """
    sentence = f"Unsupported parameter: '{name}' is not supported with this model."
    return Reject(400, "unsupported_parameter", message or sentence, param=name)


def most_tokens(body: dict[str, Any]) -> int | None:
    """Return how many tokens the answer may have, at least 1; `None` where the request does not say it."""
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    return None if most is None else max(1, int(most))


def stops(body: dict[str, Any]) -> list[str]:
    """Return the texts that end the answer, but for blank ones, which most upstreams refuse."""
    stop = body.get("stop") or []
    return [text for text in ([stop] if isinstance(stop, str) else stop) if text.strip()]


@dataclass(slots=True)
class Translated:
    """A request, the parameters that were left out of it, and what its answer must be read with.

    `form` is the name of the tool that the answer is asked for as, where the model knows no other way to keep to a
    schema; `json` that the model was only told to answer with JSON, `legacy` that calls are told as `function_call`.
    """

    request: dict[str, Any]
    dropped: list[str] = field(default_factory=list)
    form: str | None = None
    json: bool = False
    legacy: bool = False
