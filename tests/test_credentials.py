"""Bad credentials at the door of a real gateway: one answer for all of them, in one place, and not too often."""

from __future__ import annotations

import json

import pytest
from gateways import ECHO, Gateway, new_key
from wire import Wire

from proxy.access.credentials import check, presented, unauthorized
from proxy.access.throttle import BURST
from proxy.errors import Reject
from proxy.exchange import Exchange

HI = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
WRONG = {
    "message": "Incorrect API key provided. Ask the people who run this gateway for a valid one.",
    "type": "invalid_request_error",
    "param": None,
    "code": "invalid_api_key",
}
SECRET = "lg_abcdefghijkl_" + "s" * 43


@pytest.fixture(scope="module")
def busy(worker, tmp_path_factory):
    """A gateway of which every test has its own address to be wrong from."""
    made = Gateway(tmp_path_factory.mktemp("credentials"), ECHO, worker=worker, server={"proxied": True})
    yield made
    made.stop()


@pytest.fixture
def wire(busy):
    with busy.wire() as made:
        yield made


def ask(wire: Wire, authorization: str | None, address: str = "", **headers: str):
    return wire.post(HI, authorization=authorization, x_forwarded_for=address or "192.0.2.1", **headers)


def revoked_and_expired(gateway: Gateway) -> list[str]:
    import contextlib
    import time

    from proxy.access import keys
    from proxy.config import assemble
    from proxy.records.database import Database, location

    expired = new_key(gateway.config, "expired", expires=time.time() - 1)
    revoked = new_key(gateway.config, "revoked")
    settings, _ = assemble(gateway.config)
    with contextlib.closing(Database(location(settings))) as database, database.write() as connection:
        [id] = [key.id for key in keys.read_all(connection) if key.name == "revoked"]
        keys.revoke(connection, id)
    return [expired, revoked]


def test_every_wrong_credential_gets_the_same_answer(busy, wire):
    tokens = [
        *revoked_and_expired(busy), SECRET, "lg_", "lg_x", "lg_é\xff", "sk-proj-123", "'; DROP TABLE keys; --",
        "lg_' OR '1'='1", "eyJhbGciOiJub25lIn0.e30.", "a.b.c", "null", busy.key[:-1], busy.key + "x", busy.key.upper(),
        "x" * 8000, "lg_" + "x" * 30000,
    ]  # fmt: skip
    answers = [ask(wire, f"Bearer {token}") for token in tokens] + [ask(wire, "Basic dXNlcjpwYXNz"), ask(wire, "x")]
    seen = {(a.status, a.body, a.headers["www-authenticate"], a.headers["content-length"]) for a in answers}
    assert len(seen) == 1
    assert (answers[0].status, answers[0].json["error"]) == (401, WRONG)
    assert {frozenset(answer.headers) for answer in answers} == {frozenset(answers[0].headers)}


def test_no_credential_is_told_apart(wire):
    answer = ask(wire, None)
    assert (answer.status, answer.json["error"]["code"]) == (401, None)
    assert answer.json["error"]["message"].startswith("Missing bearer authentication in header")


@pytest.mark.parametrize("first", [True, False])
def test_two_credentials_are_none(busy, wire, first):
    pair = [f"Bearer {busy.key}", f"Bearer {SECRET}"]
    one, two = pair if first else reversed(pair)
    raw = json.dumps(HI).encode()
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    wire.send(
        f"POST /v1/chat/completions HTTP/1.1\r\n{head}Authorization: {one}\r\nAuthorization: {two}\r\n\r\n".encode()
        + raw
    )
    answer = wire.answer()
    assert (answer.status, answer.json["error"]["code"]) == (400, "several_credentials")
    assert busy.key.encode() not in answer.body and SECRET.encode() not in answer.body


@pytest.mark.parametrize("value", [b"Bearer lg_\0abc", b"Bearer lg_\x01", b"Bearer a\rb"])
def test_what_no_header_may_hold_is_no_request(wire, value):
    wire.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: " + value + b"\r\n\r\n")
    assert wire.answer().status == 400


def test_a_token_of_a_megabyte_is_no_request(busy):
    with busy.wire() as wire:
        try:
            ask(wire, "Bearer " + "x" * 2**20)
        except (ConnectionError, EOFError):
            return
    with busy.wire() as wire:
        wire.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"x" * (40 << 10) + b"\r\n\r\n")
        assert wire.answer().status == 431


@pytest.mark.parametrize(
    "query",
    [
        f"key={SECRET}", f"api_key={SECRET}", f"API-Key={SECRET}", f"x-api-key={SECRET}", f"access_token={SECRET}",
        f"a=b&token={SECRET}", f"a=b;apikey={SECRET}", f"authorization=Bearer%20{SECRET}", f"%6b%65y={SECRET}",
        f"user={SECRET}", f"x=Bearer+{SECRET}", "x=eyJhbGciOi", "q=sk-proj-1",
    ],
)  # fmt: skip
def test_a_credential_in_the_url_is_refused_and_not_repeated(busy, wire, query):
    for path in ("/v1/chat/completions", "/v1/models"):
        answer = wire.post(HI, f"{path}?{query}") if "chat" in path else wire.get(f"{path}?{query}")
        assert (answer.status, answer.json["error"]["code"]) == (400, "credential_in_url")
        assert "Authorization: Bearer" in answer.json["error"]["message"]
        assert SECRET.encode() not in answer.body
    assert SECRET not in busy.log


@pytest.mark.parametrize(
    "query", ["", "api-version=2024-10-21", "limit=20&order=desc", "key=", "a&b", "%zz=%ff", "monkey=1"]
)
def test_other_queries_are_ignored(wire, query):
    assert wire.post(HI, f"/v1/chat/completions?{query}").status == 200


def test_two_headers_count_only_where_they_are_bearer_tokens():
    check({"authorization": 'Digest username="a", realm="b"'}, "")
    check({}, "")
    with pytest.raises(Reject):
        check({"authorization": "bearer a,b"}, "")


def test_what_counts_as_a_credential():
    for sent, counts in (("Bearer x", True), ("", True), (None, False)):
        exchange = Exchange("id", "GET", "/", {} if sent is None else {"authorization": sent}, "")
        assert presented(exchange) is counts
        assert unauthorized(exchange).code == ("invalid_api_key" if counts else None)


def test_an_address_that_is_wrong_too_often_is_told_to_wait_and_right_callers_are_not(busy, wire):
    address = "192.0.2.77"
    answers = [ask(wire, f"Bearer lg_{number}", address) for number in range(BURST + 10)]
    assert [answer.status for answer in answers[:BURST]] == [401] * BURST
    slowed = answers[-1]
    assert (slowed.status, slowed.json["error"]["code"]) == (429, "too_many_incorrect_credentials")
    assert 1 <= int(slowed.headers["retry-after"]) <= 3
    assert slowed.json["error"]["type"] == "rate_limit_error"
    assert ask(wire, f"Bearer {busy.key}", address).status == 200, "a right one passes from the same address"
    assert ask(wire, None, address).status == 401, "who sends none is not wrong about it"
    assert ask(wire, "Bearer lg_other", "192.0.2.78").status == 401
    assert ask(wire, "Bearer sk-other", address).status == 429, "whichever plugin would have refused it"
