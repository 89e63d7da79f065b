"""How heads and bodies are cut out of connections."""

from __future__ import annotations

import contextlib
import gc
import gzip
import http.client
import io
import weakref
import zlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError

from proxy.upstreams import framing
from proxy.upstreams.heads import Head, Inlet, Silent


class Connection:
    """A connection that delivers these bytes, one piece a read; `freed` tells what became of it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.inlet: Any = self
        self.held = b""
        self.freed: list[str] = []

    def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def release(self) -> None:
        self.freed.append("released")

    def close(self) -> None:
        self.freed.append("closed")


def body(connection: Connection, *headers: str) -> framing.Body | framing.Decoded:
    head = Head("\r\n".join(["HTTP/1.1 200 OK", *(headers or ["Transfer-Encoding: chunked"])]))
    return framing.body(head, connection)


def chunk(data: bytes, size: str = "%x") -> bytes:
    return (size % len(data)).encode() + b"\r\n" + data + b"\r\n"


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    if not wire:
        return []
    edges = [0, *sorted({place % len(wire) for place in places} - {0}), len(wire)]
    return [wire[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def read_all(connection: Connection) -> list[bytes]:
    found = body(connection)
    reads = list(iter(found.read, b""))
    assert found.ended
    return reads


DATA = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
SIZES = st.sampled_from(["%x", "%X", "000%x", "%x;name=value", "%x ; a"])
TRAILERS = st.sampled_from([b"\r\n", b"a: b\r\n\r\n", b"a: b\r\nc: \r\n\r\n"])


@given(DATA, SIZES, TRAILERS, st.lists(st.integers(0, 500), max_size=30))
def test_the_data_are_the_same_however_chunks_arrive(data, size, trailers, places):
    wire = b"".join(chunk(part, size) for part in data) + b"0\r\n" + trailers
    connection = Connection(cut(wire, places))
    assert b"".join(read_all(connection)) == b"".join(data)
    assert connection.freed == ["released"]


@given(DATA, st.lists(st.integers(0, 500), max_size=30), st.data())
def test_a_cut_body_is_no_whole_one_wherever_it_is_cut(data, places, draw):
    wire = b"".join(map(chunk, data)) + b"0\r\n\r\n"
    wire = wire[: draw.draw(st.integers(1, len(wire) - 1))]
    with pytest.raises(ProtocolError):
        read_all(Connection(cut(wire, places)))


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_nothing_that_arrives_breaks_it(wire, places):
    connection = Connection(cut(wire, places))
    try:
        read = b"".join(iter(body(connection).read, b""))
    except ProtocolError:
        assert "released" not in connection.freed
    else:
        assert len(read) < len(wire)


def test_chunks_that_arrive_together_are_one_read():
    wire = b"".join(chunk(b"event %d" % n) for n in range(64)) + b"0\r\n\r\n"
    assert len(read_all(Connection([wire]))) == 1


def test_what_came_before_a_broken_chunk_is_read_first():
    found = body(Connection([chunk(b"good") + b"zz\r\n"]))
    assert found.read() == b"good"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            found.read()


def test_a_broken_body_is_no_circle():
    found = body(Connection([b"zz\r\n"]))
    with pytest.raises(ProtocolError):
        found.read()
    kept = weakref.ref(found)
    gc.disable()
    try:
        del found
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("line", [b"", b"-1", b"+1", b"0x1", b"1_0", b" 1", b"1" * 17, b"\xb2"])
def test_a_size_that_is_none_is_refused(line):
    with pytest.raises(ProtocolError, match="without a size"):
        body(Connection([line + b"\r\n" + b"x" * 20])).read()


@pytest.mark.parametrize("wire", [b"1\na", b"1;\na\r\n", b"\n"])
def test_a_line_before_a_chunk_ends_with_crlf_alone(wire):
    with pytest.raises(ProtocolError, match="CRLF"):
        body(Connection([wire])).read()


@pytest.mark.parametrize("wire", [b"1\r\nabc", b"1\r\na\nb", b"1\r\na\r\r"])
def test_a_chunk_that_is_longer_than_it_says_is_refused(wire):
    found = body(Connection([wire]))
    assert found.read() == b"a"
    with pytest.raises(ProtocolError, match="longer"):
        found.read()


@pytest.mark.parametrize("wire", [b"1" * 20000, b"1;" + b"x" * 20000, b"0\r\n" + b"x" * 20000])
def test_a_line_without_an_end_is_refused(wire):
    with pytest.raises(ProtocolError, match="too long"):
        read_all(Connection([wire]))


def test_a_connection_with_something_behind_the_body_serves_nobody_else():
    connection = Connection([chunk(b"a") + b"0\r\n\r\nHTTP/1.1 200 OK\r\n"])
    assert read_all(connection) == [b"a"]
    assert connection.freed == ["closed"]


def test_a_body_of_stated_length_ends_with_its_last_byte():
    connection = Connection([b"hel", b"lo"])
    found = body(connection, "Content-Length: 5")
    assert (found.read(), found.ended) == (b"hel", False)
    assert (found.read(), found.ended) == (b"lo", True)
    assert found.read() == b""
    assert connection.freed == ["released"]


def test_what_follows_a_body_of_stated_length_is_nobodys_answer():
    connection = Connection([b"hel", b"loHTTP/1.1 200 OK\r\n"])
    assert b"".join(iter(body(connection, "Content-Length: 5").read, b"")) == b"hello"
    assert connection.freed == ["closed"]


def test_what_follows_an_answer_without_a_body_is_nobodys_answer():
    connection = Connection([])
    connection.held = b"HTTP/1.1 200 OK\r\n"
    assert body(connection, "Content-Length: 0").ended
    assert connection.freed == ["closed"]


def test_a_body_shorter_than_stated_is_cut():
    found = body(Connection([b"hel"]), "Content-Length: 5")
    assert found.read() == b"hel"
    with pytest.raises(ProtocolError):
        found.read()


def test_a_body_of_no_stated_length_is_all_that_comes():
    connection = Connection([b"hel", b"lo"])
    assert list(iter(body(connection, "A: b").read, b"")) == [b"hel", b"lo"]
    assert connection.freed == ["closed"]


@given(
    st.binary(min_size=1, max_size=200000),
    st.sampled_from(["gzip", "deflate"]),
    st.lists(st.integers(0, 400), max_size=5),
)
def test_a_compressed_body_is_decoded_as_it_arrives(data, coding, places):
    packed = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    connection = Connection(cut(packed, places))
    found = body(connection, f"Content-Encoding: {coding}", f"Content-Length: {len(packed)}")
    assert b"".join(iter(found.read, b"")) == data
    assert connection.freed == ["released"]


def heads(wire: bytes, places: Iterable[int] = ()) -> tuple[Head, bytes]:
    """Read a head that arrives in pieces; return it, and what has come of the body with it."""
    pieces = cut(wire, list(places))
    inlet = Inlet(SimpleNamespace(recv=lambda _: pieces.pop(0) if pieces else b""))
    return inlet.head(), inlet.held


def head(*lines: bytes) -> Head:
    return heads(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))[0]


NAMES = st.text("abcXYZ-_09", min_size=1, max_size=9)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f\x85\xa0"), max_size=20)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=12), st.sampled_from([b"\r\n", b"\n"]), st.lists(st.integers(0, 400))
)
def test_a_head_says_what_the_standard_library_reads_in_it_however_it_arrives(headers, end, places):
    assume(not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers))
    lines = [f"{name}: {value}".encode("iso-8859-1") for name, value in headers]
    expected: dict[str, list[str]] = {}
    for name, value in http.client.parse_headers(io.BytesIO(b"\r\n".join([*lines, b"", b""]))).items():
        # But for blanks at a value's end, which it keeps against RFC 9112, 5.1.
        expected.setdefault(name.lower(), []).append(value.strip(" "))
    found, _ = heads(end.join([b"HTTP/1.1 200 OK", *lines, b"", b""]), places)
    assert found.headers == {name: ", ".join(values) for name, values in expected.items()}


@given(st.binary(max_size=60), st.lists(st.integers(0, 400), max_size=5))
def test_what_has_come_of_the_body_with_the_head_is_kept(rest, places):
    wire = b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    found, held = heads(wire + rest, places)
    assert (found.status, found.headers) == (200, {"a": "b"})
    assert rest.startswith(held)


@given(st.binary(min_size=1, max_size=80), st.lists(st.integers(0, 80), max_size=3))
def test_nothing_that_arrives_breaks_the_reading_of_a_head(wire, places):
    with contextlib.suppress(ProtocolError):
        heads(b"HTTP/1.1 200" + wire, places)


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r\n", b"\r\n\n", b"\r\n\r\n"])
def test_a_head_ends_with_its_first_empty_line(end):
    found, held = heads(b"HTTP/1.1 200 OK\nA: b" + end + b"data: 1\r\n\r\ndata: 2\n\n")
    assert (found.headers, held) == ({"a": "b"}, b"data: 1\r\n\r\ndata: 2\n\n")


def test_a_folded_line_belongs_to_the_one_before():
    assert head(b"a: b", b" c", b"d: e").headers == {"a": "b c", "d": "e"}
    assert head(b"Transfer-Encoding:", b" chunked").chunked


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked", b"Content-Length: 2"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: gzip", b"Content-Length: 2"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 2", b"no header", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 2", b"Transfer-Encoding : chunked"],
        [b"Content-Length: 2", b": x"],
        [b"Content-Length: +2"],
        [b"Content-Length: 2\xa0"],
        [b"Content-Length: " + b"9" * 5000],
        [b"Content-Length: 2", b"A: b\rContent-Length: 3"],
        [b"Content-Length: 2\r"],
        [b"Content-Length: 2", b"Connection: close"],
        [b"A: b"],
    ],
)
def test_after_a_body_of_doubtful_length_the_connection_is_not_used_again(lines):
    assert head(*lines).closes


@pytest.mark.parametrize("line", [b"Content-Length: 2", b"Transfer-Encoding: Chunked"])
def test_after_any_other_body_it_is_used_again(line):
    assert not head(line, b"A: b", b" c").closes


def test_one_length_may_be_said_twice_and_two_may_not():
    assert head(b"Content-Length: 2", b"Content-Length: 2").length == 2
    with pytest.raises(ProtocolError, match="two lengths"):
        head(b"Content-Length: 2", b"Content-Length: 3")


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body_whatever_they_say(status):
    for said in (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 7\r\n", b"Content-Length: 0\r\n", b""):
        found, _ = heads(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, said))
        # Who says that there is one may send one.
        assert (found.chunked, found.length, found.closes) == (False, 0, said not in (b"Content-Length: 0\r\n", b""))


def test_a_head_that_is_cut_is_none():
    with pytest.raises(ProtocolError, match="cut"):
        heads(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")


@pytest.mark.parametrize(
    "wire", [b"HTTP/1.1 200 OK\r\n" + b"x" * 70000, b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n"]
)
def test_a_head_has_an_end(wire):
    with pytest.raises(ProtocolError, match="too large"):
        heads(wire, [65536])


def test_informational_answers_have_an_end():
    with pytest.raises(ProtocolError, match="too large"):
        heads(b"HTTP/1.1 103 X\r\n\r\n" * 4000 + b"HTTP/1.1 200 OK\r\n\r\n", range(0, 70000, 900))


@pytest.mark.parametrize(
    "first", [b"HTTP/2 200", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"ICY 200 OK", b"", b"HTTP/1.1 101 X"]
)
def test_what_begins_otherwise_is_no_answer(first):
    with pytest.raises(ProtocolError):
        heads(first + b"\r\nA: b\r\n\r\n")


def test_silence_is_told_from_half_an_answer():
    with pytest.raises(Silent) as told:
        heads(b"")
    assert not told.value.reused
