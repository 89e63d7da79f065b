"""The providers against an emulator that others have written, with faults: @copilotkit/aimock.

Where it is known not to be as the real upstreams are (version 1.43.0), the tests work around it, so that nothing is
learnt from it:

* Gemini is only under `/v1beta`; a call of a function ends with the reason `FUNCTION_CALL`, which Gemini does not have;
  the status of an error is `rate_limit_error` instead of `RESOURCE_EXHAUSTED`: HTTP's status is what counts.
* The usage of Anthropic, Gemini and Bedrock is 0: it is not compared.
* Errors of Bedrock have no `x-amzn-errortype`, and signatures are not checked: an API key is sent.
* It takes malformed bodies for failures of its own (500), and requests without a model: what is sent is judged by the
  official types in the providers' own tests.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nodes
import openai
import pytest
from gateways import Gateway, free_port
from wire import PATIENCE_S

pytestmark = pytest.mark.skipif(nodes.missing() is not None, reason=str(nodes.missing()))

HELLO = "Hi there, wörld 🌍, and all of you"
FIXTURES: list[tuple[str, dict[str, Any]]] = [
    ("hello", {"content": HELLO}),
    ("weather", {"toolCalls": [{"name": "get_weather", "arguments": '{"city":"Bonn"}'}]}),
    ("limit", {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429}),
    ("down", {"error": {"message": "Gone", "type": "server_error"}, "status": 503}),
    ("cut", {"content": "This is a long answer that never comes to its end"}),
]
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
PROVIDERS = {
    "openai": 'use = "openai"\nbase_url = "{url}/v1"',
    "openrouter": 'use = "openai"\ndialect = "openrouter"\nbase_url = "{url}/v1"',
    "ollama": 'use = "openai"\ndialect = "ollama"\nbase_url = "{url}/v1"',
    "azure": 'use = "azure"\nendpoint = "{url}"\napi_version = "2024-10-21"',
    "anthropic": 'use = "anthropic"\nbase_url = "{url}/v1"',
    "gemini": 'use = "gemini"\nbase_url = "{url}/v1beta"',
    "bedrock": 'use = "bedrock"\nbase_url = "{url}"\nregion = "eu-central-1"',
}


@dataclass
class Bench:
    """The official client of a gateway, and the emulator behind it."""

    client: openai.OpenAI
    url: str

    def ask(self, provider: str, text: str, stream: bool) -> tuple[Any, str]:
        """Return the message and the finish reason."""
        asked: dict[str, Any] = {"model": provider, "messages": [{"role": "user", "content": text}], "tools": [TOOL]}
        if not stream:
            choice = self.client.chat.completions.create(**asked).choices[0]
            return choice.message, choice.finish_reason
        with self.client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            choice = events.get_final_completion().choices[0]
        return choice.message, choice.finish_reason

    def seen(self) -> Any:
        """Return what the emulator has been sent last."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=PATIENCE_S) as answer:
            return json.load(answer)[-1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("aimock")
    fixtures = [{"match": {"userMessage": word}, "response": response} for word, response in FIXTURES]
    fixtures[-1]["truncateAfterChunks"] = 3
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
    (folder / "key").write_text("up-key")
    port = free_port()
    program = nodes.FOLDER / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    options = ["-p", str(port), "-f", str(folder / "fixtures.json"), "-c", "5", "--log-level", "warn"]
    emulator = subprocess.Popen(["node", program, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, emulator)
        with contextlib.ExitStack() as running:
            gateway = Gateway(folder, config(f"http://127.0.0.1:{port}"))
            running.callback(gateway.stop)
            yield Bench(running.enter_context(gateway.client()), f"http://127.0.0.1:{port}")
    finally:
        emulator.terminate()
        emulator.wait(PATIENCE_S)


def wait_for(port: int, emulator: subprocess.Popen[bytes]) -> None:
    """Wait until the emulator listens."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and emulator.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the emulator did not start")


def config(url: str) -> str:
    lines = ['chain = ["keys"]\n[plugins.keys]\nuse = "api_keys"']
    for name, own in PROVIDERS.items():
        lines.append(f'[providers.{name}]\n{own.format(url=url)}\napi_key = {{ file = "key" }}')
        lines.append("breaker = { failures = 0 }")
        lines.append(f'[models.{name}]\ntargets = ["{name}/some-model"]\nretry = {{ attempts = 1 }}')
    return "\n".join(lines) + "\n"


WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
EACH = pytest.mark.parametrize("provider", PROVIDERS)


@WAYS
@EACH
def test_a_text_is_answered(bench: Bench, provider: str, stream: bool) -> None:
    message, finish = bench.ask(provider, "hello", stream)
    assert (message.role, message.content, finish) == ("assistant", HELLO, "stop")


@WAYS
@EACH
def test_a_tool_is_called_and_its_result_taken(bench: Bench, provider: str, stream: bool) -> None:
    message, finish = bench.ask(provider, "weather", stream)
    [call] = message.tool_calls
    assert (finish, call.function.name, json.loads(call.function.arguments)) == (
        "tool_calls", "get_weather", {"city": "Bonn"}
    )  # fmt: skip
    asked: Any = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump(include={"id", "type", "function"})]},
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    answer = bench.client.chat.completions.create(model=provider, messages=asked, tools=[TOOL])
    assert answer.choices[0].message.content
    assert "21 degrees" in json.dumps(bench.seen())


@WAYS
@EACH
def test_its_faults_are_openai_s_errors(bench: Bench, provider: str, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        bench.ask(provider, "limit", stream)
    assert refused.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.InternalServerError) as failed:
        bench.ask(provider, "down", stream)
    assert (failed.value.status_code, failed.value.code) == (503, "server_is_overloaded")


@EACH
def test_a_stream_that_is_cut_is_no_answer(bench: Bench, provider: str) -> None:
    with pytest.raises(openai.APIError):
        bench.ask(provider, "cut", True)
