"""The official client talks to Lockgate as to OpenAI, with either worker class."""

from __future__ import annotations

import json
from collections.abc import Callable

import openai
import pytest
from gateways import ECHO, Gateway
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel
from wire import Wire

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, wörld 🌍"}]
SAID = "You said: Hello, wörld 🌍"
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Place(BaseModel):
    """A structured answer."""

    city: str
    days: int


def test_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=HELLO)
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", "echo", "chatcmpl-")
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", SAID, None)
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens == 8


def test_a_streamed_answer_comes_word_by_word_and_without_usage(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="echo", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks] == [
        "",
        "You",
        " said:",
        " Hello,",
        " wörld",
        " 🌍",
        None,
    ]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 6 + ["stop"]
    assert [chunk.usage for chunk in chunks] == [None] * 7


def test_usage_comes_once_and_last_for_those_who_ask(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = list(stream)
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens == 5
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_the_accumulating_stream_of_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="echo", messages=HELLO, n=2) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 2
    assert [choice.message.content for choice in final.choices] == [SAID, SAID]
    assert [choice.finish_reason for choice in final.choices] == ["stop", "stop"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_choices_are_whole_in_both_ways(client: openai.OpenAI, n: int) -> None:
    whole = client.chat.completions.create(model="echo", messages=HELLO, n=n)
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [(index, SAID) for index in range(n)]
    texts = [""] * n
    for chunk in client.chat.completions.create(model="echo", messages=HELLO, n=n, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [SAID] * n


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call(client: openai.OpenAI, streamed: bool) -> None:
    if streamed:
        with client.chat.completions.stream(
            model="echo", messages=HELLO, tools=[WEATHER], tool_choice="required"
        ) as stream:
            answer = stream.get_final_completion()
        finish, message = answer.choices[0].finish_reason, answer.choices[0].message.model_dump()
    else:
        whole = client.chat.completions.create(model="echo", messages=HELLO, tools=[WEATHER], tool_choice="required")
        finish, message = whole.choices[0].finish_reason, whole.choices[0].message.model_dump()
    assert (finish, message["content"]) == ("tool_calls", None)
    [call] = message["tool_calls"]
    assert (call["type"], call["function"]["name"], call["id"][:5]) == ("function", "get_weather", "call_")
    assert json.loads(call["function"]["arguments"]) == {"city": "Hello, wörld 🌍"}


def test_a_tool_call_named_by_the_caller(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(model="echo", messages=HELLO, tools=[WEATHER], tool_choice=named)  # type: ignore[call-overload]
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_a_structured_answer_is_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="echo", messages=HELLO, response_format=Place)
    assert answer.choices[0].message.parsed == Place(city="Hello, wörld 🌍", days=0)


def test_limits_and_stop_words(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(model="echo", messages=HELLO, max_completion_tokens=2)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("You said:", "length")
    cut = client.chat.completions.create(model="echo", messages=HELLO, stop=["wörld"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("You said: Hello, ", "stop")


@pytest.mark.parametrize("streamed", [False, True])
def test_the_request_id_is_on_every_answer(client: openai.OpenAI, streamed: bool) -> None:
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO, stream=streamed)
    assert raw.request_id is not None and raw.request_id.startswith("req_")
    assert raw.status_code == 200
    kind = "text/event-stream; charset=utf-8" if streamed else "application/json"
    assert raw.headers["content-type"] == kind
    if streamed:
        assert (raw.headers["cache-control"], raw.headers["x-accel-buffering"]) == ("no-cache", "no")
        raw.http_response.close()


def test_the_models_are_listed_and_described(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]
    model = client.models.retrieve("echo")
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "lockgate")


def test_many_answers_over_one_connection(wire: Wire) -> None:
    for number in range(5):
        body = {"model": "echo", "messages": [{"role": "user", "content": f"no. {number}"}], "stream": number % 2 == 0}
        answer = wire.post(body)
        assert (answer.status, answer.whole) == (200, True)
        assert f" {number}" in answer.body.decode()


def test_a_stream_is_canonical_byte_by_byte(wire: Wire) -> None:
    answer = wire.post({"model": "echo", "messages": HELLO, "stream": True})
    assert answer.events[-1] == "[DONE]" and answer.whole
    assert [event["object"] for event in answer.events[:-1]] == ["chat.completion.chunk"] * 7
    assert len({(event["id"], event["created"], event["model"]) for event in answer.events[:-1]}) == 1


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/event-stream", None])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_body_alone_decides_about_streaming(wire: Wire, accept: str | None, streamed: bool) -> None:
    answer = wire.post({"model": "echo", "messages": HELLO, "stream": streamed}, accept=accept)
    assert answer.headers["content-type"].startswith("text/event-stream" if streamed else "application/json")


def test_a_chunked_request_is_read(wire: Wire) -> None:
    body = json.dumps({"model": "echo", "messages": HELLO}).encode()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])) + b"0\r\n\r\n"
    wire.request(b"", content_length=None, transfer_encoding="chunked")
    wire.send(pieces)
    assert wire.answer().json["choices"][0]["message"]["content"] == SAID


def test_a_client_of_http_1_0_gets_its_stream_until_the_end(gateway: Gateway) -> None:
    body = json.dumps({"model": "echo", "messages": HELLO, "stream": True}).encode()
    with gateway.wire() as wire:
        lines = f"authorization: Bearer {gateway.key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        wire.send(f"POST /v1/chat/completions HTTP/1.0\r\n{lines}\r\n\r\n".encode() + body)
        answer = wire.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.events[-1] == "[DONE]"


def test_a_client_that_leaves_a_slow_answer_ends_it(start_gateway: Callable[..., Gateway], worker: str) -> None:
    gateway = start_gateway(ECHO.replace('use = "echo"', 'use = "echo"\ndelay_ms = 300000'), worker=worker)
    with gateway.wire() as wire:
        wire.request({"model": "echo", "messages": HELLO, "stream": True})
        wire.read_until(b"\n\n")
    # The gateway waits for the exchanges that are under way, and this one would take half an hour.
    assert gateway.stop() == 0
    [end] = [record for record in gateway.records() if record["kind"] == "end"]
    assert end["client_gone"]


def test_a_slow_answer_begins_with_comments_that_the_client_does_not_mind(
    start_gateway: Callable[..., Gateway], worker: str
) -> None:
    slow = ECHO.replace('use = "echo"', 'use = "echo"\nfirst_delay_ms = 1500')
    gateway = start_gateway(slow, worker=worker, server={"heartbeat": 0.2})
    with gateway.client() as client, client.chat.completions.stream(model="echo", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == SAID
    with gateway.wire() as wire:
        answer = wire.post({"model": "echo", "messages": HELLO, "stream": True})
    assert answer.body.startswith(b": ping\n\n") and answer.whole
    assert answer.events[-1] == "[DONE]"


def test_a_slow_answer_is_not_late_while_its_words_keep_coming(
    start_gateway: Callable[..., Gateway], worker: str
) -> None:
    slow = ECHO.replace('use = "echo"', 'use = "echo"\ndelay_ms = 400')
    slow = slow.replace('targets = ["echo"]', 'targets = ["echo"]\ntimeouts = { first_byte = 1.5, idle = 1.5 }')
    gateway = start_gateway(slow, worker=worker)
    with gateway.wire() as wire:
        answer = wire.post({"model": "echo", "messages": HELLO, "stream": True})
    assert answer.events[-1] == "[DONE]"
