"""The parameters of a chat request that are objects: each with its members and what they mean."""

from __future__ import annotations

from proxy.request.messages import TEXT_PART, text_or_parts
from proxy.request.parameters import Boolean, Choice, Text
from proxy.request.structures import Either, Object, Tagged

STREAM_OPTIONS = Object(
    {
        "include_usage": Boolean("Whether a last event tells the tokens used."),
        "include_obfuscation": Boolean("Whether events are padded against guessing from their size."),
    },
    "Options of a streamed answer; ignored where `stream` is not true.",
    allow_none=True,
    title="StreamOptions",
)

_JSON_SCHEMA = {
    "name": Text("A name for the format.", required=True, filled=True, max_length=64, pattern="[A-Za-z0-9_-]+"),
    "description": Text("What the format is for, for the model."),
    "schema": Object({}, "The JSON Schema of the answer."),
    "strict": Boolean("Whether the answer must keep to the schema exactly.", allow_none=True),
}
RESPONSE_FORMAT = Tagged(
    "type",
    {
        "text": Object({}, "Text of any form.", title="TextFormat"),
        "json_object": Object({}, "Some JSON object, which a message must ask for.", title="JsonObjectFormat"),
        "json_schema": Object(
            {"json_schema": Object(_JSON_SCHEMA, "The schema and its name.", required=True)},
            "JSON that fits a schema.",
            title="JsonSchemaFormat",
        ),
    },
    "The form of the answer: text, any JSON object, or JSON that fits a schema.",
    allow_none=True,
    default={"type": "text"},
    title="ResponseFormat",
)

AUDIO = Object(
    {
        "voice": Either(
            Text(),
            Object({"id": Text("The id of a voice of one's own.", required=True)}),
            description="A voice's name or id.",
            required=True,
        ),
        "format": Choice(
            *("wav", "aac", "mp3", "flac", "opus", "pcm16"),
            description="What the sound is coded in.",
            required=True,
        ),
    },
    "How spoken answers sound.",
    allow_none=True,
    title="AudioOptions",
)

PREDICTION = Tagged(
    "type",
    {
        "content": Object(
            {"content": text_or_parts({"text": TEXT_PART}, description="The text.", required=True)},
            "Text that is known before.",
        )
    },
    "Text that the answer will probably repeat.",
    allow_none=True,
    title="Prediction",
)

PROMPT_CACHE_OPTIONS = Object(
    {
        "mode": Choice(
            "implicit", "explicit", description="Whether only marked places are cached.", default="implicit"
        ),
        "ttl": Choice("30m", description="How long it is cached.", default="30m"),
    },
    "How the prompt is cached.",
    title="PromptCacheOptions",
)

_MODERATED = {"mode": Choice("score", "block", description="Whether it is only told or held back.", required=True)}
MODERATION = Object(
    {
        "model": Text("The model that moderates.", required=True),
        "policy": Object(
            {
                "input": Object(_MODERATED, "For the messages.", allow_none=True),
                "output": Object(_MODERATED, "For the answer.", allow_none=True),
            },
            "What becomes of what is found.",
            allow_none=True,
        ),
    },
    "Whether and how input and output are moderated.",
    allow_none=True,
    title="ModerationOptions",
)

_PLACE = Object(
    {
        "type": Choice("approximate", description="How exactly the place is known.", required=True),
        "approximate": Object(
            {
                "city": Text("A city, in free text."),
                "country": Text("An ISO 3166-1 code of two letters.", pattern="[A-Za-z]{2}"),
                "region": Text("A region, in free text."),
                "timezone": Text("An IANA time zone."),
            },
            "The place.",
            required=True,
        ),
    },
    "Where the user roughly is.",
    allow_none=True,
    title="UserLocation",
)
WEB_SEARCH_OPTIONS = Object(
    {
        "search_context_size": Choice(
            "low", "medium", "high", description="How much of what is found is read.", default="medium"
        ),
        "user_location": _PLACE,
    },
    "Turns web search on, also where it is empty.",
    allow_none=True,
    title="WebSearchOptions",
)
