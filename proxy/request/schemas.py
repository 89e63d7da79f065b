"""What a chat request may hold: every parameter of OpenAI's contract, one field each.

The rules are those of OpenAI's API description and its Python SDK. A null is legal where a field says `allow_none`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, post_load, validates_schema

from proxy.errors import Reject
from proxy.request import options, violations
from proxy.request.messages import Messages
from proxy.request.parameters import Boolean, Choice, Integer, Number, Text
from proxy.request.structures import Array, Either, Entries, Object
from proxy.request.tools import FUNCTION, TOOL, TOOL_CHOICE

# 512: OpenAI states no limit; cloud resource names of 200 characters are in use, and the name goes into logs.
_MODEL_LENGTH = 512

TOGETHER: list[dict[str, Any]] = [
    {
        "if": {"required": ["top_logprobs"], "properties": {"top_logprobs": {"type": "integer"}}},
        "then": {"required": ["logprobs"], "properties": {"logprobs": {"const": True}}},
    },
    {
        "if": {
            "required": ["modalities"],
            "properties": {"modalities": {"type": "array", "contains": {"const": "audio"}}},
        },
        "then": {"required": ["audio"], "properties": {"audio": {"type": "object"}}},
    },
]
"""What `ChatRequest.together` refuses, as JSON Schema."""


class ChatRequest(Schema):
    """The body of `POST /v1/chat/completions`. Parameters that are not fields are left in place."""

    class Meta:
        unknown = INCLUDE

    model = Text("The model that answers.", required=True, filled=True, max_length=_MODEL_LENGTH)
    messages = Messages("The conversation so far, oldest message first.")
    stream = Boolean("Whether the answer is sent in events while it is made.", allow_none=True, default=False)
    stream_options = options.STREAM_OPTIONS
    # Bounded below although OpenAI prints no bound: what is reserved from a budget must not be negative.
    max_completion_tokens = Integer(
        "The most tokens an answer may have, reasoning included.", minimum=0, allow_none=True
    )
    max_tokens = Integer("The older name of `max_completion_tokens`.", minimum=0, allow_none=True, deprecated=True)
    temperature = Number(
        "How freely tokens are chosen; 0 is the least.", minimum=0, maximum=2, allow_none=True, default=1
    )
    top_p = Number(
        "The share of probability that tokens are chosen from.", minimum=0, maximum=1, allow_none=True, default=1
    )
    n = Integer("How many answers are made.", minimum=1, maximum=128, allow_none=True, default=1)
    stop = Either(
        Text(),
        Array(Text(), max_length=4, of="1 to 4 strings"),
        description="Texts that end the answer and are not part of it; an empty array means none.",
        allow_none=True,
    )
    presence_penalty = Number(
        "How much tokens that have occurred are avoided.", minimum=-2, maximum=2, allow_none=True, default=0
    )
    frequency_penalty = Number(
        "How much tokens are avoided for each time they have occurred.",
        minimum=-2,
        maximum=2,
        allow_none=True,
        default=0,
    )
    logit_bias = Entries(
        Integer(minimum=-100, maximum=100), "What is added to the logit of a token, by token id.", allow_none=True
    )
    logprobs = Boolean("Whether the log probabilities of tokens are told.", allow_none=True, default=False)
    top_logprobs = Integer(
        "How many likely tokens are told at each position; needs `logprobs`.", minimum=0, maximum=20, allow_none=True
    )
    seed = Integer("A number that makes sampling repeatable, as far as it can be.", allow_none=True, deprecated=True)
    # Null is not in OpenAI's description, but clients send it.
    response_format = options.RESPONSE_FORMAT
    tools = Array(TOOL, "The tools that the model may call.", of="tools")
    tool_choice = Either(
        Choice("none", "auto", "required"),
        TOOL_CHOICE,
        description="Whether the model may, must or must not call tools, or which one it must call.",
        title="ToolChoice",
    )
    parallel_tool_calls = Boolean("Whether the model may call several tools at once.", default=True)
    functions = Array(
        FUNCTION, "The older form of `tools`.", filled=True, max_length=128, of="functions", deprecated=True
    )
    function_call = Either(
        Choice("none", "auto"),
        Object({"name": Text("The function that must be called.", required=True)}),
        description="The older form of `tool_choice`.",
        deprecated=True,
    )
    reasoning_effort = Choice(
        *("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        description="How much the model thinks before it answers.",
        allow_none=True,
        default="medium",
    )
    verbosity = Choice(
        "low", "medium", "high", description="How long answers tend to be.", allow_none=True, default="medium"
    )
    modalities = Array(
        Choice("text", "audio"), "The kinds of output; audio needs `audio`.", allow_none=True, default=["text"]
    )
    audio = options.AUDIO
    prediction = options.PREDICTION
    store = Boolean("Whether the provider may keep the completion.", allow_none=True, default=False)
    metadata = Entries(Text(max_length=512), "Notes of the caller's own.", max_entries=16, max_name=64, allow_none=True)
    service_tier = Choice(
        *("auto", "default", "flex", "scale", "priority", "fast"),
        description="The provider's processing tier.",
        allow_none=True,
        default="auto",
    )
    user = Text("An identifier of the end user; replaced by the next two.", deprecated=True)
    # 128: SDK 3.54.0; the API description of August 2026 still said 64.
    safety_identifier = Text("A stable, hashed identifier of the end user.", max_length=128, allow_none=True)
    prompt_cache_key = Text("What similar requests have in common, for the prompt cache.", allow_none=True)
    prompt_cache_retention = Choice(
        "in_memory", "24h", description="How long cached prompts are kept at most.", allow_none=True, deprecated=True
    )
    prompt_cache_options = options.PROMPT_CACHE_OPTIONS
    moderation = options.MODERATION
    # Presence turns search on, so `{}` is on; a null is what clients send for absent.
    web_search_options = options.WEB_SEARCH_OPTIONS

    @validates_schema
    def together(self, body: dict[str, Any], **_: Any) -> None:
        """Refuse parameters that need another one."""
        if body.get("top_logprobs") is not None and body.get("logprobs") is not True:
            message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
            raise violations.violation("top_logprobs", None, message)
        if "audio" in (body.get("modalities") or ()) and body.get("audio") is None:
            raise violations.missing_parameter("audio")

    @post_load
    def normalise(self, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Take out, in place, what means the same as its absence and what strict upstreams refuse."""
        if "stop" in body and body["stop"] == []:
            del body["stop"]
        for name in ("web_search_options", "response_format"):
            if name in body and body[name] is None:
                del body[name]
        # OpenAI refuses it here, but its SDKs let callers send it.
        if "stream_options" in body and body.get("stream") is not True:
            del body["stream_options"]
        return body


_CHAT = ChatRequest()
_FIELDS = tuple(_CHAT.load_fields.items())

CHAT_PARAMETERS = frozenset(_CHAT.load_fields)
"""The names of all parameters of OpenAI's chat contract."""


def check_chat(body: dict[str, Any]) -> None:
    """Check the parameters of a chat request and normalise them in place; raise `Reject` (400) at the first mistake.

    Mistakes are found in the order of the schema. Unknown parameters are left alone: see `check_unknown`.
    """
    # Field by field: `Schema.load` looks at each absent field too, makes a new dict and gathers all mistakes,
    # which takes ten times as long.
    try:
        for name, field in _FIELDS:
            if name in body:
                body[name] = field.deserialize(body[name], name)
            elif field.required:
                raise violations.missing_parameter(name)
        _CHAT.together(body)
    except ValidationError as error:
        raise violations.rejection(error) from None
    _CHAT.normalise(body)


def check_unknown(body: dict[str, Any], allowed: Container[str]) -> None:
    """Refuse, with 400 `unknown_parameter`, what is neither OpenAI's nor in `allowed`; `*` in it allows all."""
    for name in body:
        if name not in CHAT_PARAMETERS and name not in allowed and "*" not in allowed:
            name = violations.shortened(name)
            raise Reject(400, "unknown_parameter", f"Unknown parameter: '{name}'.", param=name)
