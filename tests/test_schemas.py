"""Every parameter of a chat request: what is legal passes, what is not gets OpenAI's words, code and path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from proxy.errors import Reject
from proxy.request.parameters import Parameter
from proxy.request.schemas import CHAT_PARAMETERS, ChatRequest, check_chat, check_unknown

MESSAGES = [{"role": "user", "content": "Hello"}]
FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def request(**parameters: Any) -> dict[str, Any]:
    return {"model": "gpt-5.2", "messages": copy.deepcopy(MESSAGES), **parameters}


def checked(**parameters: Any) -> dict[str, Any]:
    body = request(**parameters)
    check_chat(body)
    return body


def refusal(**parameters: Any) -> Reject:
    with pytest.raises(Reject) as caught:
        checked(**parameters)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


def function(**members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | members}


def custom(**members: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": "c"} | members}


def json_schema(**members: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer"} | members}


def place(**members: Any) -> dict[str, Any]:
    return {"user_location": {"type": "approximate", "approximate": members}}


GRAMMAR = {"type": "grammar", "grammar": {"definition": "a", "syntax": "lark"}}

GOOD: dict[str, list[Any]] = {
    "model": ["m", "org/model:tag", "x" * 512],
    "messages": [MESSAGES],
    "stream": [True, False],
    "stream_options": [{}, {"include_usage": True, "include_obfuscation": False}, {"continuous_usage_stats": True}],
    "max_tokens": [0, 1, 100_000, 5.0],
    "max_completion_tokens": [0, 1, 100_000],
    "temperature": [0, 1, 2, 0.5, 2.0],
    "top_p": [0, 1, 0.1],
    "n": [1, 128, 1.0],
    "stop": ["", "END", ["a"], ["a", "b", "c", "d"]],
    "presence_penalty": [-2, 2, 0.5],
    "frequency_penalty": [-2.0, 2.0, 0],
    "logit_bias": [{}, {"50256": -100, "any key": 100, "7": 1.0}],
    "logprobs": [True, False],
    "seed": [0, -(2**63), 2**63 - 1],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        json_schema(),
        json_schema(name="A-z_0", description="d", schema={"type": "object"}, strict=True),
        json_schema(strict=None),
    ],
    "tools": [
        [],
        [FUNCTION, custom()],
        [function(description="d", strict=None), function(name="x" * 64, strict=True)],
        [custom(description="d", format={"type": "text"}), custom(format=GRAMMAR)],
        [{"type": "web_search"}, {"type": "web_search_preview_2025_03_11", "search_context_size": "low"}],
    ],
    "tool_choice": [
        "none",
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "c"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [FUNCTION]}},
    ],
    "parallel_tool_calls": [True, False],
    "functions": [[{"name": "f"}], [{"name": "f", "description": "d", "parameters": {}}] * 128],
    "function_call": ["none", "auto", {"name": "f"}],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    "verbosity": ["low", "medium", "high"],
    "modalities": [["text"]],
    "audio": [{"voice": "alloy", "format": "wav"}, {"voice": {"id": "voice_1"}, "format": "pcm16"}],
    "prediction": [
        {"type": "content", "content": "text"},
        {"type": "content", "content": [{"type": "text", "text": "text"}]},
    ],
    "store": [True, False],
    "metadata": [{}, {f"{i:064}": "v" * 512 for i in range(16)}],
    "service_tier": ["auto", "default", "flex", "scale", "priority", "fast"],
    "user": ["u", ""],
    "safety_identifier": ["x" * 128],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["in_memory", "24h"],
    "prompt_cache_options": [{}, {"mode": "explicit", "ttl": "30m"}],
    "moderation": [
        {"model": "m"},
        {"model": "m", "policy": None},
        {"model": "m", "policy": {"input": {"mode": "block"}, "output": None}},
    ],
    "web_search_options": [
        {},
        {"search_context_size": "high", "user_location": None},
        place(),
        place(city="Paris", country="FR", region="IDF", timezone="Europe/Paris"),
    ],
}

TYPE, VALUE, MISSING = "invalid_type", "invalid_value", "missing_required_parameter"

BAD: list[tuple[str, Any, str | None, str | None]] = [
    ("model", 1, TYPE, None),
    ("model", "", "empty_string", None),
    ("model", "x" * 513, "string_above_max_length", None),
    ("messages", [], "empty_array", None),
    ("messages", "hello", TYPE, None),
    ("messages", {}, TYPE, None),
    ("stream", "true", TYPE, None),
    ("stream", 1, TYPE, None),
    ("stream_options", True, TYPE, None),
    ("stream_options", {"include_usage": "yes"}, TYPE, "stream_options.include_usage"),
    ("stream_options", {"include_usage": None}, TYPE, "stream_options.include_usage"),
    ("max_tokens", "100", TYPE, None),
    ("max_tokens", 1.5, TYPE, None),
    ("max_tokens", True, TYPE, None),
    ("max_tokens", -1, "integer_below_min_value", None),
    ("max_tokens", 2**63, "integer_above_max_value", None),
    ("max_tokens", 1e300, "integer_above_max_value", None),
    ("max_completion_tokens", [], TYPE, None),
    ("max_completion_tokens", -1, "integer_below_min_value", None),
    ("temperature", "1", TYPE, None),
    ("temperature", True, TYPE, None),
    ("temperature", 2.1, "decimal_above_max_value", None),
    ("temperature", -0.1, "decimal_below_min_value", None),
    ("top_p", 1.01, "decimal_above_max_value", None),
    ("top_p", {}, TYPE, None),
    ("n", 0, "integer_below_min_value", None),
    ("n", 129, "integer_above_max_value", None),
    ("n", "1", TYPE, None),
    ("stop", 1, TYPE, None),
    ("stop", {}, TYPE, None),
    ("stop", ["a", None], TYPE, "stop[1]"),
    ("stop", list("abcde"), "array_above_max_length", None),
    ("presence_penalty", 2.5, "decimal_above_max_value", None),
    ("frequency_penalty", -3, "decimal_below_min_value", None),
    ("logit_bias", [], TYPE, None),
    ("logit_bias", {"5": "1"}, TYPE, "logit_bias.5"),
    ("logit_bias", {"5": 0.5}, TYPE, "logit_bias.5"),
    ("logit_bias", {"5": 101}, "integer_above_max_value", "logit_bias.5"),
    ("logprobs", "true", TYPE, None),
    ("top_logprobs", 21, "integer_above_max_value", None),
    ("top_logprobs", -1, "integer_below_min_value", None),
    ("top_logprobs", 5, None, None),
    ("seed", "7", TYPE, None),
    ("seed", 2**63, "integer_above_max_value", None),
    ("seed", -(2**63) * 1.1, "integer_below_min_value", None),
    ("response_format", "json", TYPE, None),
    ("response_format", {}, MISSING, "response_format.type"),
    ("response_format", {"type": None}, TYPE, "response_format.type"),
    ("response_format", {"type": "xml"}, VALUE, "response_format.type"),
    ("response_format", {"type": "json_schema"}, MISSING, "response_format.json_schema"),
    ("response_format", {"type": "json_schema", "json_schema": {}}, MISSING, "response_format.json_schema.name"),
    ("response_format", json_schema(name="a b"), VALUE, "response_format.json_schema.name"),
    ("response_format", json_schema(name="a\n"), VALUE, "response_format.json_schema.name"),
    ("response_format", json_schema(name="x" * 65), "string_above_max_length", "response_format.json_schema.name"),
    ("response_format", json_schema(schema="{}"), TYPE, "response_format.json_schema.schema"),
    ("response_format", json_schema(strict="yes"), TYPE, "response_format.json_schema.strict"),
    ("tools", {}, TYPE, None),
    ("tools", ["f"], TYPE, "tools[0]"),
    ("tools", [FUNCTION, {}], MISSING, "tools[1].type"),
    ("tools", [{"type": "retrieval"}], VALUE, "tools[0].type"),
    ("tools", [{"type": "function"}], MISSING, "tools[0].function"),
    ("tools", [{"type": "function", "function": {}}], MISSING, "tools[0].function.name"),
    ("tools", [function(name=None)], TYPE, "tools[0].function.name"),
    ("tools", [function(name="")], "empty_string", "tools[0].function.name"),
    ("tools", [function(name="x" * 65)], "string_above_max_length", "tools[0].function.name"),
    ("tools", [function(parameters=[])], TYPE, "tools[0].function.parameters"),
    ("tools", [function(strict=1)], TYPE, "tools[0].function.strict"),
    ("tools", [{"type": "custom"}], MISSING, "tools[0].custom"),
    ("tools", [custom(format={"type": "grammar"})], MISSING, "tools[0].custom.format.grammar"),
    (
        "tools",
        [custom(format=GRAMMAR | {"grammar": {"definition": "a"}})],
        MISSING,
        "tools[0].custom.format.grammar.syntax",
    ),
    ("tool_choice", "any", VALUE, None),
    ("tool_choice", 1, TYPE, None),
    ("tool_choice", {"type": "function"}, MISSING, "tool_choice.function"),
    ("tool_choice", {"type": "function", "function": {}}, MISSING, "tool_choice.function.name"),
    ("tool_choice", {"type": "tool"}, VALUE, "tool_choice.type"),
    (
        "tool_choice",
        {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
        VALUE,
        "tool_choice.allowed_tools.mode",
    ),
    (
        "tool_choice",
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
        MISSING,
        "tool_choice.allowed_tools.tools",
    ),
    (
        "tool_choice",
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [1]}},
        TYPE,
        "tool_choice.allowed_tools.tools[0]",
    ),
    ("parallel_tool_calls", "no", TYPE, None),
    ("functions", [], "empty_array", None),
    ("functions", [{"name": "f"}] * 129, "array_above_max_length", None),
    ("functions", [{}], MISSING, "functions[0].name"),
    ("function_call", "required", VALUE, None),
    ("function_call", {}, MISSING, "function_call.name"),
    ("reasoning_effort", "huge", VALUE, None),
    ("reasoning_effort", 1, TYPE, None),
    ("verbosity", "LOW", VALUE, None),
    ("modalities", "text", TYPE, None),
    ("modalities", ["image"], VALUE, "modalities[0]"),
    ("modalities", ["audio"], MISSING, "audio"),
    ("audio", {"voice": "alloy"}, MISSING, "audio.format"),
    ("audio", {"format": "wav"}, MISSING, "audio.voice"),
    ("audio", {"voice": {}, "format": "wav"}, MISSING, "audio.voice.id"),
    ("audio", {"voice": "a", "format": "ogg"}, VALUE, "audio.format"),
    ("prediction", {"type": "content"}, MISSING, "prediction.content"),
    ("prediction", {"type": "content", "content": []}, "empty_array", "prediction.content"),
    ("prediction", {"type": "content", "content": [{"type": "image_url"}]}, VALUE, "prediction.content[0].type"),
    ("store", 0, TYPE, None),
    ("metadata", {str(i): "" for i in range(17)}, "object_above_max_properties", None),
    ("metadata", {"k" * 65: ""}, "property_name_above_max_length", None),
    ("metadata", {"k": "v" * 513}, "string_above_max_length", "metadata.k"),
    ("metadata", {"k": 1}, TYPE, "metadata.k"),
    ("metadata", {"k": None}, TYPE, "metadata.k"),
    ("service_tier", "gold", VALUE, None),
    ("user", 5, TYPE, None),
    ("safety_identifier", "x" * 129, "string_above_max_length", None),
    ("prompt_cache_key", 5, TYPE, None),
    ("prompt_cache_retention", "48h", VALUE, None),
    ("prompt_cache_options", {"mode": "auto"}, VALUE, "prompt_cache_options.mode"),
    ("moderation", {}, MISSING, "moderation.model"),
    ("moderation", {"model": "m", "policy": {"input": {}}}, MISSING, "moderation.policy.input.mode"),
    ("web_search_options", True, TYPE, None),
    ("web_search_options", {"search_context_size": "huge"}, VALUE, "web_search_options.search_context_size"),
    (
        "web_search_options",
        {"user_location": {"type": "approximate"}},
        MISSING,
        "web_search_options.user_location.approximate",
    ),
    ("web_search_options", {"user_location": {"approximate": {}}}, MISSING, "web_search_options.user_location.type"),
    ("web_search_options", place(country="USA"), VALUE, "web_search_options.user_location.approximate.country"),
]

NULLABLE = {
    *("stream", "stream_options", "max_completion_tokens", "max_tokens", "temperature", "top_p", "n", "stop"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "response_format"),
    *("reasoning_effort", "verbosity", "modalities", "audio", "prediction", "store", "metadata", "service_tier"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_retention", "moderation", "web_search_options"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_legal_values_pass_and_stay(name: str, value: Any) -> None:
    assert checked(**{name: copy.deepcopy(value), "stream": True})[name] == value or name == "stream"


def test_every_parameter_has_a_legal_and_an_illegal_example() -> None:
    assert CHAT_PARAMETERS == GOOD.keys() | {"top_logprobs"}
    assert CHAT_PARAMETERS == {name for name, _, _, _ in BAD}


@pytest.mark.parametrize(("name", "value", "code", "param"), BAD)
def test_illegal_values_are_refused_with_their_code_and_path(
    name: str, value: Any, code: str | None, param: str | None
) -> None:
    error = refusal(**{name: copy.deepcopy(value)})
    assert (error.code, error.param) == (code, param or name)
    assert f"'{error.param}'" in error.message


@pytest.mark.parametrize("name", sorted(CHAT_PARAMETERS))
def test_null_is_legal_exactly_where_openai_says_so(name: str) -> None:
    if name in NULLABLE:
        checked(**{name: None})
    else:
        error = refusal(**{name: None})
        assert (error.code, error.param) == (TYPE, name)
        assert error.message.endswith("but got null instead.")


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_required_parameter_is_missed(name: str) -> None:
    body = request()
    del body[name]
    with pytest.raises(Reject) as caught:
        check_chat(body)
    assert caught.value.message == f"Missing required parameter: '{name}'."
    assert (caught.value.code, caught.value.param) == (MISSING, name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"temperature": "hot"},
            "Invalid type for 'temperature': expected a number between 0 and 2, but got a string instead.",
        ),
        (
            {"n": 130},
            "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 130 instead.",
        ),
        (
            {"temperature": -1},
            "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        ),
        (
            {"stop": list("abcde")},
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            "but got an array with length 5 instead.",
        ),
        (
            {"stop": 5},
            "Invalid type for 'stop': expected a string or an array of 1 to 4 strings, but got an integer instead.",
        ),
        (
            {"messages": []},
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            {"verbosity": "loud"},
            "Invalid value for 'verbosity': 'loud'. Supported values are: 'low', 'medium', and 'high'.",
        ),
        (
            {"prompt_cache_retention": 1},
            "Invalid type for 'prompt_cache_retention': expected one of 'in_memory' or '24h', "
            "but got an integer instead.",
        ),
        (
            {"top_logprobs": 5, "logprobs": False},
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
        ),
    ],
)
def test_messages_are_openais_sentences(parameters: dict[str, Any], message: str) -> None:
    assert refusal(**parameters).message == message


def test_the_first_mistake_in_the_schemas_order_is_reported() -> None:
    assert refusal(user=1, top_p=5, n=0).param == "top_p"


def test_whole_floats_become_integers() -> None:
    body = checked(max_tokens=5.0, seed=-3.0, logit_bias={"7": 1.0})
    assert [type(body["max_tokens"]), type(body["seed"]), type(body["logit_bias"]["7"])] == [int, int, int]


def test_an_empty_stop_is_absent_and_a_null_one_stays() -> None:
    assert "stop" not in checked(stop=[])
    assert checked(stop=None)["stop"] is None


def test_search_options_are_on_where_they_are_empty_and_absent_where_null() -> None:
    assert checked(web_search_options={})["web_search_options"] == {}
    assert "web_search_options" not in checked(web_search_options=None)


def test_a_null_response_format_is_absent() -> None:
    assert "response_format" not in checked(response_format=None)


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_stream_options_are_dropped_where_nothing_is_streamed(stream: dict[str, Any]) -> None:
    assert "stream_options" not in checked(stream_options={"include_usage": True}, **stream)
    assert refusal(stream_options=1, **stream).param == "stream_options"


def test_top_logprobs_and_audio_pass_with_what_they_need() -> None:
    checked(logprobs=True, top_logprobs=20)
    checked(modalities=["text", "audio"], audio={"voice": "alloy", "format": "mp3"})


def test_unknown_parameters_are_left_in_place_and_refused_unless_allowed() -> None:
    body = checked(top_k=5, min_p=0.1)
    assert body["top_k"] == 5
    check_unknown(body, {"top_k", "min_p"})
    check_unknown(body, {"*"})
    check_unknown(request(), ())
    with pytest.raises(Reject) as caught:
        check_unknown(body, {"top_k"})
    error = caught.value
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", "min_p")
    assert error.message == "Unknown parameter: 'min_p'."


@pytest.mark.parametrize(
    "parameters",
    [
        {"verbosity": "x" * 10_000},
        {"tools": [{"type": "x" * 10_000}]},
        {"logit_bias": {"x" * 10_000: 500}},
        {"messages": [{"role": "x" * 10_000, "content": ""}]},
        {"messages": [{"role": "tool", "content": "", "tool_call_id": "x" * 10_000}]},
    ],
)
def test_long_values_are_not_repeated(parameters: dict[str, Any]) -> None:
    error = refusal(**parameters)
    assert "x" * 101 not in error.message
    assert len(error.message) < 300
    assert len(error.param or "") < 120


def test_a_long_unknown_name_is_not_repeated() -> None:
    with pytest.raises(Reject) as caught:
        check_unknown({"x" * 10_000: 1}, ())
    assert len(caught.value.message) < 120
    assert len(caught.value.param or "") < 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["user", "assistant", "tool", "function", "text", "auto", "json_schema"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "name", "function", "id", "tool_calls", "custom", "text"])
        | st.text(max_size=3), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(CHAT_PARAMETERS)), JSON, max_size=4))
def test_any_json_passes_or_is_refused_with_a_message_and_a_path(parameters: dict[str, Any]) -> None:
    body = request(**parameters)
    try:
        check_chat(body)
    except Reject as error:
        assert error.status == 400
        assert error.message
        assert type(error.param) is str
        assert error.code is None or type(error.code) is str


@given(st.sampled_from(sorted(CHAT_PARAMETERS)), JSON)
def test_loading_the_schema_gives_the_same_verdict(name: str, value: Any) -> None:
    body, loaded = request(**{name: value}), copy.deepcopy(request(**{name: value}))
    try:
        check_chat(body)
    except Reject:
        with pytest.raises(ValidationError):
            ChatRequest().load(loaded)
    else:
        assert ChatRequest().load(loaded) == body


def test_every_field_is_described() -> None:
    for name, field in ChatRequest().fields.items():
        assert isinstance(field, Parameter), name
        assert field.metadata["description"].endswith("."), name
        assert field.metadata.keys() & {"type", "anyOf"}, name
        assert field.allow_none is (name in NULLABLE), name
    described = ChatRequest().fields["temperature"].metadata
    assert {"type": "number", "minimum": 0, "maximum": 2, "default": 1}.items() <= described.items()
