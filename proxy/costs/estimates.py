"""How many tokens a request or an answer has, estimated from its letters alone: fast, and rather over than under."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from proxy.costs import images

#: Tokens for a lower-case letter or a space, in a text of ASCII alone and in any other; for any other character of
#: ASCII; and for each byte of UTF-8 beyond a character's first. Fitted to what o200k_base and cl100k_base count in the
#: samples of the tests: neither counts over a tenth more. Letters at random are the worst exception: 60 % are missed.
LETTER = (0.205, 0.235)
OTHER = 0.62
BEYOND = 0.5

#: What OpenAI's chat format adds: for each message, for its name, and for the answer's beginning.
#: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
PER_MESSAGE, PER_NAME, PRIMING = 4, 1, 3
#: Characters of base64 for a token: sound, of which Gemini takes 32 tokens from a second (OpenAI 10), as WAV of 24 kHz
#: and as anything compressed; and documents, for which no rule is published.
WAV, SOUND, FILE = 2000, 170, 32
#: What a file counts for that is only named.
NAMED_FILE = 2000

#: Bytes of an answer's text for a token, and what an answer may have where the request sets no bound.
BYTES_PER_TOKEN = 4
COMPLETION = 4096

_LETTERS = b"abcdefghijklmnopqrstuvwxyz " + bytes(range(128, 256))


def counter(exact: bool) -> Callable[[dict[str, Any]], int]:
    """Return what counts the tokens of a prompt: `prompt_tokens`, or tiktoken where `exact` asks for that.

    Raises `ConfigError` where tiktoken or its files are not there.
    """
    if not exact:
        return prompt_tokens
    from proxy.costs.exact import Counter

    return Counter().prompt_tokens


def prompt_tokens(body: dict[str, Any], count: Callable[[str], int] | None = None) -> int:
    """Estimate the prompt's tokens of a chat completion's body that has been checked.

    `count` counts those of its text, in place of `text_tokens`.
    """
    model = body.get("model") or ""
    texts: list[str] = []
    tokens = PRIMING
    for message in body.get("messages") or ():
        tokens += PER_MESSAGE
        content = message.get("content")
        if type(content) is str:
            texts.append(content)
        elif content:
            tokens += _parts(content, model, texts)
        if len(message) > 2:
            tokens += _rest(message, texts)
    for key in ("tools", "functions", "response_format"):
        schema = body.get(key)
        if schema:
            texts.append(_json(schema))
    return tokens + (count or text_tokens)("".join(texts))


def text_tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    raw = text.encode("utf-8", "surrogatepass")
    others = len(raw.translate(None, _LETTERS))
    beyond = len(raw) - len(text)
    return math.ceil(LETTER[beyond > 0] * (len(text) - others) + OTHER * others + BEYOND * beyond)


def completion_tokens(text_bytes: int, events: int = 0) -> int:
    """Estimate the tokens of an answer from its size in bytes of UTF-8 and from its events.

    An event is seldom less than a token, and with some upstreams more.
    """
    return max(events, math.ceil(text_bytes / BYTES_PER_TOKEN))


def completion_cap(body: dict[str, Any], default: int = COMPLETION) -> int:
    """Return the most tokens that all the choices of an answer may have, `default` each where nothing is said."""
    bound = body.get("max_completion_tokens") or body.get("max_tokens") or default
    return int(bound) * int(body.get("n") or 1)


def delta_bytes(delta: dict[str, Any]) -> int:
    """Return the size of the text in a delta or a message, in bytes of UTF-8."""
    size = 0
    for key, value in delta.items():
        if type(value) is str:
            if key != "role":
                size += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif key == "tool_calls" and value:
            size += len(_json(value))
    return size


def _parts(content: Iterable[Any], model: str, texts: list[str]) -> int:
    """Collect the texts of a message's parts, and return what the others count for."""
    tokens = 0
    for part in content:
        kind = part.get("type")
        if kind == "image_url":
            tokens += images.part_tokens(model, part.get("image_url"))
        elif kind == "input_audio":
            sound = part.get("input_audio") or {}
            tokens += len(sound.get("data") or "") // (WAV if sound.get("format") == "wav" else SOUND) + 1
        elif kind == "file":
            data = (part.get("file") or {}).get("file_data")
            tokens += len(data) // FILE + 1 if isinstance(data, str) else NAMED_FILE
        else:
            text = part.get("text") or part.get("refusal")
            if isinstance(text, str):
                texts.append(text)
    return tokens


def _rest(message: dict[str, Any], texts: list[str]) -> int:
    """Collect what a message says beside its content, and return what its name counts for."""
    for key, value in message.items():
        if key not in ("role", "content", "audio") and value:
            texts.append(value if type(value) is str else _json(value))
    return PER_NAME if message.get("name") else 0


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a plugin has put something there that JSON does not have: it will be refused when it is sent
        return str(value)
