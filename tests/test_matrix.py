"""Every provider with every feature, streamed and whole, with and without plugins, judged by the official client."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dialects import SPEAKERS, Said
from dialects.said import CACHED, COMPLETION, PROMPT, REASONING
from gateways import Gateway
from openai.types.chat import ChatCompletion
from upstreams import Request, Upstream, json_answer

from proxy.catalog import Catalog
from proxy.providers.dialects import DIALECTS

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
EMAIL = "ann@example.com"
HELLO = "Grüße, 🌍 and hello [1] there"
CALL = {"id": "call_x1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}}


def user(text: str = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": f"{text} from {EMAIL}"}


@dataclass(frozen=True)
class Feature:
    """What is asked, what the upstream says to it, the parameter that it is about, and what must have been sent up."""

    said: Said = Said(HELLO)
    messages: tuple[dict[str, Any], ...] = (user(),)
    asked: dict[str, Any] = field(default_factory=dict)
    parameter: str = ""
    up: tuple[str, ...] = ()


FEATURES = {
    "text": Feature(),
    "system": Feature(messages=({"role": "developer", "content": "Be brief."}, user()), up=("Be brief.",)),
    "turns": Feature(
        messages=(user("One"), {"role": "assistant", "content": "Two"}, user("Three")), up=("One", "Two", "Three")
    ),
    "tools": Feature(
        Said(calls=(("get_weather", '{"city":"Bonn"}'),)),
        asked={"tools": [WEATHER], "tool_choice": "auto"},
        parameter="tools",
        up=("get_weather", "Tells the weather."),
    ),
    "parallel": Feature(
        Said("Both.", calls=(("get_weather", '{"city":"Bonn"}'), ("get_weather", '{"city":"Ulm"}'))),
        asked={"tools": [WEATHER]},
        parameter="tools",
    ),
    "results": Feature(
        messages=(
            user(),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_x1", "content": "21 degrees"},
        ),
        asked={"tools": [WEATHER]},
        parameter="tools",
        up=("get_weather", "Bonn", "21 degrees"),
    ),
    "usage": Feature(asked={"stream_options": {"include_usage": True}}),
    "schema": Feature(
        Said('{"city":"Bonn"}'), asked={"response_format": FORM}, parameter="response_format", up=("city",)
    ),
    "images": Feature(messages=({"role": "user", "content": [{"type": "text", "text": EMAIL}, IMAGE]},), up=(PIXEL,)),
    "stop": Feature(asked={"stop": ["STOP-HERE"]}, parameter="stop", up=("STOP-HERE",)),
    "limit": Feature(Said(HELLO, finish="length"), asked={"max_completion_tokens": 1234}, up=("1234",)),
    "safety": Feature(Said("I", finish="filter")),
    "refusal": Feature(Said(refusal="I cannot help with that.")),
    "reasoning": Feature(
        Said(HELLO, reasoning="Let me think."), asked={"reasoning_effort": "low"}, parameter="reasoning_effort"
    ),
    "search": Feature(
        Said(HELLO, cited=("[1]", "https://example.com/a")),
        asked={"web_search_options": {}},
        parameter="web_search_options",
    ),
    "refused": Feature(),
    "broken": Feature(Said(HELLO, broken=True)),
    "overflow": Feature(),
}

#: One cell for each feature in its order: "s" it is supported, "d" the parameter is dropped and the caller told,
#: "r" it is refused as unsupported, "f" what the upstream has no words for is told by the finish reason alone.
TABLE = {
    #                text system turns | tools parallel results | usage schema images | stop limit safety refusal
    #                reasoning search | refused broken overflow
    "openai":        "sss sss sss ssss ss sss",
    "vllm":          "sss sss sss ssss sr sss",
    "ollama":        "sss sss sss ssss sr sss",
    "llama.cpp":     "sss sss sss ssss dr sss",
    "tgi":           "sss sss sss ssss dr sss",
    "lmstudio":      "sss sss sss ssss sr sss",
    "mistral":       "sss sss sss ssss dr sss",
    "groq":          "sss sss sss ssss ss sss",
    "deepseek":      "sss sss srs ssss sr sss",
    "xai":           "sss sss sss dsss sr sss",
    "perplexity":    "sss rrr sss ssss ss sss",
    "openrouter":    "sss sss sss ssss ss sss",
    "azure":         "sss sss sss ssss sr sss",
    "anthropic":     "sss sss sss ssss ss sss",
    "gemini":        "sss sss sss sssf ss sss",
    "vertex":        "sss sss sss sssf ss sss",
    "vertex-claude": "sss sss sss ssss ss sss",
    "bedrock":       "sss sss sss sssf sr sss",
}  # fmt: skip
CELLS = {
    (provider, feature): verdict
    for provider, row in TABLE.items()
    for feature, verdict in zip(FEATURES, row.replace(" ", ""), strict=True)
}

#: The upstream's model, where its name decides what it can do.
MODELS = {
    "xai": "grok-4",
    "anthropic": "claude-sonnet-4-6",
    "vertex-claude": "claude-sonnet-4-6",
    "gemini": "gemini-3-pro",
    "vertex": "gemini-3-pro",
    "bedrock": "anthropic.claude-sonnet-4-6",
}
OWN = {
    "azure": 'use = "azure"\nendpoint = "{url}"\napi_version = "2024-10-21"\napi_key = {{ file = "key" }}',
    "anthropic": 'use = "anthropic"\nbase_url = "{url}"\napi_key = {{ file = "key" }}',
    "gemini": 'use = "gemini"\nbase_url = "{url}"\napi_key = {{ file = "key" }}',
    "vertex": 'use = "vertex"\nbase_url = "{url}"\nproject = "p"\ncredentials = "google.json"',
    "vertex-claude": 'use = "vertex"\nbase_url = "{url}"\nproject = "p"\ncredentials = "google.json"',
    "bedrock": 'use = "bedrock"\nbase_url = "{url}"\nregion = "eu-central-1"\napi_key = {{ file = "key" }}',
}
LOUD = '''
"""Says everything louder."""
import re
from proxy import hookimpl
from proxy.filters import rewrite_text

class Loud:
    """Makes letters of answers large."""
    name = "loud"

    @hookimpl
    def on_response(self, exchange):
        return lambda events: rewrite_text(events, re.compile("[a-zäöü]"), lambda match: match[0].upper(), 1)
'''


def config(url: str) -> str:
    """Return a configuration with each provider, and each model with and without plugins on its answers."""
    lines = [
        'chain = ["keys"]',
        '[plugins.keys]\nuse = "api_keys"\n[plugins.loud]\nuse = "loud"\n[plugins.redact]\nuse = "redact"',
    ]
    for name in TABLE:
        own = OWN.get(
            name, f'use = "openai"\ndialect = "{name}"\nbase_url = "{{url}}"\napi_key = {{{{ file = "key" }}}}'
        )
        provider = name.replace(".", "-")
        lines.append(f"[providers.{provider}]\n" + own.format(url=f"{url}/{name}") + "\nbreaker = { failures = 0 }")
        for ending, chain in (("", '["keys"]'), ("+plugins", '["keys", "loud", "redact"]')):
            target = f"{provider}/{MODELS.get(name, 'upstream-model')}"
            lines.append(f'[models."{name}{ending}"]\ntargets = ["{target}"]\nchain = {chain}\nweb_search = true')
            lines.append("retry = { attempts = 1 }")
    return "\n".join(lines) + "\n"


@dataclass
class Bench:
    """The gateway, its client, and the one upstream that is all of them; `feature` is what it is asked for."""

    client: openai.OpenAI
    upstream: Upstream
    said: Said = Said(HELLO)
    feature: str = "text"

    def script(self, request: Request) -> Any:
        if request.path == "/token":
            return json_answer({"access_token": "ya29.x", "expires_in": 3600, "token_type": "Bearer"})
        speaker = SPEAKERS[request.path.split("/")[2]]
        if self.feature == "refused":
            return speaker.limited()
        if self.feature == "overflow":
            return speaker.overflown()
        streaming = re.search(r"converse-stream|:stream(Gen|Raw)", request.path) or request.json.get("stream")
        return speaker.streamed(self.said) if streaming else speaker.whole(self.said)

    def ask(self, model: str, feature: str, stream: bool) -> tuple[ChatCompletion, list[Any], Any]:
        """Return the answer, its chunks, and the headers."""
        asked = FEATURES[feature]
        self.said, self.feature = asked.said, feature
        more = {name: value for name, value in asked.asked.items() if stream or name != "stream_options"}
        raw = self.client.chat.completions.with_raw_response
        messages: Any = list(asked.messages)
        if not stream:
            told = raw.create(model=model, messages=messages, **more)
            return told.parse(), [], told.headers
        # Its own accumulating interface is the strictest of its readers.
        told = raw.create(model=model, messages=messages, stream=True, **more)
        chunks = list(told.parse())
        return fold(chunks), chunks, told.headers


def fold(chunks: list[Any]) -> ChatCompletion:
    """Gather chunks as the official client does, whose accumulator is strict about their order."""
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    whole: ChatCompletion = state.current_completion_snapshot
    return whole


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "plugins.d").mkdir()
    (folder / "plugins.d" / "loud.py").write_text(LOUD)
    with Upstream() as upstream:
        root = upstream.url.removesuffix("/v1")
        (folder / "google.json").write_text(json.dumps(service_account(f"{root}/token")))
        (folder / "key").write_text("up-key")
        made = Bench(None, upstream)  # type: ignore[arg-type]
        upstream.scripts = [made.script]
        toml = config(upstream.url)
        gateway = Gateway(folder, toml, server={"plugins_dir": "plugins.d"})
        try:
            with gateway.client() as made.client:
                yield made
        finally:
            gateway.stop()


def service_account(token_uri: str) -> dict[str, str]:
    """Return a file of Google's, of an account that is asked for its tokens at `token_uri`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    told = {"type": "service_account", "client_email": "x@p.iam.gserviceaccount.com", "token_uri": token_uri}
    return told | {"private_key": key.private_bytes(*form).decode(), "private_key_id": "1", "project_id": "p"}


def test_every_provider_and_dialect_has_every_cell() -> None:
    found = set(Catalog.discover().providers) - {"echo"}
    assert {name.partition("-")[0] for name in TABLE} == found | set(DIALECTS)
    assert CELLS.keys() == {(provider, feature) for provider in TABLE for feature in FEATURES}
    assert SPEAKERS.keys() == TABLE.keys()


WAYS = [(stream, plugins) for stream in (False, True) for plugins in (False, True)]


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("provider", TABLE)
def test_a_cell(bench: Bench, provider: str, feature: str) -> None:
    verdict, asked = CELLS[provider, feature], FEATURES[feature]
    for stream, plugins in WAYS:
        model = provider + "+plugins" * plugins
        before = len(bench.upstream.requests)
        if verdict == "r":
            with pytest.raises(openai.BadRequestError) as refused:
                bench.ask(model, feature, stream)
            assert (refused.value.code, refused.value.param) == ("unsupported_parameter", asked.parameter)
            assert bench.upstream.requests[before:] == []
            continue
        if feature in FAILING:
            FAILING[feature](bench, model, stream)
            continue
        answer, chunks, headers = bench.ask(model, feature, stream)
        [request] = bench.upstream.requests[before:]
        check_sent(request, asked, verdict, plugins)
        assert headers.get("x-lockgate-dropped") == (asked.parameter if verdict == "d" else None)
        check_answer(answer, asked.said, loud if plugins else str, verdict)
        check_usage(answer, chunks, asked, stream)
        if stream:
            check_order(chunks)


def loud(text: str) -> str:
    return re.sub("[a-zäöü]", lambda match: match[0].upper(), text)


def check_sent(request: Request, asked: Feature, verdict: str, plugins: bool) -> None:
    body = json.dumps(request.json, ensure_ascii=False)
    assert all((text in body) is (verdict == "s") for text in asked.up), body
    assert (EMAIL in body) is not plugins
    assert any("up-key" in value or "ya29.x" in value for _, value in request.fields)


def check_answer(answer: ChatCompletion, said: Said, told: Callable[[str], str], verdict: str) -> None:
    [choice] = answer.choices
    message = choice.message
    assert (answer.object, message.role, choice.index) == ("chat.completion", "assistant", 0)
    assert answer.id and answer.model and isinstance(answer.created, int)
    assert (message.content or "") == told(said.text)
    assert (message.refusal or "") == ("" if verdict == "f" else told(said.refusal))
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls) and all(call.id for call in calls)
    said_calls = [(call.function.name, json.loads(call.function.arguments)) for call in calls]  # type: ignore[union-attr]
    assert said_calls == [(name, json.loads(told(arguments))) for name, arguments in said.calls]
    finishes = {"stop": "stop", "length": "length", "filter": "content_filter"}
    finish = "tool_calls" if said.calls else finishes[said.end if verdict == "f" else said.finish]
    # Claude's refusals are filtered answers as well.
    assert choice.finish_reason == finish or (said.refusal and choice.finish_reason == "content_filter")
    assert (getattr(message, "reasoning_content", None) or "").strip() == told(said.reasoning)
    if said.cited:
        cited = [
            entry.url_citation if hasattr(entry, "url_citation") else entry["url_citation"]
            for entry in message.annotations or ()
        ]  # type: ignore[index]
        [one] = [entry if isinstance(entry, dict) else entry.model_dump() for entry in cited]
        start, end = said.span
        assert one == {"url": said.cited[1], "title": "A title", "start_index": start, "end_index": end}


def check_usage(answer: ChatCompletion, chunks: list[Any], asked: Feature, stream: bool) -> None:
    if stream and "stream_options" not in asked.asked:
        assert not any(chunk.usage for chunk in chunks)
        return
    usage = answer.usage if not stream else chunks[-1].usage
    assert usage is not None
    if stream:
        assert chunks[-1].choices == [] and not any(chunk.usage for chunk in chunks[:-1])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        PROMPT,
        COMPLETION,
        PROMPT + COMPLETION,
    )
    assert usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens == CACHED


def check_order(chunks: list[Any]) -> None:
    """Check that a stream is as OpenAI's own: the role first and once, ids and names once, the finish last."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.delta.role for choice in choices] == ["assistant"] + [None] * (len(choices) - 1)
    assert [choice.finish_reason is not None for choice in choices] == [False] * (len(choices) - 1) + [True]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    opened = [call for call in calls if call.id]
    assert [call.index for call in opened] == list(range(len(opened)))
    assert all(call.function.name and call.type == "function" for call in opened)
    assert not any(call.function.name or call.type for call in calls if not call.id)


def limited(bench: Bench, model: str, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        bench.ask(model, "refused", stream)
    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert refused.value.response.headers["retry-after"] == "7"


def overflown(bench: Bench, model: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        bench.ask(model, "overflow", stream)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    assert "maximum context length" in refused.value.message and "context_length_exceeded" in refused.value.message


def broken(bench: Bench, model: str, stream: bool) -> None:
    with pytest.raises(openai.APIError) as failed:
        bench.ask(model, "broken", stream)
    if not stream:
        assert isinstance(failed.value, openai.InternalServerError)
    assert failed.value.type in ("api_error", "service_unavailable_error", "rate_limit_error")


FAILING = {"refused": limited, "overflow": overflown, "broken": broken}


def test_a_conversation_with_tools_is_the_same_through_each(bench: Bench) -> None:
    seen = {}
    for provider in TABLE:
        if CELLS[provider, "tools"] == "r":
            continue
        for stream in (False, True):
            answer, _, _ = bench.ask(provider, "parallel", stream)
            message = answer.choices[0].message
            calls = [call.model_dump(exclude_none=True, exclude={"index"}) for call in message.tool_calls or ()]
            results: list[Any] = [
                {"role": "tool", "tool_call_id": call["id"], "content": f"{at} degrees"}
                for at, call in enumerate(calls)
            ]
            asked: list[Any] = [
                user(),
                {"role": "assistant", "content": message.content, "tool_calls": calls},
                *results,
            ]
            bench.said, bench.feature = Said("Mild."), "text"
            last = bench.client.chat.completions.create(model=provider, messages=asked, tools=[WEATHER])  # type: ignore[list-item]
            body = bench.upstream.requests[-1].body.decode()
            assert "0 degrees" in body and "1 degrees" in body and body.index("Bonn") < body.index("1 degrees")
            said = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
            seen[provider, stream] = (
                message.content, answer.choices[0].finish_reason, said, last.choices[0].message.content,
                last.choices[0].finish_reason, last.usage and last.usage.total_tokens,
            )  # fmt: skip
    assert len(seen) == 2 * sum(CELLS[provider, "tools"] == "s" for provider in TABLE)
    assert {repr(each) for each in seen.values()} == {repr(seen["openai", False])}


def test_reasoning_tokens_are_told(bench: Bench) -> None:
    for provider in TABLE:
        if CELLS[provider, "reasoning"] == "s" and provider != "bedrock":  # which does not count them
            usage = bench.ask(provider, "reasoning", False)[0].usage
            assert usage is not None and usage.completion_tokens_details is not None
            assert (provider, usage.completion_tokens_details.reasoning_tokens) == (provider, REASONING)
