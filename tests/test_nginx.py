"""Lockgate behind the real nginx, with the configuration that is shipped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from crowds import until
from gateways import MOCK, Gateway
from nginxes import NGINX, Behind, Nginx
from upstreams import FIN, Gate, Upstream, chunked, head, plain, sse, streaming
from wire import Answer, Wire

from proxy.testing import stream

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

ASK: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**ASK, "stream": True}
EVENTS = stream()
HELLO = streaming() + chunked(sse(EVENTS[:2], done=False), last=False)
Edits = list[tuple[str, str]]


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def behind(worker: str, up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """A gateway on a unix socket, with frequent heartbeats and the upstream behind it, which each test scripts anew."""
    made = Behind(
        tmp_path_factory.mktemp("lg"), MOCK.format(url=up.url), worker=worker, server={"heartbeat": 0.2, "workers": 2}
    )
    yield made
    made.stop()


@pytest.fixture(scope="module")
def nginx(behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx in front of it."""
    made = Nginx(tmp_path_factory.mktemp("nginx") / "n", behind.path, behind.key)
    yield made
    made.stop()


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Starts others, with edits of their own."""
    with contextlib.ExitStack() as running:

        def start(path: str, key: str = "", edits: Edits = []) -> Nginx:  # noqa: B006
            made = Nginx(tmp_path / f"nginx{len(list(tmp_path.glob('nginx*')))}", path, key, edits)
            running.callback(made.stop)
            return made

        yield start


def ended(gateway: Gateway, id: str) -> dict[str, Any]:
    """Wait for the journal's last line on an exchange, and return what all of its lines say."""

    def look() -> dict[str, Any]:
        lines = [line for line in gateway.records() if line["id"] == id]
        return {name: value for line in lines for name, value in line.items()} if lines[-1]["kind"] == "end" else {}

    return until(look)


def ids(gateway: Gateway) -> set[str]:
    """The exchanges that the journal knows of."""
    return {line["id"] for line in gateway.records()}


def assert_error(answer: Answer, status: int, code: str) -> None:
    """The answer is a whole error in OpenAI's shape."""
    assert (answer.status, answer.whole, answer.headers["content-type"]) == (status, True, "application/json")
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "nginx/" not in answer.headers.get("server", "")


def test_the_official_client_gets_its_answers_through_tls(up: Upstream, nginx: Nginx) -> None:
    up.scripts = [plain]
    with nginx.client() as client:
        whole = client.chat.completions.create(**ASK)
        chunks = list(client.chat.completions.create(**STREAM))
    assert whole.choices[0].message.content == "Hello there"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there"


def test_each_event_arrives_before_the_next_is_sent(up: Upstream, nginx: Nginx) -> None:
    gates = [Gate() for _ in EVENTS]

    def script(_: object) -> Iterator[bytes | Gate]:
        yield streaming()
        for event, gate in zip(EVENTS, gates, strict=True):
            yield chunked(sse([event], done=False), last=False)
            yield gate
        yield chunked(sse([]))

    up.scripts = [script]
    with nginx.client() as client:
        chunks = iter(client.chat.completions.create(**STREAM, stream_options={"include_usage": True}))
        for event, gate in zip(EVENTS[:-2], gates, strict=False):
            assert next(chunks).choices[0].delta.content == event["choices"][0]["delta"].get("content")
            gate.open()
        # The finish and the usage are handed over when the upstream has said that it is at its end.
        for gate in gates:
            gate.open()
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == ["stop"]


@pytest.mark.parametrize("phase", ["before the headers", "before the first event", "between events", "whole answer"])
@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_leaves_takes_the_upstream_with_it(
    up: Upstream, behind: Behind, nginx: Nginx, phase: str, reset: bool
) -> None:
    gate = Gate()
    scripts = {
        "before the headers": [gate],
        "before the first event": [streaming(), gate],
        "between events": [HELLO, gate],
        "whole answer": [head(200, content_type="application/json", content_length=100), b"{", gate],
    }
    up.scripts = [lambda _: iter(scripts[phase])]
    seen, known = len(up.requests), ids(behind)
    with nginx.wire() as wire:
        wire.request(ASK if phase == "whole answer" else STREAM)
        request = up.wait_request(seen + 1)
        if phase == "between events":
            wire.read_until(b'"Hel')
        up.wait_for(lambda: request.connection.sent >= sum(len(s) for s in scripts[phase] if isinstance(s, bytes)))
        wire.close(reset)
    assert up.wait_end(request.connection.number).ended_by == "client"
    [id] = ids(behind) - known
    record = ended(behind, id)
    assert (record["complete"], record["client_gone"]) == (False, True)


def kill_workers(gateway: Gateway, gate: Gate) -> None:
    for pid in gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)


def fin(gateway: Gateway, gate: Gate) -> None:
    gate.open()


CUTS = {"a killed worker": kill_workers, "an upstream that ends": fin}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_looks_like_one_over_http_1(up: Upstream, behind: Behind, nginx: Nginx, cut: str) -> None:
    gate = Gate()
    up.scripts = [lambda _: iter([HELLO, gate, FIN])]
    with nginx.wire() as wire:
        wire.request(STREAM)
        head = wire.read_until(b"\r\n\r\n")
        assert b"chunked" in head.lower()
        wire.read_until(b'"Hel')
        CUTS[cut](behind, gate)
        with pytest.raises(EOFError) as end:
            wire.read_until(b"\r\n0\r\n\r\n")
    rest = end.value.args[0]
    assert b"[DONE]" not in rest
    assert (b'"code":"upstream_connection_lost"' in rest) is (cut == "an upstream that ends")
    gate.open()


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_looks_like_one_over_http_2(up: Upstream, behind: Behind, nginx: Nginx, cut: str) -> None:
    gate = Gate()
    up.scripts = [lambda _: iter([HELLO, gate, FIN])]
    with nginx.curl(json.dumps(STREAM), "--http2", "-w", "%{stderr}%{http_version}") as curl:
        assert curl.stdout is not None
        seen = b""
        while b'"Hel' not in seen:
            line = curl.stdout.readline()
            assert line, seen
            seen += line
        CUTS[cut](behind, gate)
        rest = curl.stdout.read()
        # 92: the stream was not closed cleanly. 18 would be the same over HTTP/1.
        assert curl.wait() == 92
    assert b"[DONE]" not in rest
    gate.open()


def test_the_official_client_raises_where_the_upstream_is_cut(up: Upstream, nginx: Nginx) -> None:
    up.scripts = [lambda _: iter([HELLO, FIN])]
    with nginx.client() as client, pytest.raises(openai.APIError, match="was lost"):
        list(client.chat.completions.create(**STREAM))


def test_heartbeats_keep_a_silent_stream_open(up: Upstream, behind: Behind, start_nginx: Callable[..., Nginx]) -> None:
    impatient = start_nginx(behind.path, behind.key, [("proxy_read_timeout 620s", "proxy_read_timeout 1s")])
    gate = Gate()
    up.scripts = [lambda _: iter([gate, HELLO, chunked(sse(EVENTS[2:]))])]
    with impatient.wire() as wire:
        wire.request(STREAM)
        # Ten are twice what nginx waits for.
        for _ in range(10):
            wire.read_until(b": ping\n\n")
        gate.open()
        assert wire.read_until(b"\r\n0\r\n\r\n").endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


LIES = {
    "x_forwarded_for": "6.6.6.6, 7.7.7.7",
    "x_forwarded_proto": "http",
    "x_forwarded_protocol": "http",
    "x_forwarded_ssl": "off",
    "x_forwarded_host": "evil.example",
    "x_forwarded_prefix": "/evil",
    "x_real_ip": "6.6.6.6",
    "forwarded": "for=6.6.6.6;proto=http",
    "x_request_id": "chosen-by-the-client",
}


def test_what_a_client_says_of_itself_is_overwritten(up: Upstream, behind: Behind, nginx: Nginx) -> None:
    up.scripts = [plain]
    with nginx.wire() as wire:
        answer = wire.post(ASK, **LIES)
        id = answer.headers["x-request-id"]
        assert answer.status == 200
        assert len(id) == 32 and int(id, 16)
        record = ended(behind, id)
        # With underscores: WSGI would take it for the same header.
        raw = json.dumps(ASK).encode()
        lines = [f"Content-Length: {len(raw)}", f"Authorization: Bearer {behind.key}", "Content-Type: application/json"]
        lines += ["Host: gateway", "X_Forwarded_For: 6.6.6.6", "X_Request_ID: chosen-by-the-client"]
        wire.send("\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "", ""]).encode() + raw)
        again = wire.answer()
    assert again.status == 200
    others = ended(behind, again.headers["x-request-id"])
    for line in (record, others):
        assert (line["client"], line["path"], line["complete"]) == ("127.0.0.1", "/v1/chat/completions", True)


def test_without_nginx_nobody_is_believed(gateway: Gateway) -> None:
    with gateway.wire() as wire:
        answer = wire.post({**ASK, "model": "echo"}, **{**LIES, "x_forwarded_for": "6.6.6.6"})
    id = answer.headers["x-request-id"]
    assert answer.status == 200
    assert id.startswith("req_")
    assert ended(gateway, id)["client"] == "127.0.0.1"


def test_the_gateways_own_errors_pass_as_they_are(behind: Behind, nginx: Nginx) -> None:
    with nginx.wire() as wire, behind.wire() as direct:
        for path in ("/v1/nothing", "/v1/chat/completions/chat/completions"):
            assert wire.post(ASK, path).json == direct.post(ASK, path).json
        body = {**ASK, "model": "nothing"}
        assert wire.post(body).json == direct.post(body).json
        assert wire.post(ASK, authorization=None).status == 401


def test_long_tokens_come_through(nginx: Nginx) -> None:
    for size in (16 << 10, 30 << 10):
        with nginx.wire() as wire:
            assert_error(wire.post(ASK, authorization="Bearer " + "x" * size), 401, "invalid_api_key")


def test_nginx_answers_as_openai_does_what_never_reaches_the_gateway(nginx: Nginx) -> None:
    with nginx.wire() as wire:
        assert_error(wire.get("/.lockgate/error"), 404, "unknown_url")
    with nginx.wire() as wire:
        wire.request(b"", content_length=str(33 << 20))
        assert_error(wire.answer(), 413, "request_too_large")
    with nginx.wire() as wire:
        assert_error(wire.get("/" + "x" * (40 << 10)), 414, "uri_too_long")
    with nginx.wire() as wire:
        assert_error(wire.post(ASK, authorization="Bearer " + "x" * (40 << 10)), 431, "request_header_fields_too_large")
    with nginx.wire() as wire:
        wire.send(b"nonsense\r\n\r\n")
        assert_error(wire.answer(), 400, "bad_request")
    with nginx.wire() as wire:
        assert_error(wire.get("/", method="TRACE"), 405, "method_not_allowed")
    with Wire(("127.0.0.1", nginx.port), nginx.key) as plain:
        assert_error(plain.post(ASK), 400, "https_required")


def test_a_gateway_that_is_down_is_an_error_to_try_again_on(tmp_path: Path, start_nginx: Callable[..., Nginx]) -> None:
    nginx = start_nginx(str(tmp_path / "nobody.sock"), "some-key")
    with nginx.wire() as wire:
        answer = wire.post(ASK)
        assert_error(answer, 502, "gateway_unavailable")
        assert answer.headers["retry-after"] == "2"
        assert len(answer.headers["x-request-id"]) == 32
        # A client's own status does not choose the page.
        assert_error(wire.get("/v1/models"), 502, "gateway_unavailable")
    with nginx.client() as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == "gateway_unavailable"


def test_limits_refuse_with_a_time_to_come_back(
    up: Upstream, behind: Behind, start_nginx: Callable[..., Nginx]
) -> None:
    gate = Gate()
    up.scripts = [lambda _: iter([HELLO, gate, chunked(sse(EVENTS[2:]))])]
    edits = [("lockgate_all 1000", "lockgate_all 1"), ("rate=200r/s", "rate=1r/m"), ("burst=400", "burst=5")]
    nginx = start_nginx(behind.path, behind.key, edits)
    with nginx.wire() as first, nginx.wire() as second:
        first.request(STREAM)
        first.read_until(b'"Hel')
        full = second.post(ASK)
        assert_error(full, 503, "server_is_overloaded")
        assert full.headers["retry-after"] == "1"
        gate.open()
        assert first.read_until(b"\r\n0\r\n\r\n").endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        flood = until(lambda: (answer := second.get("/healthz")).status == 429 and answer)
        assert isinstance(flood, Answer)
        assert_error(flood, 429, "rate_limit_exceeded")
        assert flood.headers["retry-after"] == "1"


def test_a_second_gateway_takes_what_the_first_was_not_sent_and_nothing_else(
    up: Upstream, behind: Behind, tmp_path_factory: pytest.TempPathFactory, start_nginx: Callable[..., Nginx]
) -> None:
    folder, shared = tmp_path_factory.mktemp("lg"), {"state": str(behind.folder / "var"), "workers": 1}
    second = Behind(folder, MOCK.format(url=up.url), server=shared)
    try:
        both = f"server unix:{second.path};\n        server unix:{behind.path};"
        nginx = start_nginx("unused", behind.key, [("server unix:unused;", both)])
        gate = Gate()
        up.scripts = [lambda _: gate]
        with nginx.wire() as wire:
            # The first request goes to the first in the file.
            seen, known = len(up.requests), ids(behind)
            wire.request(ASK)
            request = up.wait_request(seen + 1)
            kill_workers(second, gate)
            assert_error(wire.answer(), 502, "gateway_unavailable")
            assert up.requests[-1] is request
            assert len(ids(behind) - known) == 1
        second.stop()
        up.scripts = [plain]
        for _ in range(4):
            with nginx.wire() as wire:
                assert wire.post(ASK).status == 200
    finally:
        second.stop()


def test_a_reload_of_nginx_cuts_no_stream(up: Upstream, nginx: Nginx) -> None:
    gate = Gate()
    up.scripts = [lambda _: iter([HELLO, gate, chunked(sse(EVENTS[2:]))])]
    with nginx.wire() as wire:
        wire.request(STREAM)
        wire.read_until(b'"Hel')
        nginx.reload()
        with nginx.wire() as other:
            assert other.get("/healthz").status == 200
        gate.open()
        assert wire.read_until(b"\r\n0\r\n\r\n").endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_slow_bodies_hold_no_place_of_the_gateway(
    up: Upstream, worker: str, tmp_path_factory: pytest.TempPathFactory, start_nginx: Callable[..., Nginx]
) -> None:
    up.scripts = [plain]
    seen = len(up.requests)
    few = {"threads": 2, "workers": 1}
    gateway = Behind(tmp_path_factory.mktemp("lg"), MOCK.format(url=up.url), worker=worker, server=few)
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.stop)
        nginx = start_nginx(gateway.path, gateway.key)
        slow = [stack.enter_context(nginx.wire()) for _ in range(50)]
        for wire in slow:
            wire.request(b'{"model": "mock", ', content_length="100000")
        with nginx.wire() as wire:
            assert wire.post(ASK).status == 200
        assert len(up.requests) == seen + 1
        assert len([line for line in gateway.records() if line["kind"] == "start"]) == 1


def test_clients_that_never_read_hold_up_nobody_else(up: Upstream, nginx: Nginx) -> None:
    filler = chunked(sse([EVENTS[1]], done=False), last=False) * 200

    def script(request: Any) -> Iterator[bytes]:
        if request.json.get("user") != "endless":
            yield plain(request)  # type: ignore[misc]
            return
        yield streaming()
        while True:
            yield filler

    up.scripts = [script]
    seen = len(up.requests)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            wire = stack.enter_context(nginx.wire())
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.request({**STREAM, "user": "endless"})
        up.wait_for(lambda: len(up.requests) == seen + 8)
        for request in up.requests[seen:]:
            up.wait_for(lambda request=request: request.connection.sent > 1 << 20)
        for _ in range(10):
            with nginx.wire() as wire:
                assert wire.post(STREAM).whole
    for request in up.requests[seen : seen + 8]:
        assert up.wait_end(request.connection.number).ended_by == "client"


BODY = json.dumps(ASK).encode()
SIZE = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = chunked(BODY)
CODED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = {
    "a length and chunks": (SIZE + CODED, CHUNKS),
    "chunks and a length": (CODED + SIZE, CHUNKS),
    "two lengths": (SIZE + SIZE, BODY),
    "two lengths that differ": (SIZE + b"Content-Length: 3\r\n", BODY),
    "a list of lengths": (b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), BODY),
    "a length with a sign": (b"Content-Length: +%d\r\n" % len(BODY), BODY),
    "a negative length": (b"Content-Length: -1\r\n", BODY),
    "an unknown coding": (b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "two codings": (b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS),
    "chunked twice": (CODED + CODED, CHUNKS),
    "a folded header": (b"X-A: 1\r\n" + SIZE.replace(b": ", b":\r\n "), BODY),
    "a space before the colon": (b"Content-Length : %d\r\n" % len(BODY), BODY),
    "a space before chunked's colon": (b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "a bare CR": (b"X-A: 1\rTransfer-Encoding: chunked\r\n" + SIZE, BODY),
    "a NUL": (b"X-A: 1\x00\r\n" + SIZE, BODY),
    "two hosts": (b"Host: other\r\n" + SIZE, BODY),
    "a bad chunk size": (CODED, b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an endless chunk size": (CODED, b"f" * 40 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": (CODED, b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", SMUGGLED)
def test_what_could_be_read_in_two_ways_goes_no_further(up: Upstream, behind: Behind, nginx: Nginx, case: str) -> None:
    up.scripts = [plain]
    seen, known = len(up.requests), ids(behind)
    fields, body = SMUGGLED[case]
    with nginx.wire() as wire:
        wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n")
        wire.send(b"Authorization: Bearer " + behind.key.encode() + b"\r\n" + fields + b"\r\n" + body)
        answer = wire.answer()
        assert_error(answer, answer.status, "unsupported_transfer_coding" if answer.status == 501 else "bad_request")
        assert answer.status in (400, 501)
        assert wire.ended()
    with nginx.wire() as wire:
        assert wire.post(ASK).status == 200
    assert len(up.requests) == seen + 1
    assert len(ids(behind) - known) == 1


def test_bare_line_feeds_reach_the_gateway_as_lines(up: Upstream, nginx: Nginx) -> None:
    """nginx takes them (RFC 9112 §2.2 lets it) and writes the request anew: one request, with one answer."""
    up.scripts = [plain]
    seen = len(up.requests)
    with nginx.wire() as wire:
        wire.send(b"POST /v1/chat/completions HTTP/1.1\nHost: gateway\nContent-Type: application/json\n")
        wire.send(b"Connection: close\n" + SIZE.replace(b"\r", b"") + b"Authorization: Bearer " + nginx.key.encode())
        wire.send(b"\n\n" + BODY)
        assert wire.answer().status == 200
        assert wire.ended()
    assert len(up.requests) == seen + 1
