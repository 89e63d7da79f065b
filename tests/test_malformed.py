"""Requests that two servers in a row could read differently: refused, or read as the standard says, never as two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from crowds import Holding, ask, start
from gateways import Gateway

BODY = ask("quick", streamed=False)
HIDDEN = ask("hidden", streamed=False)
POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: gateway\r\n"
PLACE = b"KEY".ljust(100)
"""Where the key goes; the lengths do not depend on it."""
KEY = b"Authorization: Bearer %s\r\n" % PLACE
JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = POST + HOST + KEY + JSON + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN


def post(*fields: bytes, body: bytes = BODY, line: bytes = POST, host: bytes = HOST) -> bytes:
    return line + host + KEY + JSON + b"".join(fields) + b"\r\n" + body


REFUSED = {
    "a length and chunks": post(LENGTH, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": post(CHUNKED, b"Content-Length: 5\r\n", body=b"0\r\n\r\n" + SMUGGLED),
    "another coding": post(b"Transfer-Encoding: xchunked\r\n", LENGTH, body=BODY + SMUGGLED),
    "a coding after chunked": post(b"Transfer-Encoding: chunked, identity\r\n", body=CHUNKS + SMUGGLED),
    "chunked twice": post(CHUNKED, CHUNKED, body=CHUNKS + SMUGGLED),
    "chunked twice in a list": post(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS + SMUGGLED),
    "a quoted coding": post(b'Transfer-Encoding: "chunked"\r\n', body=CHUNKS + SMUGGLED),
    "a vertical tab before the coding": post(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKS + SMUGGLED),
    "two lengths": post(LENGTH, b"Content-Length: 5\r\n", body=BODY + SMUGGLED),
    "the same length twice": post(LENGTH, LENGTH, body=BODY + SMUGGLED),
    "a list of lengths": post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), body=BODY + SMUGGLED),
    "a length with a sign": post(b"Content-Length: +%d\r\n" % len(BODY), body=BODY + SMUGGLED),
    "a negative length": post(b"Content-Length: -1\r\n", body=BODY + SMUGGLED),
    "a length in hexadecimal": post(b"Content-Length: 0x%x\r\n" % len(BODY), body=BODY + SMUGGLED),
    "a length with an underscore": post(b"Content-Length: 1_0\r\n", body=BODY + SMUGGLED),
    "no length after its name": post(b"Content-Length:\r\n", body=SMUGGLED),
    "a length in other digits": post("Content-Length: ٥\r\n".encode(), body=BODY + SMUGGLED),
    "a folded header": post(LENGTH, b"X-One: 1\r\n two\r\n"),
    "a folded first header": post(LENGTH, host=b" X: 1\r\n" + HOST),
    "a space before the colon": post(b"Content-Length : %d\r\n" % len(BODY), body=BODY + SMUGGLED),
    "a space in a name": post(LENGTH, b"Transfer Encoding: chunked\r\n", body=BODY + SMUGGLED),
    "no colon": post(LENGTH, b"Transfer-Encoding\r\n", body=BODY + SMUGGLED),
    "bare line feeds": post(LENGTH).replace(b"\r\n", b"\n"),
    "one bare line feed": post(LENGTH, b"X-One: 1\nTransfer-Encoding: chunked\r\n", body=BODY + SMUGGLED),
    "a bare carriage return": post(LENGTH, b"X-One: 1\rTransfer-Encoding: chunked\r\n", body=BODY + SMUGGLED),
    "NUL in a value": post(LENGTH, b"X-One: a\x00b\r\n"),
    "NUL in a name": post(LENGTH, b"X-\x00One: a\r\n"),
    "NUL in the target": post(LENGTH, line=b"POST /v1/chat/completions\x00 HTTP/1.1\r\n"),
    "two hosts": post(LENGTH, HOST),
    "no host": post(LENGTH, host=b""),
    "chunks in HTTP/1.0": post(CHUNKED, line=POST.replace(b"1.1", b"1.0"), body=CHUNKS + SMUGGLED),
    "a version that is none": post(LENGTH, line=POST.replace(b"1.1", b"1.1.1")),
    "HTTP/0.9": post(LENGTH, line=b"POST /v1/chat/completions\r\n"),
    "two spaces in the request line": post(LENGTH, line=POST.replace(b" HTTP", b"  HTTP")),
    "a chunk size that is none": post(CHUNKED, body=b"zz\r\n" + CHUNKS + SMUGGLED),
    "a chunk size with a sign": post(CHUNKED, body=b"+" + CHUNKS + SMUGGLED),
    "a chunk size in Python's hexadecimal": post(CHUNKED, body=b"0x" + CHUNKS + SMUGGLED),
    "a chunk size with an underscore": post(CHUNKED, body=b"0_" + CHUNKS + SMUGGLED),
    "a space before a chunk size": post(CHUNKED, body=b" " + CHUNKS + SMUGGLED),
    "a chunk larger than its size": post(CHUNKED, body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk without its end": post(CHUNKED, body=b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY) + SMUGGLED),
    "a line feed in a chunk extension": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b";a\nb\r\n", 1) + SMUGGLED),
    "a length in a trailer": post(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 7\r\n\r\n" + SMUGGLED),
    "chunks that end lines with a line feed": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n") + SMUGGLED),
}  # fmt: skip

# What comes out: the status of each answer on the connection, and what the upstream was asked for.
LEGAL = {
    "the request that the others hide": (SMUGGLED, [200], ["hidden"]),
    "an absolute target with another host": (
        post(LENGTH, line=b"POST http://elsewhere/v1/chat/completions HTTP/1.1\r\n"),
        [200],
        ["quick"],
    ),
    "a chunk extension": (post(CHUNKED, body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)), [200], ["quick"]),
    "a trailer": (post(CHUNKED, body=CHUNKS[:-2] + b"X-Sum: 7\r\n\r\n"), [200], ["quick"]),
    "chunked in capitals": (post(b"TRANSFER-ENCODING: Chunked\r\n", body=CHUNKS), [200], ["quick"]),
    "leading zeros of a chunk size": (post(CHUNKED, body=b"000" + CHUNKS), [200], ["quick"]),
    "two requests in a row": (post(LENGTH) + post(LENGTH), [200, 200], ["quick", "quick"]),
    "a request in the body of another": (post(b"Content-Length: %d\r\n" % len(SMUGGLED), body=SMUGGLED), [400], []),
    "a request in a body that nobody wants": (
        post(b"Content-Length: %d\r\n" % len(SMUGGLED), body=SMUGGLED, line=b"GET /healthz HTTP/1.1\r\n"),
        [200],
        [],
    ),
    "a request in a body of chunks that nobody wants": (
        post(CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), line=b"GET /healthz HTTP/1.1\r\n"),
        [200],
        [],
    ),
    "a request in a body of an unknown URL": (
        post(b"Content-Length: %d\r\n" % len(SMUGGLED), body=SMUGGLED, line=b"POST /v1/nothing HTTP/1.1\r\n"),
        [404],
        [],
    ),
    "a request in a body without a right to be read": (
        (POST + HOST + JSON + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)) + SMUGGLED,
        [401],
        [],
    ),
    "a request in a body of another type": (
        (POST + HOST + KEY + b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)) + SMUGGLED,
        [415],
        [],
    ),
    "a request in a body that was to wait": (
        (POST + HOST + JSON + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)) + SMUGGLED,
        [401],
        [],
    ),
}


@pytest.fixture(scope="module")
def up() -> Iterator[Holding]:
    with Holding() as made:
        yield made


@pytest.fixture(scope="module")
def door(worker: str, up: Holding, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that tests send whatever they like."""
    made = start(tmp_path_factory.mktemp("door"), up, worker, {"workers": 1})
    yield made
    made.stop()


def asked(up: Holding, before: int) -> list[str]:
    """What the upstream was asked for after the first so many requests."""
    return up.models()[before:]


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_of_two_meanings_is_refused_and_the_connection_closed(door: Gateway, up: Holding, name: str) -> None:
    before = len(up.requests)
    with door.wire() as wire:
        wire.send(REFUSED[name].replace(PLACE, door.key.encode().ljust(len(PLACE))))
        answer = wire.answer()
        assert answer.status in (400, 501)
        assert answer.whole
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert wire.ended()
    assert asked(up, before) == []
    assert "Traceback" not in door.log


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_request_means_what_the_standard_says(door: Gateway, up: Holding, name: str) -> None:
    request, statuses, models = LEGAL[name]
    before = len(up.requests)
    with door.wire() as wire:
        wire.send(request.replace(PLACE, door.key.encode().ljust(len(PLACE))))
        assert [wire.answer().status for _ in statuses] == statuses
        # The connection is closed, or good for another request: nothing is left over that answers instead.
        with contextlib.suppress(OSError, EOFError):
            assert wire.get("/healthz").json == {"status": "ok"}
    assert asked(up, before) == models
    assert "Traceback" not in door.log
