"""Bytes to events for every split of every stream, and byte tests that never say more than parsing would."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import sse

LINES = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data:  three",
        b"data",
        b"data:",
        b"data: ",
        "data: \u2028 \u0085 é 😀".encode(),
        b"datax: no",
        b" data: no",
        b": comment",
        b":",
        b"event: ping",
        b"event:pong",
        b"event",
        b"id: 7",
        b"retry: 3000",
        b"nonsense",
        sse.BOM + b"data: marked",
        sse.BOM,
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.builds(
    lambda pairs, rest: b"".join(line + end for line, end in pairs) + rest,
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    LINES,
)


def by_the_book(stream: bytes) -> list[sse.Event]:
    """Read a whole stream as the HTML standard says, the plain way."""
    events, name, data = [], b"", []
    for line in re.split(rb"\r\n|\n|\r", stream.removeprefix(sse.BOM))[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if b"\n".join(data).strip():
                events.append(sse.Event(name, b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[start:end] for start, end in zip(places, places[1:], strict=False)]


def parsed(*chunks: bytes) -> list[sse.Event]:
    parser = sse.Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@settings(deadline=None, max_examples=300)
@given(STREAMS, st.lists(st.integers(0, 200), max_size=20))
def test_events_are_the_same_for_every_split_of_the_bytes(stream: bytes, cuts: list[int]) -> None:
    assert parsed(*pieces(stream, cuts)) == by_the_book(stream)


@settings(deadline=None, max_examples=150)
@given(STREAMS)
def test_an_event_is_out_as_soon_as_its_last_byte_is_in(stream: bytes) -> None:
    parser = sse.Parser()
    events = []
    for size in range(len(stream)):
        events += parser.feed(stream[size : size + 1])
        # A mark of which only a part has come is no mark yet; by then no line can have ended.
        assert events == by_the_book(stream[: size + 1])


def test_a_lone_cr_at_the_end_of_a_chunk_ends_the_event_and_a_following_lf_adds_no_empty_line() -> None:
    parser = sse.Parser()
    assert parser.feed(b"data: 1\r\n\r") == [(b"", b"1")]
    assert parser.feed(b"\ndata: 2\r") == []
    assert parser.feed(b"") == []
    assert parser.feed(b"\ndata: 3\n\n") == [(b"", b"2\n3")]


def test_line_separators_of_unicode_are_data() -> None:
    text = '{"a":"\u2028\u2029\u0085\x0b\x0c"}'.encode()
    assert parsed(b"data: " + text + b"\n\n") == [(b"", text)]


def test_a_byte_order_mark_is_dropped_at_the_start_of_the_stream_only() -> None:
    assert parsed(sse.BOM + b"data: 1\n\n", sse.BOM + b"data: 2\n\ndata: 3\n\n") == [(b"", b"1"), (b"", b"3")]
    assert parsed(b"\xef", b"\xbb", b"\xbfdata: 1\n\n") == [(b"", b"1")]


def test_events_without_data_are_left_out_and_their_name_with_them() -> None:
    assert parsed(b"event: ping\n\ndata:\n\ndata:  \n\nid: 1\n\nretry: 5\n\n: hi\n\ndata: 1\n\n") == [(b"", b"1")]


def test_an_event_has_the_name_that_its_last_event_field_gives() -> None:
    assert parsed(b"event: a\nevent: message_stop\ndata: 1\n\ndata: 2\n\n") == [(b"message_stop", b"1"), (b"", b"2")]


@pytest.mark.parametrize("rest", [b"d", b"data: 1", b"data: 1\n", b"data: 1\r\n", b"event: x\n", b"data: 1\n\ndata"])
def test_half_an_event_at_the_end_is_a_cut(rest: bytes) -> None:
    parser = sse.Parser()
    parser.feed(b"data: 0\n\n" + rest)
    assert parser.end()


@pytest.mark.parametrize("rest", [b"", b"\n", b": ping", b": ping\n", b"data: 1\n\n", b"data: 1\r\n\r", b"retry: 1\n"])
def test_a_stream_that_ends_between_events_is_no_cut(rest: bytes) -> None:
    parser = sse.Parser()
    parser.feed(b"data: 0\n\n" + rest)
    assert not parser.end()


@pytest.mark.parametrize("line", [b"data: 12345", b": 123456789", b"unknown: 12"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_line_over_its_cap_is_refused_before_its_end_is_seen(line: bytes, size: int) -> None:
    parser = sse.Parser(max_line=10)
    parser.feed(b"data: 1234\n\n")
    with pytest.raises(sse.TooLong):
        for start in range(0, len(line), size):
            parser.feed(line[start : start + size])
    with pytest.raises(sse.TooLong):
        sse.Parser(max_line=10).feed(line + b"\n")


def test_an_event_over_its_cap_is_refused_also_when_its_lines_are_short_or_empty() -> None:
    parser = sse.Parser(max_event=10)
    assert parser.feed(b"data: 12345\ndata: 6789\n\n") == [(b"", b"12345\n6789")]
    with pytest.raises(sse.TooLong):
        parser.feed(b"data: 12345\ndata: 67890\n")
    with pytest.raises(sse.TooLong):
        sse.Parser(max_event=10).feed(b"data\n" * 12)


def test_a_long_line_is_put_together_from_many_chunks() -> None:
    line = b"data: " + bytes(range(97, 123)) * 20_000
    assert parsed(*pieces(line + b"\n\n", list(range(0, len(line), 512)))) == [(b"", line[6:])]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(min_size=1).map(lambda raw: orjson.dumps(raw.hex()))))
def test_what_is_encoded_is_parsed_back(payloads: list[bytes]) -> None:
    stream = b"".join(sse.encode(payload) + sse.comment(b"ping") for payload in payloads) + sse.DONE
    assert [event.data for event in parsed(stream)] == [*payloads, b"[DONE]"]


def test_a_comment_stays_a_comment_whatever_its_text() -> None:
    assert sse.comment(b"ping") == b": ping\n\n"
    assert parsed(sse.comment(b"a\ndata: b\r\n\r\ndata: c\rdata: d")) == []


# Events of real servers.
OPENAI = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","service_tier":"default",'
    b'"system_fingerprint":null,"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}],"usage":null}'
)
LLAMA = b'{"choices":[{"finish_reason":%b,"index":0,"delta":%b}],"created":1,"id":"c","model":"m","object":"x"}'
VLLM = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":1,"delta":%b,'
    b'"logprobs":null,"finish_reason":%b,"stop_reason":null,"token_ids":null}]}'
)
SPACED = b'{"id": "c", "choices": [{"index": 2, "delta": %b, "logprobs": null, "finish_reason": %b}], "usage": null}'
AZURE = (
    b'{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},"delta":%b,'
    b'"finish_reason":%b,"index":0,"logprobs":null}],"created":1,"id":"c","model":"m"}'
)
CALL = b'{"tool_calls":[{"index":3,"id":"call_1","function":{"name":"f","arguments":"{\\"index\\":9}"}}]}'


def event(shape: bytes, delta: bytes, reason: bytes = b"null") -> bytes:
    values = (reason, delta) if shape is LLAMA else (delta, reason)
    return sse.encode(shape % values)


@pytest.mark.parametrize("shape", [OPENAI, LLAMA, VLLM, SPACED, AZURE])
def test_events_as_servers_send_them_may_pass_unparsed_one_by_one_and_in_bursts(shape: bytes) -> None:
    one = event(shape, b'{"content":"Hi \\"usage\\": {}, \\"error\\""}')
    assert sse.canonical(one)
    assert sse.canonical(one * 64)
    assert sse.finishes(one * 64) == []


@pytest.mark.parametrize(
    "chunk",
    [
        sse.DONE,
        b": ping\n\n",
        b'data: {"choices":[]}\r\n\r\n',
        b'data: {"choices":[]}\n\n\n',
        b'\ndata: {"choices":[]}\n\n',
        b'data:{"choices":[]}\n\n',
        b'data: {"choices":[\r]}\n\n',
        b'data: {"choices":[]} \n\n',
        b'data: {"choices":[],\n"a":{}}\n\n',
        b'data: {"choices":[],\ndata: "a":{}}\n\n',
        b'data: {"choices":[]}\ndata: {"choices":[]}\n\n',
        b'event: x\ndata: {"choices":[]}\n\n',
        b'id: 1\n\ndata: {"choices":[]}\n\n',
        sse.BOM + b'data: {"choices":[]}\n\n',
        b'data: {"message":"it broke","code":500}\n\n',
        b'data: {"error":{"message":"it broke"},"choices":[]}\n\n',
        b'data: {"error": "it broke","choices":[]}\n\n',
        b'data: {"error" :null,"choices":[]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"usage":{"prompt_tokens":1},"choices":[],"x":{"usage":null}}\n\n',
        b'data: {"usage":null,"choices":[],"error":{"usage":null}}\n\n',
    ],
)
def test_anything_else_is_not_canonical_alone_or_within_a_burst(chunk: bytes) -> None:
    good = event(OPENAI, b"{}")
    for burst in (chunk, good + chunk, chunk + good, good + chunk + good):
        assert not sse.canonical(burst)


def test_half_an_event_is_not_canonical() -> None:
    good = event(OPENAI, b'{"content":"a"}')
    for size in range(len(good)):
        assert not sse.canonical(good[:size])
        assert not sse.canonical(good[size:] if size else b"")
        assert sse.canonical(good + good[:size]) == (size == 0)


def test_an_event_without_choices_is_found_beside_one_that_names_them_twice() -> None:
    assert not sse.canonical(b'data: {"choices":[],"x":{"choices":[]}}\n\ndata: {"message":"it broke"}\n\n')


def test_null_usages_are_canonical_with_and_without_a_space() -> None:
    assert sse.canonical(b'data: {"choices":[],"usage": null}\n\n')
    assert sse.canonical(b'data: {"usage": null,"x":{"usage":null},"choices": []}\n\n' * 3)


def test_null_errors_and_null_choices_are_not_canonical_for_there_are_clients_that_break_on_them() -> None:
    assert not sse.canonical(b'data: {"choices":[],"error":null}\n\n')
    assert not sse.canonical(b'data: {"choices":null}\n\n')
    assert not sse.canonical(b'data: {"choices":[]}\n\n' + b'data: {"choices": null}\n\n')


PARTS = st.sampled_from(
    [b"data: {", b"}\n\n", b"\n", b"\r", b"}", b"{", b'"choices":[]', b",", b'"error":null', b'"usage": null']
    + [b'"error":{}', b'"usage":{}', b'"x":1', b": ping\n\n", sse.DONE, b'data: {"choices":[]}\n\n']
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PARTS, max_size=10).map(b"".join))
def test_canonical_is_exactly_its_definition(chunk: bytes) -> None:
    def whole(event: bytes) -> bool:
        bad = re.search(rb'"(?:error|usage)"(?!: ?null)', event)
        return re.fullmatch(rb"data: \{[^\r\n]*\}", event) is not None and b'"choices"' in event and not bad

    *events, rest = chunk.split(b"\n\n")
    assert sse.canonical(chunk) == (events != [] and rest == b"" and all(map(whole, events)))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([event(OPENAI, b'{"content":"x"}'), event(LLAMA, b"{}"), sse.DONE, b"\r"]), max_size=5))
def test_the_parser_and_the_pass_through_agree_on_where_events_end(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    if sse.canonical(stream):
        assert b"".join(sse.encode(event.data) for event in parsed(stream)) == stream


@pytest.mark.parametrize("delta", [b"{}", b'{"content":""}', b'{"content":"\\"index\\":5 }] \\\\"}', CALL])
@pytest.mark.parametrize(("shape", "index"), [(OPENAI, 0), (LLAMA, 0), (VLLM, 1), (SPACED, 2), (AZURE, 0)])
def test_a_finish_is_read_off_the_bytes_of_every_server(shape: bytes, index: int, delta: bytes) -> None:
    text = event(shape, b'{"content":"a"}')
    finish = event(shape, delta, b'"tool_calls"')
    assert sse.finishes(finish) == [(index, "tool_calls")]
    assert sse.finishes(text * 3 + finish + text) == [(index, "tool_calls")]
    assert sse.indexes(text + finish) == {index}


@pytest.mark.parametrize(
    "payload",
    [
        b'{"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":null}]}',
        b'{"choices":[{"finish_reason":"stop","delta":{"tool_calls":[{"index":0}]}}]}',
        b'{"choices":[{"delta":{"index":1,"x":"y"},"finish_reason":"stop"}]}',
        b'{"choices":[{"\\u0069ndex":1,"index":0,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"finish_reason":"st\\u006fp"}]}',
        b'{"choices":[{"index":0,"finish_reason":5}]}',
        b'{"choices":[{"index":0.5,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":-1,"finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"finish_reason" : "stop"}]}',
        b'{"choices":[{"index":0,"finish_reason":"\xff"}]}',
        b'{"choices":[{"index":0,"finish_reason":"stop"}],"choices":[]}',
        b'{"x":{"choices":[{"index":0,"finish_reason":"stop"}]}}',
    ],
)
def test_a_finish_that_bytes_cannot_tell_is_left_to_the_parser(payload: bytes) -> None:
    assert sse.finishes(sse.encode(payload)) is None
    assert sse.finishes(event(OPENAI, b"{}", b'"stop"') + sse.encode(payload)) is None


def test_a_finish_in_a_long_event_is_left_to_the_parser() -> None:
    assert sse.finishes(event(OPENAI, b'{"content":"%b"}' % (b"a" * 5000), b'"stop"')) is None


def test_an_empty_finish_reason_is_none() -> None:
    assert sse.finishes(event(OPENAI, b'{"content":"a"}', b'""')) == []


KEYS = st.sampled_from(["index", "finish_reason", "choices", "delta", "tool_calls", "x", "\\", '"', "logprobs"])
WORDS = st.sampled_from(["index", "finish_reason", '"index":1', '{"finish_reason":"stop"}', "\\", '"', "é", "}]", ""])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
CHOICES = st.builds(
    lambda first, index, middle, reason, last: {**first, **index, **middle, **reason, **last},
    st.dictionaries(KEYS.filter(lambda key: key not in ("index", "finish_reason")), VALUES, max_size=2),
    st.sampled_from([{}, {"index": 0}, {"index": 12}]),
    st.fixed_dictionaries({"delta": st.dictionaries(KEYS, VALUES, max_size=2)}),
    st.sampled_from([{}, {"finish_reason": None}, {"finish_reason": "stop"}, {"finish_reason": "length"}]),
    st.dictionaries(KEYS.filter(lambda key: key not in ("index", "finish_reason")), VALUES, max_size=2),
)
CHUNKS = st.builds(
    lambda first, choices, last: {**first, "choices": choices, **last},
    st.dictionaries(KEYS.filter(lambda key: key != "choices"), VALUES, max_size=2),
    st.lists(CHOICES, min_size=1, max_size=2),
    st.dictionaries(KEYS.filter(lambda key: key != "choices"), VALUES, max_size=2),
)
DUMPS = st.sampled_from([orjson.dumps, lambda value: json.dumps(value).encode()])


@settings(deadline=None, max_examples=150)
@given(st.lists(CHUNKS, min_size=1, max_size=3), DUMPS)
def test_byte_tests_say_what_parsing_would_say_or_nothing(chunks: list[dict[str, Any]], dumps: Any) -> None:
    raw = b"".join(sse.encode(dumps(chunk)) for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert sse.finishes(raw) in (
        None,
        [(choice.get("index"), choice["finish_reason"]) for choice in choices if choice.get("finish_reason")],
    )
    assert sse.indexes(raw) in (None, {choice.get("index") for choice in choices})
