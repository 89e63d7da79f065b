"""Tokens without a tokenizer: how near the estimate is, what images count for, and what it makes of odd requests."""

from __future__ import annotations

import base64
import struct
import tomllib
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
from hypothesis import given
from hypothesis import strategies as st

from proxy.costs import estimates, images
from proxy.errors import ConfigError

SAMPLES = Path(__file__).with_name("samples")
COUNTS = tomllib.loads((SAMPLES / "counts.toml").read_text())
#: The share that the estimate may be under the count of either encoding, and over that of the newer one.
UNDER, OVER = 0.08, 0.45


def chat(content, **more):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **more}


def data_uri(raw, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def image(url, **more):
    return chat([{"type": "image_url", "image_url": {"url": url, **more}}])


def png(width, height):
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0" + bytes(64)


def jpeg(width, height, metadata=0):
    block = b"\xff\xe1" + struct.pack(">H", 2 + 1000) + bytes(1000)
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + block * metadata + frame + bytes(64)


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(64)


def webp(kind, width, height):
    size = {
        b"VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little"),
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    return b"RIFF\0\0\0\0WEBP" + kind + bytes(4) + size + bytes(64)


@pytest.mark.parametrize("name", COUNTS)
def test_the_samples_are_those_that_were_counted(name):
    assert len((SAMPLES / name).read_text()) == COUNTS[name][0]


@pytest.mark.parametrize("name", COUNTS)
def test_an_estimate_is_never_far_under_the_count(name):
    estimate = estimates.text_tokens((SAMPLES / name).read_text())
    assert estimate >= (1 - UNDER) * max(COUNTS[name][1:])
    assert estimate <= (1 + OVER) * COUNTS[name][1]


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_is_never_fewer_tokens(text, more):
    assert 0 <= estimates.text_tokens(text) <= estimates.text_tokens(text + more)


def test_a_chat_counts_for_more_than_its_texts():
    assert estimates.prompt_tokens({"model": "m", "messages": []}) == 3
    assert estimates.prompt_tokens(chat("Hello")) == 3 + 4 + estimates.text_tokens("Hello")
    two = {"model": "m", "messages": [{"role": "system", "content": "ab"}, {"role": "user", "content": "cd"}]}
    assert estimates.prompt_tokens(two) == 3 + 8 + estimates.text_tokens("abcd")


def test_everything_that_a_model_reads_is_counted():
    plain = estimates.prompt_tokens(chat("Hello"))
    function = {"name": "weather", "description": "Tell the weather.", "parameters": {"type": "object"}}
    assert estimates.prompt_tokens(chat("Hello", tools=[{"type": "function", "function": function}])) > plain + 15
    assert estimates.prompt_tokens(chat("Hello", functions=[function])) > plain + 15
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    assert estimates.prompt_tokens(chat("Hello", response_format=schema)) > plain + 10
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert estimates.prompt_tokens({"model": "m", "messages": [said]}) > 20
    named = {"role": "user", "content": "Hello", "name": "ann"}
    assert estimates.prompt_tokens({"model": "m", "messages": [named]}) > plain
    assert estimates.prompt_tokens(chat([{"type": "text", "text": "Hello"}])) == plain


def test_what_is_no_request_of_the_samples_is_estimated_all_the_same():
    body = chat("\ud800 a lone surrogate", tools=[{"type": "function", "function": {"name": {1, 2}}}])
    assert estimates.prompt_tokens(body) > 5
    assert estimates.prompt_tokens({}) == 3


@pytest.mark.parametrize(
    ("model", "width", "height", "low", "tokens"),
    [
        # OpenAI's own examples of its page.
        ("gpt-4o", 1024, 1024, False, 765),
        ("gpt-4o", 2048, 4096, False, 1105),
        ("gpt-4o", 4096, 8192, True, 85),
        ("gpt-4.1-mini", 1024, 1024, False, 1659),
        ("gpt-4o-mini", 1024, 1024, False, 2833 + 4 * 5667),
        ("gpt-4o", 1, 1, False, 255),
        ("o4-mini", 100_000, 100_000, False, 2642),
        # Anthropic's.
        ("claude-sonnet-4-5", 1092, 1092, False, 1590),
        ("anthropic/claude-sonnet-4-5", 8000, 8000, False, 1600),
        # Google's.
        ("gemini-2.5-flash", 384, 384, False, 258),
        ("gemini-2.5-flash", 769, 768, False, 516),
    ],
)
def test_images_count_by_their_providers_rules(model, width, height, low, tokens):
    assert images.tokens(model, width, height, low) == tokens


@pytest.mark.parametrize(
    "raw",
    [
        png(640, 480),
        gif(640, 480),
        jpeg(640, 480),
        jpeg(640, 480, metadata=60),
        webp(b"VP8X", 640, 480),
        webp(b"VP8L", 640, 480),
        webp(b"VP8 ", 640, 480),
    ],
)
def test_an_image_in_the_request_tells_its_size(raw):
    assert images.size(data_uri(raw)) == (640, 480)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/cat.png",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        "data:image/png,raw",
        data_uri(png(640, 480)[:18]),
        data_uri(png(0, 480)),
        data_uri(b"\xff\xd8" + b"\xff" * 2000),
        data_uri(b"\xff\xd8\xff\xe1"),
        data_uri(jpeg(640, 480, metadata=200)),
        data_uri(b"MZ" + bytes(500)),
    ],
)
def test_an_image_of_unknown_size_counts_as_one_of_1024_pixels_square(url):
    assert images.size(url) == images.UNKNOWN
    assert estimates.prompt_tokens(image(url)) == 3 + 4 + 765


def test_an_image_is_counted_by_its_size_and_not_by_its_bytes():
    small = data_uri(png(300, 300) + bytes(300_000))
    assert estimates.prompt_tokens(image(small)) == 3 + 4 + 255
    assert estimates.prompt_tokens(image(small, detail="low")) == 3 + 4 + 85


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a"])
)
def test_no_bytes_of_an_image_break_the_estimate(raw, beginning):
    width, height = images.size(data_uri(beginning + raw))
    assert width > 0 and height > 0
    assert images.tokens("gpt-4o", width, height) > 0


def test_sound_and_documents_count_by_their_length():
    second = "A" * 64_000  # 24 kHz, 16 bits, as base64
    sound = [{"type": "input_audio", "input_audio": {"data": second * 10, "format": "wav"}}]
    assert 320 <= estimates.prompt_tokens(chat(sound)) <= 340
    named = [{"type": "file", "file": {"file_id": "file-1"}}]
    assert estimates.prompt_tokens(chat(named)) == 7 + estimates.NAMED_FILE
    whole = [{"type": "file", "file": {"file_data": "A" * 3200}}]
    assert estimates.prompt_tokens(chat(whole)) == 7 + 101


def test_an_answer_has_at_least_a_token_for_each_event():
    assert estimates.completion_tokens(400) == 100
    assert estimates.completion_tokens(400, events=250) == 250
    assert estimates.completion_tokens(0) == 0


def test_the_bound_of_an_answer_is_that_of_all_its_choices():
    assert estimates.completion_cap({"max_completion_tokens": 100, "max_tokens": 7, "n": 3}) == 300
    assert estimates.completion_cap({"max_tokens": 7, "n": None}) == 7
    assert estimates.completion_cap({}, default=50) == 50


def test_exact_counts_are_refused_where_their_files_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(tiktoken.load, "read_file", tiktoken.load.read_file)  # put back afterwards
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with pytest.raises(ConfigError, match="set TIKTOKEN_CACHE_DIR"):
        estimates.counter(exact=True)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="is missing or not tiktoken's o200k_base"):
        estimates.counter(exact=True)
    assert list(tmp_path.iterdir()) == []


def test_exact_counts_are_tiktokens_but_for_very_long_texts(tmp_path, monkeypatch):
    # The published files are too large to be shipped: an encoding of single bytes stands in for them.
    single = tiktoken.Encoding(
        "single", pat_str=r"[\s\S]", mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken.load, "read_file", tiktoken.load.read_file)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: single)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    count = estimates.counter(exact=True)
    assert count(chat("Hello")) == count({**chat("Hello"), "model": "qwen3"}) == 3 + 4 + 5
    assert count(chat("<|endoftext|>")) == 3 + 4 + 13
    assert count(chat("a" * 200_000)) == estimates.prompt_tokens(chat("a" * 200_000))
