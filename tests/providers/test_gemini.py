"""Gemini behind OpenAI's API: what it is sent, judged by Google's types, and what comes back, by OpenAI's client."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from functools import partial

import geminis
import openai
import pytest
import talks
from gateways import Gateway
from geminis import USAGE, called, error, judged, said, streamed, text, thought, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import HI, PNG, WEATHER
from upstreams import Upstream

from proxy.exchange import Exchange
from proxy.providers.gemini import Gemini
from proxy.upstreams.sealing import Sealer

ask = partial(talks.ask, model="gemini-3-pro")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway and the scripted upstream that it takes for Google."""
    folder = tmp_path_factory.mktemp("gemini")
    (folder / "key").write_text("google-key")
    with Upstream() as upstream:
        base, key = f"http://{upstream.address}/v1beta", '{ file = "key" }'
        toml = f"""
            chain = ["keys"]
            plugins.keys = {{ use = "api_keys" }}
            providers.gemini = {{ use = "gemini", base_url = "{base}", api_key = {key}, breaker = {{ failures = 0 }} }}
            models."gemini-*" = {{ targets = ["gemini"], web_search = true, retry = {{ attempts = 1 }} }}
            models.strict = {{ targets = ["gemini/gemini-3-pro"], strict = true }}
        """
        gateway = Gateway(folder, toml)
        yield gateway, upstream
        gateway.stop()


@pytest.fixture
def upstream(behind: tuple[Gateway, Upstream]) -> Upstream:
    behind[1].requests.clear()
    return behind[1]


def answering(upstream: Upstream, *answers: bytes) -> None:
    upstream.scripts = [lambda _, answer=answer: answer for answer in answers]


def test_a_request_is_one_that_googles_types_know(client, upstream):
    answering(upstream, whole(said(text("Fine."), finish="STOP", usage=USAGE)))
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
    ]
    client.chat.completions.create(
        model="gemini-3-pro",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "A dot."},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "Sure?"},
        ],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        reasoning_effort="low",
        max_completion_tokens=100,
        temperature=0.5,
        top_p=0.9,
        n=2,
        stop=["END"],
        seed=2**40 + 5,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
    )
    request = upstream.wait_request()
    assert request.path == "/v1beta/models/gemini-3-pro:generateContent"
    assert request.headers["x-goog-api-key"] == "google-key"
    body = judged(request)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][0]["parts"] == [
        {"text": "Hello"},
        {"text": "What is this?"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
    ]
    function = WEATHER["function"]
    declared = {"name": "weather", "description": "Tells it.", "parametersJsonSchema": function["parameters"]}
    assert body["tools"] == [{"functionDeclarations": [declared]}]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    assert body["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "candidateCount": 2,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "maxOutputTokens": 100,
        "stopSequences": ["END"],
        "seed": 5,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
    }


ANSWER = [
    said(thought("Hm, ")),
    said(thought("yes.")),
    said(text("Hé"), usage={"promptTokenCount": 12}),
    said(text("llo."), finish="STOP", usage=USAGE),
]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_one_that_openais_client_knows(client, upstream, stream):
    one = said(thought("Hm, yes."), text("Héllo."), finish="STOP", usage=USAGE)
    answering(upstream, streamed(*ANSWER) if stream else whole(one))
    got = ask(client, stream)
    assert upstream.wait_request().path.endswith(":streamGenerateContent?alt=sse" if stream else ":generateContent")
    assert got.model == "gemini-3-pro" and got.id.startswith("chatcmpl-")
    message = got.choices[0].message
    assert (message.content, message.reasoning_content, got.choices[0].finish_reason) == ("Héllo.", "Hm, yes.", "stop")
    usage = got.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 12, 24)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details.reasoning_tokens == 7


def test_a_stream_has_openais_order(behind, upstream):
    answering(upstream, streamed(*ANSWER))
    with behind[0].wire() as wire:
        got = wire.post({"model": "gemini-3-pro", "messages": HI, "stream": True})
    assert got.whole and got.events[-1] == "[DONE]"
    choices = [event["choices"][0] for event in got.events[:-1]]
    assert choices[0]["delta"]["role"] == "assistant" and not any("role" in choice["delta"] for choice in choices[1:])
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_signature_of_a_call_comes_back_with_it(client, upstream, stream):
    parts = [called("weather", "c2lnbmVk", id="fc1", city="Ulm"), called("weather", id="fc2", city="Bonn")]
    send = streamed if stream else whole
    answering(upstream, send(said(*parts, finish="STOP", usage=USAGE)), send(said(text("Rain."), finish="STOP")))
    first = ask(client, stream, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    calls = first.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Ulm"}, {"city": "Bonn"}]
    turn = {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"}) for call in calls]}
    results = [
        {"role": "tool", "tool_call_id": calls[1].id, "content": "dry"},
        {"role": "tool", "tool_call_id": calls[0].id, "content": '{"sky": "wet"}'},
    ]
    assert ask(client, stream, messages=[*HI, turn, *results], tools=[WEATHER]).choices[0].message.content == "Rain."
    body = judged(upstream.wait_request(2))
    assert body["contents"][1] == {"role": "model", "parts": parts}
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"name": "weather", "response": {"sky": "wet"}, "id": "fc1"}},
        {"functionResponse": {"name": "weather", "response": {"result": "dry"}, "id": "fc2"}},
    ]
    # Another model would refuse the signature, and needs to be told that there is none.
    ask(client, stream, model="gemini-3-flash", messages=[*HI, turn, *results], tools=[WEATHER])
    replayed = judged(upstream.wait_request(3))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in replayed] == ["skip_thought_signature_validator", None]


def test_calls_that_another_model_made_need_no_signature_before_gemini_3(client, upstream):
    answering(upstream, whole(said(text("Rain."), finish="STOP")))
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "not JSON"}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": "[1]"}]
    ask(client, model="gemini-2.5-flash", messages=[*HI, *turns])
    contents = judged(upstream.wait_request())["contents"]
    assert contents[1]["parts"] == [{"functionCall": {"name": "weather", "args": {"invalid_json": "not JSON"}}}]
    assert contents[2]["parts"] == [{"functionResponse": {"name": "weather", "response": {"result": "[1]"}}}]


def test_functions_of_the_older_kind_are_answered_in_kind(client, upstream):
    answering(upstream, whole(said(called("weather", city="Ulm"), finish="STOP")))
    got = ask(client, functions=[WEATHER["function"]], function_call={"name": "weather"}).choices[0]
    assert got.finish_reason == "function_call"
    assert (got.message.function_call.name, got.message.function_call.arguments) == ("weather", '{"city":"Ulm"}')


BLOCKED = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "content"), [(BLOCKED, ""), (said(finish="SAFETY"), ""), (said(text("No"), finish="SPII"), "No")]
)
def test_what_was_blocked_is_a_finish_reason(client, upstream, stream, answer, content):
    answering(upstream, (streamed if stream else whole)(answer))
    if stream:  # the gathering client takes this finish for a failure
        chunks = [
            chunk.choices[0] for chunk in client.chat.completions.create(model="gemini-3-pro", messages=HI, stream=True)
        ]
        got = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        choice = ask(client).choices[0]
        got = choice.message.content, choice.finish_reason
    assert got == (content, "content_filter")


BROKEN = {
    "a safety error after 200": (
        streamed(said(text("Hi")), then=json.dumps(error(503, "UNAVAILABLE", "busy"), indent=2).encode()),
        "server_is_overloaded",
    ),
    "an error in a list": (
        streamed(said(text("Hi")), then=json.dumps([error(500, "INTERNAL", "oops")]).encode()),
        "upstream_error",
    ),
    "an error as an event": (
        streamed(said(text("Hi")), error(429, "RESOURCE_EXHAUSTED", "slow down")),
        "rate_limit_exceeded",
    ),
    "a call that is none": (
        streamed(said(text("Hi")), said(finish="MALFORMED_FUNCTION_CALL")),
        "upstream_malformed_output",
    ),
    "arguments that are no object": (
        streamed(said(text("Hi")), said({"functionCall": {"name": "f", "args": "{"}})),
        "upstream_malformed",
    ),
    "a call without a name": (streamed(said(text("Hi")), said({"functionCall": {"args": {}}})), "upstream_malformed"),
    "text that is none": (streamed(said(text("Hi")), said({"text": 1})), "upstream_malformed"),
    "half an event": (streamed(said(text("Hi")), then=b'data: {"candidates": ['), "upstream_stream_cut"),
    "no finish reason": (streamed(said(text("Hi"))), "upstream_stream_cut"),
    "an image": (
        streamed(said(text("Hi")), said({"inlineData": {"mimeType": "image/png", "data": PNG}})),
        "upstream_unsupported_output",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_never_looks_complete(behind, upstream, name):
    answering(upstream, BROKEN[name][0])
    with behind[0].wire() as wire:
        got = wire.post({"model": "gemini-3-pro", "messages": HI, "stream": True})
    assert not got.whole and got.events[-1]["error"]["code"] == BROKEN[name][1]
    assert not any(choice["finish_reason"] for event in got.events[:-1] for choice in event["choices"])


KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
TOO_LONG = "The input token count (9) exceeds the maximum number of tokens allowed (8)."
REFUSED = [
    (400, error(400, "INVALID_ARGUMENT", "API key not valid.", KEY), 502, "upstream_auth_error"),
    (400, error(400, "INVALID_ARGUMENT", TOO_LONG), 400, "context_length_exceeded"),
    (400, [error(400, "INVALID_ARGUMENT", "contents is wrong")], 400, "upstream_refused"),
    (403, error(403, "PERMISSION_DENIED", "no"), 502, "upstream_auth_error"),
    (404, error(404, "NOT_FOUND", "models/x is not found"), 404, "model_not_found"),
    (429, error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", WAIT), 429, "rate_limit_exceeded"),
    (503, error(503, "UNAVAILABLE", "The model is overloaded."), 503, "server_is_overloaded"),
    (504, error(504, "DEADLINE_EXCEEDED", "late"), 504, "upstream_timeout"),
    (500, "<html>", 502, "upstream_error"),
    (200, {"candidates": []}, 502, "upstream_empty_response"),
    (200, {"candidates": None, "usageMetadata": {}}, 502, "upstream_empty_response"),
    (200, said(text("Hi")), 502, "upstream_empty_response"),
    (200, error(500, "INTERNAL", "oops"), 502, "upstream_error"),
    (200, "text", 502, "upstream_malformed"),
]


@pytest.mark.parametrize(("status", "answer", "expected", "code"), REFUSED)
def test_googles_errors_are_openais(client, upstream, status, answer, expected, code):
    answering(upstream, whole(answer, status))
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (expected, code)
    if code == "rate_limit_exceeded":
        assert caught.value.response.headers["retry-after"] == "35"


def test_what_gemini_cannot_do_is_refused_before_it_is_asked(client, upstream):
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    custom = {"type": "custom", "custom": {"name": "shell"}}
    for body, param in [
        ({"messages": [{"role": "user", "content": [image]}]}, "messages[0].content[0].image_url"),
        ({"tools": [custom]}, "tools"),
        ({"tools": [{"type": "x_search"}]}, "tools"),
        ({"modalities": ["audio"], "audio": {"voice": "a", "format": "wav"}}, "modalities"),
    ]:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **body)
        assert caught.value.param == param
    assert upstream.requests == []


def test_what_it_has_no_word_for_is_dropped_and_told(client, upstream):
    answering(upstream, whole(said(text("Hi"), finish="STOP")))
    body = {"model": "gemini-1.5-flash", "messages": HI, "user": "me", "verbosity": "low", "reasoning_effort": "low"}
    got = client.chat.completions.with_raw_response.create(**body, tools=[WEATHER], parallel_tool_calls=False)
    assert got.headers["x-lockgate-dropped"] == "verbosity, parallel_tool_calls, reasoning_effort"
    assert "thinkingConfig" not in judged(upstream.wait_request()).get("generationConfig", {})
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model="strict", user="me", logit_bias={"1": 5})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "logit_bias")


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-3-pro", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.5-flash", "max", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        ("gemini-flash-latest", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
    ],
)
def test_effort_is_said_in_the_words_of_the_models_generation(model, effort, thinking):
    sent = json.loads(opened({"reasoning_effort": effort}, model=model).outgoing.body)
    assert sent["generationConfig"]["thinkingConfig"] == thinking


CITED = "Grüße 🌍 aus Ulm. Es regnet."
GROUNDING = {
    "webSearchQueries": ["wetter ulm"],
    "groundingChunks": [{"web": {"uri": "https://a.example", "title": "a"}}, {"web": {"uri": "https://b.example"}}],
    "groundingSupports": [
        {"segment": {"endIndex": 23, "text": "Grüße 🌍 aus Ulm."}, "groundingChunkIndices": [0]},
        {"segment": {"startIndex": 24, "endIndex": 34, "text": "Es regnet."}, "groundingChunkIndices": [0, 1, 7]},
        {"segment": {"startIndex": 2, "endIndex": 12, "text": "Es regnet."}, "groundingChunkIndices": [1]},
        {"segment": {"endIndex": 9, "text": "Nirgends."}, "groundingChunkIndices": [1]},
    ],
}


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_search_has_found_is_cited_by_characters(client, upstream, stream):
    if stream:
        parts = [said(thought("Hm")), *(said(text(CITED[at : at + 5])) for at in range(0, len(CITED), 5))]
        answering(upstream, streamed(*parts, said(finish="STOP", usage=USAGE, groundingMetadata=GROUNDING)))
    else:
        answering(
            upstream, whole(said(thought("Hm"), text(CITED), finish="STOP", usage=USAGE, groundingMetadata=GROUNDING))
        )
    got = ask(client, stream, web_search_options={"search_context_size": "high"})
    assert judged(upstream.wait_request())["tools"] == [{"googleSearch": {}}]
    message = got.choices[0].message
    cited = [each if isinstance(each, dict) else each.model_dump() for each in message.annotations]
    found = [
        (each["url_citation"]["url"], slice(each["url_citation"]["start_index"], each["url_citation"]["end_index"]))
        for each in cited
    ]
    assert [(url, message.content[place]) for url, place in found] == [
        ("https://a.example", "Grüße 🌍 aus Ulm."),
        ("https://a.example", "Es regnet."),
        ("https://b.example", "Es regnet."),
        ("https://b.example", "Es regnet."),
    ]


def test_candidates_are_choices_and_their_log_probabilities_are_told(client, upstream):
    likely = {"token": "Hé", "logProbability": -0.5}
    logprobs = {"chosenCandidates": [likely], "topCandidates": [{"candidates": [likely, {"token": "Yo"}]}]}
    one = said(text("Hé"), finish="STOP", logprobsResult=logprobs)
    one["candidates"].append({"index": 1, "content": {"parts": [{"text": "Yo"}]}, "finishReason": "MAX_TOKENS"})
    answering(upstream, whole(one))
    first, second = ask(client, n=2, logprobs=True, top_logprobs=2).choices
    assert (second.index, second.message.content, second.finish_reason) == (1, "Yo", "length")
    told = first.logprobs.content[0]
    assert (told.token, told.logprob, told.bytes) == ("Hé", -0.5, list("Hé".encode()))
    assert [(top.token, top.logprob) for top in told.top_logprobs] == [("Hé", -0.5), ("Yo", 0.0)]


def opened(body=None, model="gemini-3-pro", stream=True):
    """A call of a provider of its own, without a gateway."""
    provider = Gemini(Gemini.Config().load({}))
    provider.sealer = Sealer(b"x" * 32)
    exchange = Exchange("req_1", "POST", "/", {}, "", received=1700000000, model=model, stream=stream)
    return provider.open(exchange, {"model": model, "messages": HI, **(body or {})})


def gathered(chunks):
    call = opened()
    events = []
    with contextlib.suppress(Exception):
        for chunk in chunks:
            for payload in call.frames(chunk):
                events += call.events(payload)
    return events, call.complete


LONG = geminis.events(
    [
        *ANSWER[:3],
        {"unknown": {"event": 1}},
        said(called("weather", "c2ln", city="Ulm"), {"unheard": "of"}),
        said(finish="STOP", usage=USAGE, groundingMetadata=GROUNDING),
    ]
)
ENDS = [b"", json.dumps(error(500, "INTERNAL", "oops"), indent=2).encode()]


@pytest.mark.parametrize("end", ENDS)
@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, len(LONG) + 40), max_size=12))
def test_a_stream_is_the_same_however_it_is_cut(end, cuts):
    raw = LONG.replace(b"\r\n", b"\n") + end
    places = [0, *sorted(cuts), len(raw)]
    pieces = [raw[start:stop] for start, stop in itertools.pairwise(places) if raw[start:stop]]
    whole_at_once = gathered([raw, b""])
    assert gathered([*pieces, b""]) == whole_at_once
    assert whole_at_once[1] is (end == b"")


def test_a_stream_is_the_same_byte_by_byte():
    assert gathered([*(LONG[at : at + 1] for at in range(len(LONG))), b""]) == gathered([LONG, b""])


def test_a_model_by_a_callers_name_cannot_leave_its_place_in_the_path():
    assert opened(model="../x?y#z:a/b").outgoing.url.endswith(
        "/models/..%2Fx%3Fy%23z%3Aa%2Fb:streamGenerateContent?alt=sse"
    )
