"""The `messages` of a chat request: roles, content parts, and tool calls that match their results."""

from __future__ import annotations

from typing import Any

from proxy.request import violations
from proxy.request.parameters import Choice, Parameter, Text
from proxy.request.structures import Array, Either, Object, Tagged

_PLAIN_ROLES = ("user", "assistant", "system", "developer")

_BREAKPOINT = Object({"mode": Choice("explicit", required=True), "ttl": Choice("30m", "12h")})


def _part(**members: Parameter) -> Object:
    return Object({**members, "prompt_cache_breakpoint": _BREAKPOINT})


_IMAGE = {"url": Text(required=True), "detail": Choice("auto", "low", "high", "original")}
_AUDIO = {"data": Text(required=True), "format": Choice("wav", "mp3", required=True)}
_FILE = {"filename": Text(), "file_data": Text(), "file_id": Text()}

TEXT_PART = _part(text=Text(required=True))
_REFUSAL_PART = Object({"refusal": Text(required=True)})
_USER_PARTS = {
    "text": TEXT_PART,
    "image_url": _part(image_url=Object(_IMAGE, required=True)),
    "input_audio": _part(input_audio=Object(_AUDIO, required=True)),
    "file": _part(file=Object(_FILE, required=True)),
}


def _is_plain_text(part: Any) -> bool:
    return type(part) is dict and len(part) == 2 and part.get("type") == "text" and type(part.get("text")) is str


def _is_plain_call(call: Any) -> bool:
    if type(call) is not dict or call.get("type") != "function" or type(call.get("id")) is not str:
        return False
    function = call.get("function")
    return type(function) is dict and type(function.get("name")) is str and type(function.get("arguments")) is str


def text_or_parts(forms: dict[str, Object], **options: Any) -> Either:
    """Return a field for a string, or an array of at least one content part of the given forms."""
    parts = Array(Tagged("type", forms), filled=True, of="content parts", plain=_is_plain_text)
    return Either(Text(), parts, **options)


_CALL = Tagged(
    "type",
    {
        "function": Object(
            {
                "id": Text(required=True),
                "function": Object({"name": Text(required=True), "arguments": Text(required=True)}, required=True),
            }
        ),
        "custom": Object(
            {
                "id": Text(required=True),
                "custom": Object({"name": Text(required=True), "input": Text(required=True)}, required=True),
            }
        ),
    },
)


class _Assistant(Object):
    """What a model said; a replayed answer is one, so that its further keys and explicit nulls are legal."""

    def examine(self, value: Any, path: str) -> Any:
        super().examine(value, path)
        if "content" not in value and not any(value.get(name) for name in ("tool_calls", "function_call", "audio")):
            if type(value.get("refusal")) is not str:
                raise violations.missing_parameter(f"{path}.content")
        content = value.get("content")
        if type(content) is list and len(content) > 1 and any(part["type"] == "refusal" for part in content):
            message = f"Invalid value for '{path}.content': a refusal must be the only content part."
            raise violations.violation(f"{path}.content", "invalid_value", message)
        return value


_INSTRUCTION = Object({"content": text_or_parts({"text": TEXT_PART}, required=True), "name": Text()})
_ROLES = Tagged(
    "role",
    {
        "developer": _INSTRUCTION,
        "system": _INSTRUCTION,
        "user": Object({"content": text_or_parts(_USER_PARTS, required=True), "name": Text()}),
        "assistant": _Assistant(
            {
                "content": text_or_parts({"text": TEXT_PART, "refusal": _REFUSAL_PART}, allow_none=True),
                "name": Text(),
                "refusal": Text(allow_none=True),
                "audio": Object({"id": Text(required=True)}, allow_none=True),
                "tool_calls": Array(_CALL, allow_none=True, of="tool calls", plain=_is_plain_call),
                "function_call": Object(
                    {"name": Text(required=True), "arguments": Text(required=True)}, allow_none=True
                ),
            }
        ),
        "tool": Object(
            {"content": text_or_parts({"text": TEXT_PART}, required=True), "tool_call_id": Text(required=True)}
        ),
        "function": Object({"content": Text(required=True, allow_none=True), "name": Text(required=True)}),
    },
)


class Messages(Array):
    """The conversation, checked in one plain loop: a message of text costs a fraction of a microsecond."""

    def __init__(self, description: str) -> None:
        super().__init__(_ROLES, description, required=True, filled=True, of="messages")

    def examine(self, value: Any, path: str) -> Any:
        if not value:
            raise violations.empty(path, "an array")
        called: set[str] = set()
        unanswered: dict[str, int] = {}
        for index, message in enumerate(value):
            if (
                type(message) is dict
                and len(message) == 2
                and type(message.get("content")) is str
                and message.get("role") in _PLAIN_ROLES
            ):
                continue
            _ROLES.deserialize(message, f"{path}[{index}]")
            if message["role"] == "tool":
                if message["tool_call_id"] not in called:
                    raise _orphan(index)
                unanswered.pop(message["tool_call_id"], None)
            elif message["role"] == "assistant":
                for call in message.get("tool_calls") or ():
                    called.add(call["id"])
                    unanswered[call["id"]] = index
        if unanswered:
            raise _unanswered(unanswered)
        return value


# OpenAI names the place with a dot before the bracket, gives no code and writes "preceeding"; clients match the text.
# Results that come late but do come are left to the upstream, which may be an engine that takes them.


def _orphan(index: int) -> Exception:
    message = (
        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
    )
    return violations.violation(f"messages.[{index}].role", None, message)


def _unanswered(calls: dict[str, int]) -> Exception:
    first = min(calls.values())
    names = violations.shown(", ".join(name for name, index in calls.items() if index == first))
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {names}"
    )
    return violations.violation(f"messages.[{first}].role", None, message)
