"""The provider of the guide, as a user has it: a file in the folder for plugins, behind a real gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import Gateway
from upstreams import Request, Upstream, chunked, head, json_answer

SAMPLE = Path(__file__).with_name("samples") / "ollama_chat.py"
GUIDE = Path(__file__).resolve().parent.parent / "docs" / "providers.md"
CONFIG = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[providers.mine]
use = "ollama_chat"
base_url = "{url}"
breaker = {{ failures = 0 }}
[models.mine]
targets = ["mine/llama"]
retry = {{ attempts = 1 }}
[models.strict]
targets = ["mine/llama"]
strict = true
"""
ASK: Any = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}]}


def answer(request: Request) -> Any:
    asked = request.json["messages"][-1]["content"]
    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3}
    if asked == "limit":
        return json_answer({"error": "slow down"}, 429, retry_after=3)
    if not request.json["stream"]:
        return json_answer({"model": "llama", "message": {"role": "assistant", "content": "Hello wörld"}, **end})
    pieces = [{"message": {"content": piece}, "done": False} for piece in ("Hel", "lo w", "örld")]
    last: dict[str, Any] = {"error": "boom"} if asked == "break" else {"message": {"content": ""}, **end}
    lines = [] if asked == "cut" else [last]
    begin = head(200, content_type="application/x-ndjson", transfer_encoding="chunked")
    return begin + chunked(*(json.dumps(line).encode() + b"\n" for line in [*pieces, *lines]))


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream(answer) as made:
        yield made


@pytest.fixture(scope="module")
def client(up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("custom")
    (folder / "plugins.d").mkdir()
    (folder / "plugins.d" / SAMPLE.name).write_text(SAMPLE.read_text())
    toml = CONFIG.format(url=up.url.removesuffix("/v1"))
    gateway = Gateway(folder, toml, server={"plugins_dir": "plugins.d"})
    try:
        with gateway.client() as made:
            yield made
    finally:
        gateway.stop()


def test_the_guide_shows_the_file_as_it_is() -> None:
    assert f"```python\n{SAMPLE.read_text()}```\n" in GUIDE.read_text()


def test_a_whole_answer(client: openai.OpenAI, up: Upstream) -> None:
    whole = client.chat.completions.create(**ASK, max_completion_tokens=7, extra_body={"think": True})
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Hello wörld", "stop")
    assert whole.usage is not None and whole.usage.total_tokens == 8
    sent = up.requests[-1].json
    assert (sent["model"], sent["options"], sent["think"]) == ("llama", {"num_predict": 7}, True)


def test_a_streamed_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ASK, stream_options={"include_usage": True}) as events:
        pieces = [event.delta for event in events if event.type == "content.delta" and event.delta]
        final = events.get_final_completion()
    assert pieces == ["Hel", "lo w", "örld"]
    assert final.choices[0].message.content == "Hello wörld"
    assert final.usage is not None and final.usage.total_tokens == 8


@pytest.mark.parametrize("text", ["break", "cut"])
def test_a_broken_stream_is_an_error(client: openai.OpenAI, text: str) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**{**ASK, "messages": [{"role": "user", "content": text}], "stream": True}))


def test_errors_are_openai_s(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**{**ASK, "messages": [{"role": "user", "content": "limit"}]})
    assert refused.value.response.headers["retry-after"] == "3"


def test_what_it_has_no_word_for_is_told_or_refused(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK, stop="x", verbosity="low")
    assert raw.headers["x-lockgate-dropped"] == "stop, verbosity"
    for more in ({"model": "strict", "stop": "x"}, {"n": 2}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{**ASK, **more})
        assert refused.value.code == "unsupported_parameter"
