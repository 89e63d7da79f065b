"""Which capabilities a request asks for, in whichever provider's spelling: the one place that decides it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.request.schemas import CHAT_PARAMETERS
from proxy.request.tools import SEARCH_TOOL

WEB_SEARCH = "web_search"

#: Words by which providers name what reaches the web, in names without case and punctuation. `enhancement` is
#: Tencent's word for it.
_SEARCHING = re.compile(r"search|web(?!hook)|brows|internet|online|grounding|urlcontext|visitwebsite|enhancement")
#: What searches the caller's own files or the request's own tools.
_INWARD = re.compile(r"(?:file|tool|vector|document|code)s?search")
_PUNCTUATION = re.compile(r"[^a-z0-9]")
#: What may be the name of something, unlike a sentence.
_NAME = re.compile(r"[\w$:./@-]{1,128}")
#: Upstream models that search whether or not a parameter asks for it: OpenAI's search models and deep research,
#: Perplexity's, Groq's compound systems, and OpenRouter's suffix for any model.
_SEARCH_MODEL = re.compile(
    r"(?:^|[/:@._-])"
    r"(?:search-preview|search-api|web-?search|sonar|pplx|perplexity|online|deep-research|compound|search$)"
    r"(?:$|[/:@._-])",
    re.IGNORECASE,
)
_TOOL_KEYS = frozenset(("type", "function", "custom"))
#: Engines' own words for a form that the answer must have (vLLM, SGLang, llama.cpp, Ollama).
_FORMS = re.compile(r"guided_\w+|structured_outputs?|grammar|json_schema|regex|ebnf|format")
_PARTS = {
    **dict.fromkeys(("image_url", "image", "input_image", "video_url", "video", "input_video"), "vision"),
    **dict.fromkeys(("input_audio", "audio_url", "audio"), "audio"),
    **dict.fromkeys(("file", "input_file", "document"), "files"),
}


def asked(body: Mapping[str, Any], models: Iterable[str] = ()) -> dict[str, str]:
    """Return the capabilities that a checked request asks for, each with the parameter that asks for it.

    `models` are the names that its upstreams may be asked for: some of them search by themselves.
    """
    found: dict[str, str] = {}
    searching = searches(body, models)
    if searching is not None:
        found[WEB_SEARCH] = searching
    for message in body["messages"]:
        content = message.get("content")
        if type(content) is list:
            for part in content:
                if part["type"] in _PARTS:
                    found.setdefault(_PARTS[part["type"]], "messages")
        if message.get("audio"):
            found.setdefault("audio", "messages")
    for tool in body.get("tools") or ():
        kind = tool["type"]
        if kind in ("function", "custom"):
            found.setdefault("tools", "tools")
        elif _INWARD.search(_folded(kind)):
            found.setdefault("files", "tools")
    if body.get("functions"):
        found.setdefault("tools", "functions")
    if "audio" in (body.get("modalities") or ()):
        found.setdefault("audio", "modalities")
    elif body.get("audio") is not None:
        found.setdefault("audio", "audio")
    if body.get("logprobs") or body.get("top_logprobs"):
        found["logprobs"] = "logprobs"
    if (body.get("response_format") or {}).get("type", "text") != "text":
        found["structured_output"] = "response_format"
    if not CHAT_PARAMETERS.issuperset(body):
        for name in body.keys() - CHAT_PARAMETERS:
            if body[name] is not None and _FORMS.fullmatch(name):
                found.setdefault("structured_output", name)
    return found


def searches(body: Mapping[str, Any], models: Iterable[str] = ()) -> str | None:
    """Return the parameter by which a request asks for a search of the web, or `None` where it asks for none.

    An empty `web_search_options` asks. A flag of a provider's own asks unless it is null or false, wherever in a
    parameter that is not OpenAI's it stands. Functions that the caller runs itself are no search, whatever their name.
    """
    if body.get("web_search_options") is not None:
        return "web_search_options"
    if any(_SEARCH_MODEL.search(name) for name in models):
        return "model"
    for tool in body.get("tools") or ():
        if _tool_searches(tool):
            return "tools"
    if any(function["name"].startswith("$") for function in body.get("functions") or ()):
        return "functions"
    choice = body.get("tool_choice")
    if type(choice) is dict and (_kind_searches(choice.get("type")) or _allowed_search(choice)):
        return "tool_choice"
    if not CHAT_PARAMETERS.issuperset(body):
        for name in body:
            if name not in CHAT_PARAMETERS and _mentions(name, body[name]):
                return name
    return None


def _folded(name: str) -> str:
    return _PUNCTUATION.sub("", name.lower())


def _names_search(name: str) -> bool:
    folded = _folded(name)
    return _SEARCHING.search(folded) is not None and _INWARD.search(folded) is None


def _kind_searches(kind: Any) -> bool:
    if type(kind) is not str or kind in ("function", "custom"):
        return False
    return SEARCH_TOOL.search(kind) is not None or _names_search(kind)


def _tool_searches(tool: Any) -> bool:
    if type(tool) is not dict:
        return False
    if _kind_searches(tool.get("type")):
        return True
    # A function whose name begins with `$` is one that the provider runs.
    function = tool.get("function")
    name = function.get("name") if type(function) is dict else None
    if type(name) is str and name.startswith("$"):
        return True
    return len(tool) > 2 and any(key not in _TOOL_KEYS and _mentions(key, tool[key]) for key in tool)


def _allowed_search(choice: dict[str, Any]) -> bool:
    allowed = choice.get("allowed_tools")
    tools = allowed.get("tools") if type(allowed) is dict else choice.get("tools")
    return type(tools) is list and any(_tool_searches(tool) for tool in tools)


def _mentions(name: str, value: Any) -> bool:
    """Tell whether a key or anything in its value names a search that is not switched off."""
    waiting: list[tuple[str, Any]] = [(name, value)]
    while waiting:
        key, held = waiting.pop()
        if held is None or held is False:
            continue
        if key and _names_search(key):
            return True
        if type(held) is dict:
            waiting += held.items()
        elif type(held) is list:
            waiting += (("", entry) for entry in held)
        elif type(held) is str and _NAME.fullmatch(held):
            if _names_search(held) or _SEARCH_MODEL.search(held):
                return True
    return False
