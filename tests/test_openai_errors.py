"""Every error is OpenAI's: the right exception of its client, four keys, JSON, a request id, and never HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from gateways import ECHO, Gateway
from openai.types.chat import ChatCompletionMessageParam
from wire import Answer, Wire

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"model": "echo", "messages": HELLO}
CHAT = "/v1/chat/completions"


def error_of(answer: Answer) -> dict[str, Any]:
    """Check the shape of an error answer and return its error."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.whole and b"<" not in answer.body[:1]
    assert answer.headers.get("x-request-id"), answer.headers
    assert answer.json.keys() == {"error"}
    error: dict[str, Any] = answer.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str) and isinstance(error["code"], str | None)
    assert isinstance(error["param"], str | None)
    return error


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("wrong", "invalid_api_key"),
        ("lg_abcdefghijkl_" + "x" * 43, "invalid_api_key"),
        ("sk-" + "x" * 4000, "invalid_api_key"),
    ],
)
def test_a_wrong_key(gateway: Gateway, key: str, code: str) -> None:
    with gateway.client(api_key=key) as client, pytest.raises(openai.AuthenticationError) as raised:
        client.chat.completions.create(model="echo", messages=HELLO)
    assert (raised.value.status_code, raised.value.code, raised.value.type) == (401, code, "invalid_request_error")
    assert key not in str(raised.value)
    assert raised.value.request_id


def test_no_key_at_all(wire: Wire) -> None:
    answer = wire.post(BODY, authorization=None)
    error = error_of(answer)
    assert (answer.status, error["type"], error["code"]) == (401, "invalid_request_error", None)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_unknown_model(client: openai.OpenAI, streamed: bool) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-17", messages=HELLO, stream=streamed)
    assert (raised.value.code, raised.value.param) == ("model_not_found", None)
    assert "The model `gpt-17` does not exist or you do not have access to it." in str(raised.value)


def test_an_unknown_model_is_not_described(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-17")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("parameters", "code", "param"),
    [
        ({"temperature": 3}, "decimal_above_max_value", "temperature"),
        ({"n": 0}, "integer_below_min_value", "n"),
        ({"stream": "false"}, "invalid_type", "stream"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"bogus": 1}, "unknown_parameter", "bogus"),
        ({"messages": "hi"}, "invalid_type", "messages"),
    ],
)
def test_a_wrong_parameter_is_named(client: openai.OpenAI, parameters: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="echo", messages=HELLO, extra_body=parameters)
    assert (raised.value.status_code, raised.value.type) == (400, "invalid_request_error")
    assert (raised.value.code, raised.value.param) == (code, param)
    assert param in str(raised.value)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_parameter_is_named(wire: Wire, missing: str) -> None:
    answer = wire.post({key: value for key, value in BODY.items() if key != missing})
    error = error_of(answer)
    assert (answer.status, error["code"], error["param"]) == (400, "missing_required_parameter", missing)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"a": "\\ud800"}', b"null"]
)
def test_a_body_that_is_no_json_object(wire: Wire, body: bytes) -> None:
    answer = wire.post(body)
    assert (answer.status, error_of(answer)["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_another_content_type(wire: Wire, kind: str | None) -> None:
    answer = wire.post(BODY, content_type=kind)
    assert (answer.status, error_of(answer)["code"]) == (415, "unsupported_media_type")


def test_a_compressed_body(wire: Wire) -> None:
    answer = wire.post(BODY, content_encoding="gzip")
    assert (answer.status, error_of(answer)["type"]) == (415, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("OPTIONS", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/v2", 404, "unknown_url"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages", 404, "unknown_url"),
        ("GET", "/v1/<script>", 404, "unknown_url"),
        ("GET", "/static/x", 404, "unknown_url"),
    ],
)
def test_an_unknown_url_or_method(wire: Wire, method: str, path: str, status: int, code: str) -> None:
    answer = wire.get(path, method)
    error = error_of(answer)
    assert (answer.status, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert status == 404 or answer.headers["allow"]


def test_an_unknown_url_through_the_client(gateway: Gateway) -> None:
    with gateway.client() as client, pytest.raises(openai.NotFoundError) as raised:
        client.embeddings.create(model="echo", input="x")
    assert raised.value.code == "unknown_url"


def test_after_an_error_the_connection_still_serves(wire: Wire) -> None:
    assert [wire.post(b"{").status, wire.post({**BODY, "n": 0}).status, wire.get("/nowhere").status] == [400, 400, 404]
    assert wire.post(BODY).status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(200)) + b"\r\n", 431),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
    ],
)
def test_a_request_that_is_no_http_is_refused_in_json(gateway: Gateway, line: bytes, status: int) -> None:
    with gateway.wire() as wire:
        wire.send(line)
        answer = wire.answer()
    assert answer.status == status
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}


def test_a_bad_chunk_size_is_a_bad_request(gateway: Gateway) -> None:
    with gateway.wire() as wire:
        wire.request(b"", content_length=None, transfer_encoding="chunked")
        wire.send(b"zz\r\nhello\r\n")
        answer = wire.answer()
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.fixture(scope="module")
def small(worker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that takes bodies of up to 2 kB."""
    made = Gateway(tmp_path_factory.mktemp("small"), ECHO, worker=worker, server={"max_body_bytes": 2048})
    yield made
    made.stop()


def test_a_body_that_is_too_large(small: Gateway) -> None:
    with small.client() as client, pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "x" * 3000}])
    assert (raised.value.status_code, raised.value.code) == (413, "request_too_large")


@pytest.mark.parametrize("declared", [True, False])
def test_a_huge_body_is_refused_without_being_read(small: Gateway, declared: bool) -> None:
    with small.wire() as wire:
        if declared:
            wire.request(b"", content_length=str(10**12))
        else:
            wire.request(b"", content_length=None, transfer_encoding="chunked")
            wire.send(b"bb8\r\n" + b"x" * 3000 + b"\r\n")
        answer = wire.answer()
        assert (answer.status, error_of(answer)["code"]) == (413, "request_too_large")
        # What follows in the stream of bytes is the body, never a second request.
        assert wire.ended()


Start = Callable[..., Gateway]


def test_a_gateway_without_authentication_serves_its_own_host_only(start_gateway: Start, worker: str) -> None:
    echo = ECHO.replace('chain = ["keys"]', "chain = []").replace('[plugins.keys]\nuse = "api_keys"\n', "")
    gateway = start_gateway(echo, worker=worker, server={"insecure": True})
    with gateway.wire() as wire:
        for host in ("localhost:8080", "127.0.0.1", "[::1]:80"):
            assert wire.post(BODY, authorization=None, host=host).status == 200
        elsewhere: list[dict[str, str]] = [
            {"x_forwarded_for": "10.0.0.1"},
            {"x_forwarded_proto": "https"},
            {"cf_connecting_ip": "10.0.0.1"},
            {"host": "evil.example"},
            {"origin": "https://evil.example"},
        ]
        for header in elsewhere:
            refused = wire.post(BODY, authorization=None, **{"host": "localhost", **header})
            assert (refused.status, error_of(refused)["code"]) == (403, "insecure_gateway")
