"""More than fits: exchanges, bodies, headers; clients that are slow, leave early or never read; and what they leave."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from crowds import Crowd, Holding, ask, quick, start, until
from gateways import Gateway
from upstreams import Gate
from wire import Answer, Wire

PLACES = 16
BUDGET = 1 << 20
ABORTED = 300
AT_ONCE = 10


@pytest.fixture(scope="module")
def up() -> Iterator[Holding]:
    with Holding() as made:
        yield made


@pytest.fixture(autouse=True)
def gate(up: Holding) -> Iterator[None]:
    """A new gate for each test."""
    up.gate = Gate()
    yield
    up.gate.open()


@pytest.fixture(scope="module")
def small(worker: str, up: Holding, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one worker with few places and little room for bodies."""
    bounds = {"workers": 1, "threads": PLACES, "max_body_bytes": BUDGET, "max_bodies_bytes": BUDGET}
    made = start(tmp_path_factory.mktemp("small"), up, worker, bounds)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def quiet(small: Gateway) -> Iterator[None]:
    """Nothing that a client does is an error of the gateway."""
    yield
    assert "Traceback" not in small.log


def assert_overloaded(answer: Answer) -> None:
    """OpenAI's error, and when to come again."""
    assert answer.status == 503
    assert answer.json["error"]["code"] == "server_is_overloaded"
    assert 1 <= int(answer.headers["retry-after"]) <= 120


def free(gateway: Gateway) -> bool:
    """Whether there is room for a body as large as all bodies together may be."""
    with gateway.wire() as wire:
        answer = wire.post(ask("quick", size_bytes=BUDGET))
        if answer.status != 200:
            assert_overloaded(answer)
            return False
        # An exchange ends after its last byte, but before the next one on its connection.
        return wire.get("/healthz").status == 200


def left(up: Holding, before: int, model: str) -> None:
    """Wait until nobody is asking the upstream for `model` any more, of those who came after the first so many."""
    up.wait_for(lambda: all(r.connection.ended_by for r in up.requests[before:] if r.json["model"] == model))


def test_beyond_the_places_clients_are_told_so_and_served_when_there_is_room(small: Gateway, up: Holding) -> None:
    before = len(up.requests)
    with Crowd(small, PLACES) as crowd:
        assert_overloaded(quick(small))
        with small.client() as client, pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(model="quick", messages=[{"role": "user", "content": "Hi"}])
        assert (refused.value.status_code, refused.value.code) == (503, "server_is_overloaded")
        assert len(up.requests) == before + PLACES
        up.gate.open()
        crowd.assert_whole()
    for _ in range(2 * PLACES):
        assert until(lambda: quick(small).status == 200)


def test_beyond_the_budget_for_bodies_clients_are_told_so_until_it_is_given_back(small: Gateway) -> None:
    whole = ask("quick", size_bytes=BUDGET)
    slow: list[Wire] = []
    assert until(lambda: free(small))

    def other() -> Answer:
        # Bodies are read, and counted, in parts of 64 KiB: there may be room for one that is smaller.
        with small.wire() as wire:
            return wire.post(ask("quick", size_bytes=80_000))

    def full() -> bool:
        # One that comes while another request is there is refused, and sent again.
        if not slow or select.select([slow[-1].socket], [], [], 0)[0]:
            slow.append(small.wire())
            slow[-1].request(whole[:-10], content_length=str(len(whole)))
        # The first may have been refused together with the one that is slow, which then holds nothing.
        return other().status == 503 and other().status == 503

    assert until(full)
    assert_overloaded(other())
    with small.wire() as wire:
        assert wire.get("/healthz").status == 200, "who has no body is served"
        assert wire.get("/v1/models").status == 200
    slow[-1].send(whole[-10:])
    assert slow[-1].answer().status == 200
    for wire in slow:
        wire.close(reset=True)
    assert until(lambda: free(small))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_client_that_leaves_in_its_body_leaves_nothing_behind(small: Gateway, chunked: bool, reset: bool) -> None:
    assert until(lambda: free(small))
    seen = len(small.records())
    for sent in (0, 1, 1000, BUDGET // 2):
        with small.wire() as wire:
            if chunked:
                wire.request(b"", content_length=None, transfer_encoding="chunked")
                wire.send(b"%x\r\n%s" % (BUDGET - 1, bytes(sent)))
            else:
                wire.request(bytes(sent), content_length=str(BUDGET))
            wire.close(reset=reset)
        assert until(lambda: free(small))

    ends = [line for line in small.records()[seen:] if line["kind"] == "end" and not line["complete"]]
    codes = [line["code"] for line in ends if line["code"] != "server_is_overloaded"]
    # A reset may overtake the head of the request, and what asks for room may leave none: then it is told otherwise.
    assert set(codes) <= {"incomplete_body", "client_gone"} and (reset or codes)


def test_slow_bodies_and_clients_that_never_read_stall_nobody_else(small: Gateway, up: Holding) -> None:
    deaf, slow = [small.wire() for _ in range(4)], [small.wire() for _ in range(4)]
    before = len(up.requests)
    for wire in deaf:
        wire.request(ask("endless"))
    for wire in slow:
        wire.request(ask("quick")[:10], content_length=str(len(ask("quick"))))
    up.wait_for(lambda: len(up.requests) == before + len(deaf))
    for _ in range(50):
        assert quick(small).status == 200
    for wire in slow:
        wire.send(ask("quick")[10:])
        assert wire.answer().whole
    for wire in (*deaf, *slow):
        wire.close(reset=True)
    left(up, before, "endless")


@pytest.mark.parametrize("size_bytes", [8 << 10, 16 << 10, 31 << 10])
def test_long_credentials_pass(small: Gateway, size_bytes: int) -> None:
    with small.wire() as wire:
        assert wire.post(ask("quick"), x_token="a" * size_bytes).status == 200
        assert wire.post(ask("quick"), authorization=f"Bearer {'a' * size_bytes}").status == 401


@pytest.mark.parametrize("headers", [{"x_token": "a" * (33 << 10)}, {f"x{n}": "a" for n in range(120)}])
def test_more_headers_than_that_are_refused_as_an_openai_error(small: Gateway, headers: dict[str, str]) -> None:
    with small.wire() as wire:
        answer = wire.post(ask("quick"), **headers)
        assert (answer.status, answer.json["error"]["code"]) == (431, "request_header_fields_too_large")
        assert wire.ended()


def test_clients_that_leave_at_any_moment_leave_no_descriptors_or_threads(small: Gateway, up: Holding) -> None:
    (pid,) = small.worker_pids()
    process = Path(f"/proc/{pid}")

    def held() -> tuple[int, int]:
        assert quick(small).status == 200
        return len(os.listdir(process / "fd")), len(os.listdir(process / "task"))

    before = len(up.requests)
    with Crowd(small, AT_ONCE):
        pass
    left(up, before, "held")
    descriptors, threads = held()
    chance = random.Random(7)
    for _ in range(ABORTED // AT_ONCE):
        wires = [small.wire() for _ in range(AT_ONCE)]
        for wire in wires:
            begin(wire, chance)
        for wire in wires:
            wire.close(reset=chance.random() < 0.5)
    left(up, before, "held")
    # Pooled connections to the upstream and threads stay: as many as there were exchanges at once, no more.
    until(lambda: (now := held())[0] <= descriptors + AT_ONCE and now[1] <= threads + AT_ONCE)
    assert until(lambda: free(small))


def begin(wire: Wire, chance: random.Random) -> None:
    """Take an exchange as far as chance will have it."""
    body = ask(chance.choice(["held", "held", "quick"]))
    moment = chance.randrange(5)
    if moment == 0:
        wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ga")
    elif moment == 1:
        wire.request(body[: chance.randrange(len(body))], content_length=str(len(body)))
    else:
        wire.request(body)
        if moment == 3:
            wire.read_until(b"\r\n\r\n")
        elif moment == 4:
            wire.read_until(b'"Hel')
