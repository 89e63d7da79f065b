"""How bodies are cut out of connections."""

from __future__ import annotations

import http.client
import io
import socket
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError

from proxy.upstreams import framing


class Connection:
    """A urllib3 response whose connection delivers these bytes, one piece a read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.headers: dict[str, str] = {}
        self.chunked = True
        self.freed: list[str] = []
        self._original_response = SimpleNamespace(fp=self, close=lambda: self.freed.append("read"))

    def read1(self, _: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def release_conn(self) -> None:
        self.freed.append("released")

    def close(self) -> None:
        self.freed.append("closed")


def chunk(data: bytes, size: str = "%x") -> bytes:
    return (size % len(data)).encode() + b"\r\n" + data + b"\r\n"


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % len(wire) for place in places} - {0}), len(wire)]
    return [wire[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def read_all(connection: Connection) -> list[bytes]:
    body = framing.body(connection)
    reads = list(iter(body.read, b""))
    assert body.ended
    return reads


DATA = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
SIZES = st.sampled_from(["%x", "%X", "000%x", "%x;name=value", "%x ; a"])
TRAILERS = st.sampled_from([b"\r\n", b"a: b\r\n\r\n", b"a: b\r\nc: \r\n\r\n"])


@given(DATA, SIZES, TRAILERS, st.lists(st.integers(0, 500), max_size=30))
def test_the_data_are_the_same_however_chunks_arrive(data, size, trailers, places):
    wire = b"".join(chunk(part, size) for part in data) + b"0\r\n" + trailers
    connection = Connection(cut(wire, places))
    assert b"".join(read_all(connection)) == b"".join(data)
    assert connection.freed == ["read", "released"]


@given(DATA, st.lists(st.integers(0, 500), max_size=30), st.data())
def test_a_cut_body_is_no_whole_one_wherever_it_is_cut(data, places, draw):
    wire = b"".join(map(chunk, data)) + b"0\r\n\r\n"
    wire = wire[: draw.draw(st.integers(1, len(wire) - 1))]
    with pytest.raises(ProtocolError):
        read_all(Connection(cut(wire, places)))


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_nothing_that_arrives_breaks_it(wire, places):
    connection = Connection(cut(wire, places) if wire else [])
    body = framing.body(connection)
    try:
        read = b"".join(iter(body.read, b""))
    except ProtocolError:
        assert "released" not in connection.freed
    else:
        assert len(read) < len(wire)


def test_chunks_that_arrive_together_are_one_read():
    wire = b"".join(chunk(b"event %d" % n) for n in range(64)) + b"0\r\n\r\n"
    assert len(read_all(Connection([wire]))) == 1


def test_what_came_before_a_broken_chunk_is_read_first():
    body = framing.body(Connection([chunk(b"good") + b"zz\r\n"]))
    assert body.read() == b"good"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            body.read()


@pytest.mark.parametrize("line", [b"", b"-1", b"+1", b"0x1", b"1_0", b" 1", b"1" * 17, b"\xb2"])
def test_a_size_that_is_none_is_refused(line):
    with pytest.raises(ProtocolError, match="without a size"):
        framing.body(Connection([line + b"\r\n" + b"x" * 20])).read()


@pytest.mark.parametrize("wire", [b"1\na", b"1;\na\r\n", b"\n"])
def test_a_line_before_a_chunk_ends_with_crlf_alone(wire):
    with pytest.raises(ProtocolError, match="CRLF"):
        framing.body(Connection([wire])).read()


@pytest.mark.parametrize("wire", [b"1\r\nabc", b"1\r\na\nb", b"1\r\na\r\r"])
def test_a_chunk_that_is_longer_than_it_says_is_refused(wire):
    body = framing.body(Connection([wire]))
    assert body.read() == b"a"
    with pytest.raises(ProtocolError, match="longer"):
        body.read()


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
    connection.chunked, connection.length_remaining = False, 5
    body = framing.body(connection)
    assert (body.read(), body.ended) == (b"hel", False)
    assert (body.read(), body.ended) == (b"lo", True)
    assert body.read() == b""
    assert connection.freed == ["read", "released"]


def test_what_follows_a_body_of_stated_length_is_nobodys_answer():
    connection = Connection([b"hel", b"loHTTP/1.1 200 OK\r\n"])
    connection.chunked, connection.length_remaining = False, 5
    body = framing.body(connection)
    assert b"".join(iter(body.read, b"")) == b"hello"
    assert connection.freed == ["closed"]


def test_a_body_shorter_than_stated_is_cut():
    connection = Connection([b"hel"])
    connection.chunked, connection.length_remaining = False, 5
    body = framing.body(connection)
    assert body.read() == b"hel"
    with pytest.raises(ProtocolError):
        body.read()


def head(*lines: bytes) -> framing.Response:
    sides = socket.socketpair()
    with sides[0], sides[1]:
        sides[0].sendall(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))
        sides[0].shutdown(socket.SHUT_WR)
        response = framing.Response(sides[1])
        response.begin()
        return response


NAMES = st.text("abcXYZ-_09", min_size=1, max_size=9)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f\x85"), max_size=20)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_a_head_says_what_the_standard_library_reads_in_it(headers):
    lines = [f"{name}: {value}".encode("iso-8859-1") for name, value in headers]
    expected = http.client.parse_headers(io.BytesIO(b"\r\n".join([*lines, b"", b""])))
    # But for blanks at a value's end, which it keeps against RFC 9112, 5.1.
    assert head(*lines).headers.items() == [(name, value.strip(" ")) for name, value in expected.items()]


def test_a_folded_line_belongs_to_the_one_before():
    assert head(b"a: b", b" c", b"d: e").headers["d"] == "e"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked", b"Content-Length: 2"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: gzip", b"Content-Length: 2"],
        [b"Content-Length: 2", b"no header", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 2", b"Transfer-Encoding : chunked"],
        [b"Content-Length: +2"],
        [b"Content-Length: " + b"9" * 5000],
    ],
)
def test_after_a_body_of_doubtful_length_the_connection_is_not_used_again(lines):
    assert head(*lines).will_close


@pytest.mark.parametrize("line", [b"Content-Length: 2", b"Transfer-Encoding: Chunked"])
def test_after_any_other_body_it_is_used_again(line):
    assert not head(line, b"A: b", b" c").will_close


def test_a_head_that_is_cut_is_none():
    with pytest.raises(http.client.RemoteDisconnected):
        left, right = socket.socketpair()
        with left, right:
            left.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
            left.shutdown(socket.SHUT_WR)
            framing.Response(right).begin()
