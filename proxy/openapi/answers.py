"""What the gateway answers, as schemas: completions, events of streams, lists, errors."""

from __future__ import annotations

from marshmallow import INCLUDE, Schema

from proxy.request.parameters import Boolean, Choice, Integer, Number, Text
from proxy.request.structures import Array, Object, Tagged

FINISHES = ("stop", "length", "tool_calls", "content_filter", "function_call")

_TOKENS = "Tokens of the prompt"
_PROMPT = {
    "cached_tokens": Integer(f"{_TOKENS} that came from the provider's cache.", minimum=0),
    "audio_tokens": Integer(f"{_TOKENS} that are sound.", minimum=0),
}
_COMPLETION = {
    "reasoning_tokens": Integer("Tokens of the answer that are reasoning.", minimum=0),
    "audio_tokens": Integer("Tokens of the answer that are sound.", minimum=0),
}
_COUNTS = {
    "prompt_tokens": Integer(f"{_TOKENS}.", minimum=0, required=True),
    "completion_tokens": Integer("Tokens of the answer.", minimum=0, required=True),
    "total_tokens": Integer("Both together.", minimum=0, required=True),
}
_USAGE = {
    **_COUNTS,
    "prompt_tokens_details": Object(_PROMPT, "What the prompt's tokens were.", allow_none=True),
    "completion_tokens_details": Object(_COMPLETION, "What the answer's tokens were.", allow_none=True),
}
_USED = "The tokens used; of a stream its last event tells them, if it was asked to."
_FUNCTION = {"name": Text("The function's name."), "arguments": Text("The arguments as JSON text.")}
_CALL = Tagged(
    "type",
    {
        "function": Object(
            {
                "id": Text("What the result must name it by.", required=True),
                "function": Object(_FUNCTION, "What is called, with what.", required=True),
            },
            "A call of a function.",
        ),
        "custom": Object(
            {
                "id": Text("What the result must name it by.", required=True),
                "custom": Object({"name": Text("The tool's name."), "input": Text("Its input.")}, "What is called."),
            },
            "A call of a custom tool.",
        ),
    },
)
_SAID = {
    "content": Text("The text of the answer.", allow_none=True),
    "refusal": Text("What the model says where it does not answer.", allow_none=True),
    "reasoning_content": Text("What the model thought, where the upstream tells.", allow_none=True),
}
_MESSAGE = {
    "role": Choice("assistant", description="Who speaks.", required=True),
    **_SAID,
    "tool_calls": Array(_CALL, "The tools that the model calls."),
}
_PIECE = Object(
    {
        "index": Integer("Which call this is a piece of.", minimum=0, required=True),
        "id": Text("The id; with the call's first piece."),
        "type": Text("The kind of tool; with the first piece."),
        "function": Object(_FUNCTION, "The name with the first piece, then the arguments piece by piece."),
    },
    "A piece of a call.",
)
_DELTA = {
    "role": Choice("assistant", description="Who speaks; with the first event."),
    **_SAID,
    "tool_calls": Array(_PIECE, "The next pieces of calls."),
}
_CHOICE = {
    "index": Integer("Which of the `n` answers this is.", minimum=0, required=True),
    "message": Object(_MESSAGE, "What the model answers.", required=True, title="AnswerMessage"),
    "logprobs": Object({}, "Log probabilities of tokens, where they were asked for.", allow_none=True),
    "finish_reason": Choice(*FINISHES, description="Why the answer ends.", required=True),
}
_STREAMED_CHOICE = {
    "index": Integer("Which of the `n` answers this is of.", minimum=0, required=True),
    "delta": Object(_DELTA, "What comes next.", required=True, title="Delta"),
    "logprobs": Object({}, "Log probabilities of these tokens.", allow_none=True),
    "finish_reason": Choice(
        *FINISHES, description="Why the answer ends; null before its last event.", allow_none=True, required=True
    ),
}


class _Open(Schema):
    """What may have more members than are described, in a later version or from some upstream."""

    class Meta:
        unknown = INCLUDE


class _Common(_Open):
    id = Text("The completion's id.", required=True)
    created = Integer("When it was made, in seconds since 1970.", required=True)
    model = Text("The model that answered.", required=True)
    service_tier = Text("The provider's tier that was used.", allow_none=True)
    system_fingerprint = Text("The provider's mark of its configuration.", allow_none=True)


class ChatCompletion(_Common):
    """A whole answer."""

    object = Choice("chat.completion", description="What this is.", required=True)
    choices = Array(Object(_CHOICE, "One answer.", title="Choice"), "The answers.", required=True, filled=True)
    usage = Object(_USAGE, _USED, title="Usage")


class ChatCompletionChunk(_Common):
    """One event of a streamed answer."""

    object = Choice("chat.completion.chunk", description="What this is.", required=True)
    choices = Array(
        Object(_STREAMED_CHOICE, "A piece of one answer.", title="StreamedChoice"),
        "Pieces of the answers; none in the event with the usage.",
        required=True,
    )
    usage = Object(_USAGE, _USED, allow_none=True, title="Usage")


class Error(_Open):
    """Why there is no answer, or why it ends."""

    error = Object(
        {
            "message": Text("What is wrong, for people.", required=True),
            "type": Text("The kind of error, which OpenAI's SDKs go by.", required=True),
            "param": Text("The parameter that is wrong, as a path.", required=True, allow_none=True),
            "code": Text("What is wrong, for programs.", required=True, allow_none=True),
        },
        "The error.",
        required=True,
    )


_MODEL = {
    "id": Text("The name to ask for.", required=True),
    "object": Choice("model", description="What this is.", required=True),
    "created": Integer("When the gateway began to serve it, in seconds since 1970.", required=True),
    "owned_by": Text("Who serves it.", required=True),
}


class Models(_Open):
    """The models that the caller may use; those that only a pattern allows are not listed."""

    object = Choice("list", description="What this is.", required=True)
    data = Array(Object(_MODEL, "A model.", title="Model"), "The models.", required=True)


_REQUEST_USAGE = {
    **_COUNTS,
    "cached_tokens": Integer(f"{_TOKENS} that came from the provider's cache.", minimum=0, allow_none=True),
    "reasoning_tokens": Integer("Tokens of the answer that are reasoning.", minimum=0, allow_none=True),
}
_REQUEST = {
    "id": Text("The request's id, as in `x-request-id`.", required=True),
    "object": Choice("request", description="What this is.", required=True),
    "created": Integer("When it came, in seconds since 1970.", required=True),
    "path": Text("What was asked for.", required=True, allow_none=True),
    "model": Text("The model that was named.", required=True, allow_none=True),
    "status": Integer("The HTTP status.", required=True, allow_none=True),
    "state": Text("How it went: `ended`, or what is known of it otherwise.", required=True),
    "error": Text("The code of its error.", required=True, allow_none=True),
    "streamed": Boolean("Whether the answer was streamed.", required=True),
    "user_agent": Text("What sent it.", required=True, allow_none=True),
    "usage": Object(_REQUEST_USAGE, "The tokens used.", required=True, allow_none=True, title="RequestUsage"),
    "cost": Integer("What it cost, in millionths of a dollar.", required=True, allow_none=True),
    "estimated": Boolean("Whether tokens and cost are estimates.", required=True),
    "duration": Number("How long it took, in seconds.", minimum=0, maximum=2**31, required=True, allow_none=True),
}


class Requests(_Open):
    """The caller's own requests, newest first."""

    object = Choice("list", description="What this is.", required=True)
    data = Array(Object(_REQUEST, "A request.", title="Request"), "The requests.", required=True)
    has_more = Boolean("Whether there are older ones.", required=True)
    next_cursor = Text("What `after` must be to get them.", required=True, allow_none=True)
    source = Choice("ledger", "journal", description="Where they were found.", required=True)


class Health(_Open):
    """That the process answers."""

    status = Choice("ok", description="Always the same.", required=True)


SCHEMAS: dict[str, type[Schema]] = {
    "ChatCompletion": ChatCompletion,
    "ChatCompletionChunk": ChatCompletionChunk,
    "Error": Error,
    "Models": Models,
    "Requests": Requests,
    "Health": Health,
}
