"""Upstreams that nearly speak OpenAI: what they are sent, and what becomes of what they answer."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.errors import Reject, UpstreamError
from proxy.exchange import Exchange
from proxy.fold import Fold
from proxy.providers.dialects import AZURE, DIALECTS
from proxy.providers.dialects.answers import DialectCall
from proxy.providers.dialects.requests import QUIET, SHAPE, fit
from proxy.providers.dialects.thoughts import Thoughts
from proxy.providers.openai import OpenAI
from proxy.request.schemas import CHAT_PARAMETERS
from proxy.testing import configured

FUNCTION = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"$schema": "x", "type": "object"}}}
#: A value for each of OpenAI's parameters that asks for something.
ASKED: dict[str, Any] = {
    "stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 5, "max_tokens": 6,
    "temperature": 0.5, "top_p": 0.5, "n": 2, "stop": ["END"], "presence_penalty": 1, "frequency_penalty": 1,
    "logit_bias": {"1": 5}, "logprobs": True, "top_logprobs": 2, "seed": 1, "response_format": SCHEMA,
    "tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False,
    "functions": [FUNCTION["function"]], "function_call": "auto", "reasoning_effort": "low", "verbosity": "low",
    "modalities": ["audio"], "audio": {"voice": "x", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "store": True, "metadata": {"a": "b"}, "service_tier": "flex", "user": "u", "safety_identifier": "s",
    "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "explicit"},
    "moderation": {"model": "m"}, "web_search_options": {},
}  # fmt: skip
#: What reaches an upstream under another name, or inside another parameter.
TRANSLATED = {
    "ollama": {"tool_choice"},
    "mistral": {"seed"},
    "groq": {"web_search_options"},
    "deepseek": {"reasoning_effort"},
    "openrouter": {"reasoning_effort"},
    "perplexity": {"tool_choice"},
}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "some-model", "messages": [{"role": "user", "content": "Hi"}], **more}


def fitted(dialect: str, **more: Any) -> tuple[dict[str, Any], list[str]]:
    sent = body(**more)
    dropped = fit(DIALECTS[dialect], sent)
    return sent, dropped


def test_every_parameter_of_openai_has_a_value_here() -> None:
    assert ASKED.keys() | {"model", "messages"} == CHAT_PARAMETERS


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ASKED)
def test_every_parameter_is_sent_or_told_or_refused(dialect: str, name: str) -> None:
    sent = body(**{name: ASKED[name]})
    try:
        dropped = fit(DIALECTS[dialect], sent)
    except Reject as refused:
        assert (refused.status, refused.code, refused.param) == (400, "unsupported_parameter", name)
        assert name in SHAPE | {"web_search_options", "response_format", "tool_choice"}
        return
    limit = name in ("max_tokens", "max_completion_tokens")
    kept = (DIALECTS[dialect].limit if limit else name) in sent or name in TRANSLATED.get(dialect, ())
    assert [kept, name in dropped, name in QUIET].count(True) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_asks_for_nothing_is_never_refused_or_told(dialect: str) -> None:
    nothing = {"n": 1, "logprobs": False, "logit_bias": {}, "modalities": ["text"], "response_format": {"type": "text"}}
    _, dropped = fitted(dialect, **nothing, tools=[], seed=None, audio=None, parallel_tool_calls=True)
    assert dropped == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_caller_s_own_body_is_left_as_it_is(dialect: str) -> None:
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "index": 0, "function": {"name": "weather", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]  # fmt: skip
    more = {"tools": [FUNCTION]} if dialect != "perplexity" else {"web_search_options": {"user_location": None}}
    forms = DIALECTS[dialect].forms
    more |= {"response_format": SCHEMA} if "json_schema" in forms else {}
    asked = {**body(), "messages": messages, **more}
    before = json.dumps(asked)
    fit(DIALECTS[dialect], {**asked})
    assert json.dumps(asked) == before


def test_two_names_for_the_most_tokens_are_one() -> None:
    assert fitted("ollama", max_tokens=5, max_completion_tokens=7)[0]["max_tokens"] == 7
    assert "max_tokens" not in fitted("groq", max_tokens=5)[0]


def test_mistral_gets_ids_of_nine_letters_the_same_in_call_and_result() -> None:
    call = {"id": "call_abc", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent, _ = fitted("mistral")
    sent = body(
        messages=[
            {"role": "user", "content": "Hi", "name": "ann"},
            {"role": "assistant", "content": "", "refusal": None, "annotations": [], "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_abc", "content": "x"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": "So"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
            "$schema": "x", "type": "object", "additionalProperties": False,
            "properties": {"additionalProperties": {"type": "string", "additionalProperties": False}},
        }}}],
        tool_choice="required",
        seed=4,
    )  # fmt: skip
    assert fit(DIALECTS["mistral"], sent) == []
    user, asked, result, last = sent["messages"]
    assert user == {"role": "user", "content": "Hi"}
    assert asked["tool_calls"][0]["id"] == result["tool_call_id"] and len(result["tool_call_id"]) == 9
    assert asked.keys() == {"role", "content", "tool_calls"}
    assert last == {"role": "assistant", "content": "So", "prefix": True}
    assert sent["tools"][0]["function"]["parameters"] == {
        "type": "object", "properties": {"additionalProperties": {"type": "string"}}
    }  # fmt: skip
    assert (sent["tool_choice"], sent["random_seed"]) == ("any", 4)


def test_perplexity_gets_alternating_roles_and_a_flat_place() -> None:
    place = {"type": "approximate", "approximate": {"city": "Bonn", "country": "DE", "timezone": "Europe/Berlin"}}
    sent = body(
        messages=[
            {"role": "user", "content": "One"},
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "Two"}]},
        ],
        web_search_options={"search_context_size": "high", "user_location": place},
    )
    assert fit(DIALECTS["perplexity"], sent) == ["web_search_options.user_location.timezone"]
    assert sent["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "One\n\nTwo"}]
    assert sent["web_search_options"]["user_location"] == {"city": "Bonn", "country": "DE"}


def test_search_is_asked_for_in_each_one_s_own_way() -> None:
    sent, _ = fitted("openrouter", web_search_options={"search_context_size": "high"})
    assert sent["plugins"] == [{"id": "web", "max_results": 10}]
    sent, _ = fitted("groq", web_search_options={})
    assert sent["tools"] == [{"type": "browser_search"}]
    sent = body(model="groq/compound", web_search_options={})
    fit(DIALECTS["groq"], sent)
    assert "tools" not in sent
    for dialect in ("vllm", "ollama", "llama.cpp", "tgi", "lmstudio", "mistral", "deepseek", "xai"):
        with pytest.raises(Reject) as refused:
            fitted(dialect, web_search_options={})
        assert refused.value.param == "web_search_options"


def test_a_named_tool_is_the_only_one_where_names_are_not_understood() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    named = {"type": "function", "function": {"name": "weather"}}
    sent, _ = fitted("lmstudio", tools=[other, FUNCTION], tool_choice=named)
    assert (sent["tool_choice"], sent["tools"]) == ("required", [FUNCTION])
    with pytest.raises(Reject, match="tool_choice"):
        fitted("ollama", tools=[other, FUNCTION], tool_choice=named)
    sent, _ = fitted("ollama", tools=[FUNCTION], tool_choice="none")
    assert sent.keys() == {"model", "messages"}


def test_allowed_tools_are_those_that_are_sent() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [FUNCTION]}}
    sent, _ = fitted("mistral", tools=[other, FUNCTION], tool_choice=choice)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["weather"] and sent["tool_choice"] == "any"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_custom_tools_are_refused(dialect: str) -> None:
    with pytest.raises(Reject) as refused:
        fitted(dialect, tools=[{"type": "custom", "custom": {"name": "x"}}])
    assert refused.value.param == "tools"


def test_forms_of_answers_are_said_as_each_takes_them() -> None:
    sent, _ = fitted("tgi", response_format=SCHEMA)
    assert sent["response_format"] == {"type": "json", "value": SCHEMA["json_schema"]["schema"]}
    sent, _ = fitted("lmstudio", response_format={"type": "json_object"})
    assert sent["response_format"]["type"] == "json_schema"
    sent, _ = fitted("mistral", response_format=SCHEMA)
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(Reject, match="'response_format' of type 'json_schema' is not supported with this model"):
        fitted("deepseek", response_format=SCHEMA)


def test_bounds_that_are_tighter_are_kept_to() -> None:
    assert fitted("groq", temperature=0)[0]["temperature"] == 1e-8
    assert fitted("tgi", top_p=1)[0]["top_p"] < 1


def test_what_only_some_models_take_is_left_out_for_the_others() -> None:
    sent = body(model="grok-4-fast", stop=["x"])
    assert fit(DIALECTS["xai"], sent) == ["stop"] and "stop" not in sent
    sent = body(model="grok-2", stop=["x"])
    assert fit(DIALECTS["xai"], sent) == [] and "stop" in sent


def test_thinking_is_asked_for_in_each_one_s_own_way() -> None:
    assert fitted("deepseek", reasoning_effort="none")[0]["thinking"] == {"type": "disabled"}
    assert fitted("deepseek", reasoning_effort="low")[0]["thinking"] == {"type": "enabled"}
    assert fitted("openrouter", reasoning_effort="max")[0]["reasoning"] == {"effort": "xhigh"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_brings_its_address_and_its_own_parameters(dialect: str) -> None:
    provider = configured(OpenAI, dialect=dialect, parameters=["mine"])
    assert provider.parameters == DIALECTS[dialect].parameters | {"mine"}
    assert not provider.parameters & CHAT_PARAMETERS
    assert provider.native is DIALECTS[dialect].native
    call = provider.open(exchange(stream=True), body(stream=True, stream_options={"include_obfuscation": False}))
    assert call.outgoing.url == DIALECTS[dialect].base_url + "/chat/completions"
    asks_usage = {"include_usage": True} if DIALECTS[dialect].stream_options else None
    assert json.loads(call.outgoing.body).get("stream_options") == asks_usage


def exchange(stream: bool = False) -> Exchange:
    return Exchange("req_1", "POST", "/", {}, "", received=1_700_000_000.0, model="asked", stream=stream)


def call_of(dialect: str) -> DialectCall:
    call = configured(OpenAI, dialect=dialect).open(exchange(True), body(stream=True))
    assert isinstance(call, DialectCall)
    return call


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def streamed(call: DialectCall, *chunks: dict[str, Any], done: bool = True) -> list[dict[str, Any]]:
    """Feed chunks to a call; return the events that it makes of them."""
    said = b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in chunks) + b"data: [DONE]\n\n" * done
    return [event for piece in (said, b"") for payload in call.frames(piece) for event in call.events(payload)]


def folded(events: list[dict[str, Any]]) -> dict[str, Any]:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold.completion()


def message(events: list[dict[str, Any]]) -> dict[str, Any]:
    return folded(events)["choices"][0]["message"]


def test_a_missing_role_is_said_first_and_a_repeated_one_once() -> None:
    for deltas in ([{"content": "a"}, {"content": "b"}], [{"role": "assistant", "content": c} for c in "ab"]):
        events = streamed(call_of("ollama"), *(chunk(delta) for delta in deltas), chunk({}, "stop"))
        roles = [event["choices"][0]["delta"].get("role") for event in events]
        assert roles == ["assistant", None, None]
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "a", "refusal": None}


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
#: Ways in which calls of f({"a": 1}) and, in some, g({}) come: the deltas, and how many calls there are.
CALLS: dict[str, tuple[str, list[Any], int]] = {
    "without an index": ("ollama", [[{**CALL}], [{"id": "c2", "function": {"name": "g", "arguments": "{}"}}]], 2),
    "all with index 0": (
        "ollama",
        [[{**CALL, "index": 0}, {"index": 0, "id": "c2", "function": {"name": "g", "arguments": "{}"}}]],
        2,
    ),
    "all with index 0 and no ids": (
        "ollama",
        [[{"index": 0, "function": CALL["function"]}, {"index": 0, "function": {"name": "g", "arguments": "{}"}}]],
        2,
    ),
    "from index 1": (
        "lmstudio",
        [[{**CALL, "index": 1}], [{"index": 2, "id": "c2", "function": {"name": "g"}}]],
        2,
    ),
    "id and name again": (
        "openrouter",
        [[{**CALL, "index": 0, "function": {"name": "f", "arguments": part}}] for part in ('{"a"', ":1}")],
        1,
    ),
    "arguments as an object": ("ollama", [[{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]], 1),
    "an object instead of a list": ("tgi", [{**CALL, "id": "", "index": 0}], 1),
    "arguments in pieces without index": (
        "ollama",
        [[{**CALL, "function": {"name": "f", "arguments": '{"a"'}}], [{"function": {"arguments": ":1}"}}]],
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", CALLS)
def test_tool_calls_come_out_as_openai_s_own(way: str) -> None:
    dialect, deltas, count = CALLS[way]
    events = streamed(call_of(dialect), *(chunk({"tool_calls": delta}) for delta in deltas), chunk({}, "stop"))
    entries = [entry for event in events for entry in event["choices"][0]["delta"].get("tool_calls") or ()]
    assert sorted({entry["index"] for entry in entries}) == list(range(count))
    openings = [entry for entry in entries if "id" in entry]
    assert [entry["function"]["name"] for entry in openings] == ["f", "g"][:count]
    assert all(entry["id"] and entry["type"] == "function" for entry in openings)
    assert len({entry["id"] for entry in openings}) == count
    calls = message(events)["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1}, {}][:count]
    assert folded(events)["choices"][0]["finish_reason"] == "tool_calls"


def test_an_empty_finish_reason_is_none_and_at_the_end_a_stop() -> None:
    events = streamed(call_of("xai"), chunk({"role": "assistant", "content": "a"}, ""), chunk({"content": "b"}, ""))
    assert folded(events)["choices"][0]["finish_reason"] == "stop"
    events = streamed(call_of("xai"), chunk({"tool_calls": [{**CALL, "index": 0}]}, ""))
    assert folded(events)["choices"][0]["finish_reason"] == "tool_calls"
    events = streamed(call_of("xai"), chunk({"content": "a"}))
    assert folded(events)["choices"][0]["finish_reason"] is None


def test_finish_reasons_are_openai_s() -> None:
    for said, meant in (("eos_token", "stop"), ("model_length", "length"), ("length", "length"), ("odd", "stop")):
        assert folded(streamed(call_of("tgi"), chunk({"content": "a"}, said)))["choices"][0]["finish_reason"] == meant
    with pytest.raises(UpstreamError):
        streamed(call_of("mistral"), chunk({"content": "a"}, "error"))


def test_an_end_without_done_is_one_where_every_choice_has_finished() -> None:
    call = call_of("tgi")
    streamed(call, chunk({"content": "a"}, "eos_token"), done=False)
    assert call.complete
    call = call_of("tgi")
    streamed(call, chunk({"content": "a"}), done=False)
    assert not call.complete


def test_lists_of_parts_become_text_and_thoughts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    events = streamed(
        call_of("mistral"),
        chunk({"role": "assistant", "content": [thinking]}),
        chunk({"content": [{"type": "text", "text": "Yes"}]}, "stop"),
    )
    assert (message(events)["reasoning_content"], message(events)["content"]) == ("Hm.", "Yes")


def test_reasoning_has_one_name() -> None:
    for dialect in ("groq", "openrouter"):
        events = streamed(call_of(dialect), chunk({"reasoning": "Hm."}), chunk({"content": "Yes"}, "stop"))
        assert message(events)["reasoning_content"] == "Hm." and "reasoning" not in message(events)


def test_thoughts_between_tags_are_no_content() -> None:
    text = "<think>\nHm, 1 < 2.</thi no</think>\n\nYes <think>"
    for size in (1, 2, 5, 7, 100):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        events = streamed(call_of("lmstudio"), *(chunk({"content": piece}) for piece in pieces), chunk({}, "stop"))
        assert message(events)["reasoning_content"] == "Hm, 1 < 2.</thi no"
        assert message(events)["content"] == "Yes <think>"


def test_a_text_without_tags_stays_as_it_is() -> None:
    for text in ("Yes", "<thin", " <thinking about", "< think>", ""):
        thoughts = Thoughts()
        said = [thoughts.split(letter) for letter in text] + [thoughts.end()]
        assert "".join(answer for _, answer in said) == text
        assert "".join(thought for thought, _ in said) == ""
    thoughts = Thoughts()
    assert [thoughts.split("<think>never "), thoughts.split("ends</thi"), thoughts.end()] == [
        ("never ", ""), ("ends", ""), ("</thi", "")
    ]  # fmt: skip


def test_usage_is_found_wherever_it_is_and_adds_up() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    events = streamed(call_of("groq"), chunk({"content": "a"}, "stop", x_groq={"id": "x", "usage": usage}))
    assert folded(events)["usage"] == usage and "x_groq" not in folded(events)
    outside = {**usage, "total_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    events = streamed(call_of("xai"), chunk({"content": "a"}, "stop"), chunk(usage=outside))
    assert (folded(events)["usage"]["completion_tokens"], folded(events)["usage"]["total_tokens"]) == (6, 9)


def test_an_event_without_choices_is_no_trouble() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    for dialect in ("vllm", "ollama"):
        last = {**chunk(), "choices": None, "usage": usage}
        events = streamed(call_of(dialect), chunk({"role": "assistant", "content": "a"}, "stop"), last)
        assert events[-1]["choices"] == [] and events[-1]["usage"] == usage


def test_citations_of_perplexity_become_annotations() -> None:
    found = {"citations": ["https://a", "https://b"], "search_results": [{"url": "https://b", "title": "B"}]}
    whole = {"index": 0, "message": {"role": "assistant", "content": "é x[2] y[1] z[7]"}, "finish_reason": "stop"}
    deltas = [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": part},
            "message": whole["message"],
            "finish_reason": None,
        }
        for part in ("é x[", "2] y[1] z[7]")
    ]
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    chunks = [{**chunk(**found, usage=usage), "choices": [each]} for each in deltas]
    last = {**chunk(**found), "choices": [{**whole, "delta": {"role": "assistant", "content": ""}}]}
    call = call_of("perplexity")
    for said in (
        message(streamed(call, *chunks, last)),
        call_of("perplexity").completion(orjson.dumps({**chunk(**found), "choices": [whole]}))["choices"][0]["message"],
    ):
        assert said["content"] == "é x[2] y[1] z[7]"
        cited = [entry["url_citation"] for entry in said["annotations"]]
        assert [(c["url"], c["title"], said["content"][c["start_index"] : c["end_index"]]) for c in cited] == [
            ("https://b", "B", "[2]"),
            ("https://a", "https://a", "[1]"),
        ]


def test_a_whole_answer_is_repaired_alike() -> None:
    said = {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}], "reasoning": "Hm."}
    whole = {"id": None, "choices": [{"message": said, "finish_reason": "stop"}], "timings": {}}
    completion = call_of("ollama").completion(orjson.dumps(whole))
    choice = completion["choices"][0]
    assert (completion["object"], completion["model"], choice["finish_reason"]) == (
        "chat.completion", "asked", "tool_calls"
    )  # fmt: skip
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == (None, "Hm.")
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["message"]["annotations"] == [] and choice["logprobs"] is None


@pytest.mark.parametrize("content", [5, {"a": 1}, True, [{"type": "text", "text": 5}], ["x"]])
def test_a_text_that_is_none_is_no_answer(content: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        streamed(call_of("mistral"), chunk({"content": content}))


def error(dialect: str, status: int, said: Any) -> UpstreamError:
    return call_of(dialect).error(status, {}, orjson.dumps(said))


def test_errors_are_openai_s() -> None:
    flat = error(
        "mistral", 400, {"object": "error", "message": "Bad", "type": "invalid", "param": None, "code": "3230"}
    )
    assert (flat.status, flat.code, flat.message) == (400, "upstream_refused", "Bad")
    listed = error("mistral", 422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Extra inputs", "type": "x"}]})
    assert (listed.status, listed.message, listed.param) == (400, "Extra inputs", "messages.0")
    text = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"
    assert error("tgi", 422, {"error": text, "error_type": "validation"}).code == "context_length_exceeded"
    assert error("xai", 400, {"code": "Client specified an invalid argument", "error": "Bad"}).message == "Bad"
    assert error("vllm", 400, {"error": {"message": "Bad", "code": 400}}).code == "upstream_refused"
    moderated = {"error": {"code": 403, "message": "x", "metadata": {"reasons": ["violence"]}}}
    assert error("openrouter", 403, moderated).code == "content_filter"
    assert error("openrouter", 402, {"error": {"code": 402, "message": "x"}}).code == "insufficient_quota"
    assert error("groq", 498, {"error": {"message": "x"}}).code == "server_is_overloaded"
    overflow = {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds the available context size"}}  # fmt: skip  # noqa: E501
    assert error("llama.cpp", 400, overflow).code == "context_length_exceeded"


@pytest.mark.parametrize("dialect", ["groq", "openrouter", "vllm"])
def test_an_error_in_a_stream_ends_it(dialect: str) -> None:
    told = {"x_groq": {"error": "boom"}} if dialect == "groq" else {"error": {"code": 502, "message": "boom"}}
    with pytest.raises(UpstreamError):
        streamed(call_of(dialect), chunk({"content": "a"}), chunk({}, "error", **told))


def test_azure_s_filter_leaves_no_marks() -> None:
    call = DialectCall(call_of("ollama").outgoing, AZURE, exchange(True), [])
    first = {"id": "", "object": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{}]}
    late = {"index": 0, "finish_reason": None, "content_filter_results": {"hate": {}}, "content_filter_offsets": {}}
    marked = chunk({"role": "assistant", "content": "a"})
    marked["choices"][0]["content_filter_results"] = {}
    events = streamed(call, first, marked, {**chunk(), "choices": [late]}, chunk({}, "content_filter"))
    assert all(event["choices"] and event["id"] == "c1" and event["model"] == "m" for event in events)
    assert [set(event["choices"][0]) for event in events] == [{"index", "delta", "logprobs", "finish_reason"}] * 2


def test_the_guide_s_table_is_right() -> None:
    guide = (Path(__file__).resolve().parent.parent / "docs" / "providers.md").read_text()
    section = guide.partition("## Dialects of `openai`")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    rows = [row for row in rows if row[0] != "`dialect`"]
    assert [row[0].strip("`") for row in rows] == list(DIALECTS)
    for name, native, own, _, refused, dropped in rows:
        dialect = DIALECTS[name.strip("`")]
        assert (native == "yes") is dialect.native
        patterns = [word for word in re.findall(r"`([\w*]+)`", own) if word != "sampling"]
        assert all(any(fnmatch(each, word) for each in dialect.parameters) for word in patterns), own
        for word in re.findall(r"`(\w+)`", refused):
            asked = {
                "json_schema": ("response_format", SCHEMA),
                "json_object": ("response_format", {"type": "json_object"}),
            }
            parameter, value = asked.get(word, (word, ASKED.get(word)))
            with pytest.raises(Reject):
                fit(dialect, body(**{parameter: value}))
        for word in re.findall(r"`(\w+)`", dropped):
            assert word in fit(dialect, body(**{word: ASKED[word]}) | ({"model": "grok-4"} if name == "`xai`" else {}))
