"""The scripted upstream does what its scripts say and notices how clients leave."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from upstreams import FIN, RST, Connection, Gate, Request, Step, Upstream, bytewise, chunked, gzipped, sse, streaming

Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Sends one request on a connection of its own, which is closed after the test."""
    with contextlib.ExitStack() as cleanup:

        def ask(upstream: Upstream, body: object = None) -> http.client.HTTPResponse:
            client = cleanup.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=20))
            )
            client.request("POST", "/v1/chat/completions", json.dumps(body or {"stream": True}), {"X-Test": "1"})
            return cleanup.enter_context(client.getresponse())

        yield ask


def dial(upstream: Upstream) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", upstream.port), timeout=20)
    client.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    )
    return client


def test_without_a_script_it_is_a_plain_openai_upstream(ask: Ask) -> None:
    with Upstream() as upstream:
        assert json.load(ask(upstream, {"model": "m"}))["choices"][0]["message"]["content"] == "Hello there"
        streamed = ask(upstream).read()
    assert streamed.startswith(b'data: {"id": "chatcmpl-test"') and streamed.endswith(b"data: [DONE]\n\n")
    first = upstream.requests[0]
    assert (first.method, first.path, first.headers["x-test"]) == ("POST", "/v1/chat/completions", "1")
    assert first.json == {"model": "m"}
    assert [request.connection.number for request in upstream.requests] == [1, 2]


def test_a_connection_serves_many_requests_and_chunked_bodies() -> None:
    with Upstream() as upstream, contextlib.closing(dial(upstream)) as client:
        upstream.wait_request(1)
        client.sendall(b"GET /v1/models HTTP/1.1\r\n\r\n")
        assert upstream.wait_request(2).path == "/v1/models"
        assert upstream.requests[0].json == {}
    assert len(upstream.connections) == 1


def test_scripts_are_used_in_order_and_the_last_one_stays(ask: Ask) -> None:
    with Upstream(
        lambda _: [b"HTTP/1.1 204 No\r\n\r\n", FIN], lambda _: b"HTTP/1.0 500 Oh\r\ncontent-length: 0\r\n\r\n"
    ) as up:
        assert [ask(up).status for _ in range(3)] == [204, 500, 500]


def test_it_holds_until_the_gate_is_opened(ask: Ask) -> None:
    gate = Gate()

    def script(_: Request) -> Iterator[Step]:
        yield streaming()
        yield chunked(b"data: 1\n\n", last=False)
        yield gate
        yield from bytewise(chunked(b"data: 2\n\n"))

    with Upstream(script) as upstream:
        answer = ask(upstream)
        assert answer.read1(9) == b"data: 1\n\n"
        assert upstream.wait_request().connection.ended_by is None
        gate.open()
        assert answer.read() == b"data: 2\n\n"


def test_it_notices_at_once_that_the_client_has_left_a_hold() -> None:
    with Upstream(lambda _: [b"HTTP/1.1 200 OK\r\n\r\n", Gate()]) as upstream:
        with contextlib.closing(dial(upstream)) as client:
            assert client.recv(19)
        gone = upstream.wait_end(1)
        assert (gone.ended_by, gone.how, gone.sent) == ("client", "fin", 19)
        assert gone.ended_at is not None and gone.ended_at >= gone.opened_at


def test_it_tells_a_reset_from_a_close() -> None:
    with Upstream(lambda _: Gate()) as upstream:
        client = dial(upstream)
        upstream.wait_request()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert upstream.wait_end(1).how == "rst"


def test_it_closes_or_resets_where_the_script_says() -> None:
    with Upstream(lambda _: [b"HTTP", FIN], lambda _: [b"HTTP", RST]) as upstream:
        with contextlib.closing(dial(upstream)) as client:
            assert client.makefile("rb").read() == b"HTTP"
        with contextlib.closing(dial(upstream)) as client, contextlib.suppress(ConnectionResetError):
            assert client.recv(99) in (b"HTTP",) and not client.recv(99)
            raise AssertionError("the connection was closed, not reset")
        assert [upstream.wait_end(number).how for number in (1, 2)] == ["fin", "rst"]


def test_it_can_greet_before_it_reads() -> None:
    def greet(_: Connection) -> list[Step]:
        return [b"220 mail\r\n", FIN]

    with Upstream(greeting=greet) as upstream:
        client = socket.create_connection(("127.0.0.1", upstream.port), timeout=20)
        with contextlib.closing(client):
            assert client.makefile("rb").read() == b"220 mail\r\n"
    assert upstream.requests == []


def test_bodies_can_be_packed_and_events_written_in_any_way() -> None:
    with Upstream(lambda _: gzipped(b"x" * 100_000)) as upstream:
        with urllib.request.urlopen(f"http://{upstream.address}/") as answer:
            assert len(answer.read()) < 1000
    assert sse([{"a": 1}, b"\xff"], done=False, end=b"\r") == b'data: {"a": 1}\r\rdata: \xff\r\r'


def test_stopping_ends_what_still_hangs() -> None:
    upstream = Upstream(lambda _: Gate())
    with contextlib.closing(dial(upstream)) as client:
        upstream.wait_request()
        upstream.stop()
        assert client.recv(1) == b""
    assert upstream.connections[0].ended_by == "upstream"
