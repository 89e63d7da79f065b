"""The `messages` of a chat request: roles, content parts, and tool calls that match their results."""

from __future__ import annotations

from typing import Any

from proxy.request import violations
from proxy.request.parameters import Choice, Parameter, Text
from proxy.request.structures import Array, Either, Object, Tagged

_PLAIN_ROLES = ("user", "assistant", "system", "developer")

_BREAKPOINT = Object(
    {
        "mode": Choice("explicit", description="How the place is marked.", required=True),
        "ttl": Choice("30m", "12h", description="How long what comes before it stays cached."),
    },
    "Ends the part of a prompt that is cached.",
    title="CacheBreakpoint",
)


def _part(title: str, description: str, **members: Parameter) -> Object:
    return Object({**members, "prompt_cache_breakpoint": _BREAKPOINT}, description, title=title)


_IMAGE = {
    "url": Text("Where the image is, or the image itself as a `data:` URL.", required=True),
    "detail": Choice("auto", "low", "high", "original", description="How closely the model looks.", default="auto"),
}
_AUDIO = {
    "data": Text("The recording in base64.", required=True),
    "format": Choice("wav", "mp3", description="What the recording is coded in.", required=True),
}
_FILE = {
    "filename": Text("What the file is called."),
    "file_data": Text("The file itself, as a `data:` URL."),
    "file_id": Text("The id of a file that the provider has already."),
}

TEXT_PART = _part("TextPart", "A piece of text.", text=Text("The text.", required=True))
_REFUSAL_PART = Object(
    {"refusal": Text("What the model said instead of an answer.", required=True)},
    "A refusal; it must be the only part.",
    title="RefusalPart",
)
_USER_PARTS = {
    "text": TEXT_PART,
    "image_url": _part("ImagePart", "An image.", image_url=Object(_IMAGE, "The image.", required=True)),
    "input_audio": _part("AudioPart", "A recording.", input_audio=Object(_AUDIO, "The recording.", required=True)),
    "file": _part("FilePart", "A file, as its data or by its id.", file=Object(_FILE, "The file.", required=True)),
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


_NAME = Text("Tells apart those who speak in one role.")
_CALL_ID = Text("What the result of the call names it by.", required=True)
_CALLED = {
    "name": Text("The name of the function.", required=True),
    "arguments": Text("The arguments as JSON text, as the model wrote it.", required=True),
}
_CUSTOM_CALLED = {
    "name": Text("The name of the tool.", required=True),
    "input": Text("What the model hands to the tool.", required=True),
}
_CALL = Tagged(
    "type",
    {
        "function": Object(
            {"id": _CALL_ID, "function": Object(_CALLED, "What is called, with what.", required=True)},
            "A call of a function.",
            title="FunctionToolCall",
        ),
        "custom": Object(
            {"id": _CALL_ID, "custom": Object(_CUSTOM_CALLED, "What is called, with what.", required=True)},
            "A call of a custom tool.",
            title="CustomToolCall",
        ),
    },
    title="ToolCall",
)


class _Assistant(Object):
    """What a model said; a replayed answer is one, so that its further keys and explicit nulls are legal."""

    def describe(self) -> dict[str, Any]:
        said = [
            {"required": ["content"]},
            {"required": ["refusal"], "properties": {"refusal": {"type": "string"}}},
            {"required": ["tool_calls"], "properties": {"tool_calls": {"type": "array", "minItems": 1}}},
            *({"required": [name], "properties": {name: {"type": "object"}}} for name in ("function_call", "audio")),
        ]
        refused = {"type": "object", "properties": {"type": {"const": "refusal"}}, "required": ["type"]}
        among_others = {"content": {"type": "array", "minItems": 2, "contains": refused}}
        return super().describe() | {"anyOf": said, "not": {"required": ["content"], "properties": among_others}}

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


def _instruction(title: str, description: str) -> Object:
    content = text_or_parts({"text": TEXT_PART}, description="The instructions.", required=True)
    return Object({"content": content, "name": _NAME}, description, title=title)


_FUNCTION_CALL = Object(_CALLED, "The older form of one call in `tool_calls`.", allow_none=True, deprecated=True)
_ROLES = Tagged(
    "role",
    {
        "developer": _instruction("DeveloperMessage", "Instructions that come before what users say."),
        "system": _instruction("SystemMessage", "The same, for models that know no developer."),
        "user": Object(
            {
                "content": text_or_parts(_USER_PARTS, description="What the user says and shows.", required=True),
                "name": _NAME,
            },
            "What a user says.",
            title="UserMessage",
        ),
        "assistant": _Assistant(
            {
                "content": text_or_parts(
                    {"text": TEXT_PART, "refusal": _REFUSAL_PART},
                    description="What the model said; needed unless it called or refused.",
                    allow_none=True,
                ),
                "name": _NAME,
                "refusal": Text("What it said instead of an answer.", allow_none=True),
                "audio": Object(
                    {"id": Text("The id that the answer had.", required=True)},
                    "An earlier spoken answer.",
                    allow_none=True,
                ),
                "tool_calls": Array(
                    _CALL, "What the model called.", allow_none=True, of="tool calls", plain=_is_plain_call
                ),
                "function_call": _FUNCTION_CALL,
            },
            "What the model said earlier.",
            title="AssistantMessage",
        ),
        "tool": Object(
            {
                "content": text_or_parts({"text": TEXT_PART}, description="What came out.", required=True),
                "tool_call_id": Text("The `id` of the call that this is the result of.", required=True),
            },
            "The result of a call that the assistant's message before has made.",
            title="ToolMessage",
        ),
        "function": Object(
            {
                "content": Text("What came out.", required=True, allow_none=True),
                "name": Text("The function that was called.", required=True),
            },
            "The older form of a tool's message.",
            title="FunctionMessage",
            deprecated=True,
        ),
    },
    title="Message",
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
    names = violations.shortened(", ".join(name for name, index in calls.items() if index == first))
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {names}"
    )
    return violations.violation(f"messages.[{first}].role", None, message)
