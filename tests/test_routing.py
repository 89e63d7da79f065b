"""Which target is asked, when another one is, and when one is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from gateways import Gateway
from upstreams import End, Upstream, json_answer, sse, stream_answer

from proxy.errors import UpstreamError
from proxy.routing import Breaker, Route, Target, counts_against
from proxy.settings import Retry, Timeouts
from proxy.testing import completion, stream


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def target(label: str, weight: float | None = None, breaker: Breaker | None = None) -> Target:
    anything: Any = None
    return Target(label, anything, anything, None, Timeouts(), breaker or Breaker(0, 1), weight)


def busy(retry_after: str | None = None) -> UpstreamError:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return UpstreamError(429, "rate_limit_exceeded", "busy", headers=headers, same_target=True)


LOST = UpstreamError(502, "upstream_connection_lost", "lost")


def tried(route: Route, error: UpstreamError) -> list[tuple[str, float]]:
    """Walk a route on which every target fails alike."""
    seen = []
    for each, wait_s in route:
        seen.append((each.label, wait_s))
        route.failed(each, error)
    return seen


def test_targets_are_tried_in_order_and_once_each() -> None:
    route = Route([target("a"), target("b")], Retry(attempts=5))
    assert tried(route, LOST) == [("a", 0.0), ("b", 0.0)]


def test_no_more_attempts_are_made_than_allowed() -> None:
    route = Route([target("a"), target("b"), target("c")], Retry(attempts=2))
    assert [label for label, _ in tried(route, busy())] == ["a", "b"]


def test_a_target_is_tried_again_only_where_that_is_safe_and_with_backoff() -> None:
    retry = Retry(attempts=4, backoff=0.5, longest_wait=10)
    assert tried(Route([target("a")], retry, draw=lambda: 1.0), busy()) == [
        ("a", 0.0),
        ("a", 0.5),
        ("a", 1.0),
        ("a", 2.0),
    ]
    assert tried(Route([target("a")], retry, draw=lambda: 0.5), busy()) == [
        ("a", 0.0),
        ("a", 0.25),
        ("a", 0.5),
        ("a", 1.0),
    ]
    assert tried(Route([target("a")], retry), LOST) == [("a", 0.0)]


def test_an_upstream_that_asks_for_time_gets_it_or_is_not_tried_again() -> None:
    retry = Retry(attempts=2, backoff=0.1, longest_wait=2)
    assert tried(Route([target("a")], retry), busy("2")) == [("a", 0.0), ("a", 2.0)]
    assert tried(Route([target("a")], retry), busy("3")) == [("a", 0.0)]


def test_the_first_target_is_drawn_by_weight_and_the_others_follow_in_order() -> None:
    targets = [target("a", 1), target("b", 3), target("c")]
    firsts = Counter()
    for step in range(100):
        order = [label for label, _ in tried(Route(targets, Retry(), draw=lambda step=step: step / 100), LOST)]
        firsts[order[0]] += 1
        assert order == {"a": ["a", "b", "c"], "b": ["b", "a", "c"]}[order[0]]
    assert firsts == {"a": 25, "b": 75}


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    clock = Clock()
    breaker = Breaker(3, 10, clock)
    for _ in range(2):
        breaker.note(failed=True)
    breaker.note(failed=False)
    for _ in range(3):
        assert breaker.admits()
        breaker.note(failed=True)
    assert (breaker.state, breaker.admits(), breaker.wait_s()) == ("open", False, 10)
    clock.now = 10
    assert breaker.state == "half-open"
    assert breaker.admits()
    assert not breaker.admits()
    breaker.note(failed=True)
    assert (breaker.state, breaker.admits()) == ("open", False)
    clock.now = 20
    assert breaker.admits()
    breaker.note(failed=False)
    assert (breaker.state, breaker.admits(), breaker.admits()) == ("closed", True, True)


def test_a_probe_that_tells_nothing_makes_room_for_another() -> None:
    clock = Clock()
    breaker = Breaker(1, 10, clock)
    breaker.note(failed=True)
    clock.now = 10
    assert breaker.admits()
    breaker.leave()
    assert breaker.admits()


def test_a_target_whose_breaker_is_open_is_passed_over() -> None:
    broken = Breaker(1, 10)
    broken.note(failed=True)
    route = Route([target("a", breaker=broken), target("b")], Retry())
    assert tried(route, LOST) == [("b", 0.0)]


@pytest.mark.parametrize(
    ("status", "counts"),
    [(400, False), (404, False), (409, False), (429, False), (502, True), (503, True), (504, True)],
)
def test_limits_and_wrong_requests_do_not_speak_against_a_target(status: int, counts: bool) -> None:
    assert counts_against(UpstreamError(status, "code", "message")) is counts


CONFIG = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[providers.one]
use = "openai"
base_url = "{one}"
breaker = {{ failures = {failures}, open = 60 }}
[providers.two]
use = "openai"
base_url = "{two}"
breaker = {{ failures = {failures}, open = 60 }}
[models.both]
targets = ["one/first", "two/second"]
[models.alone]
targets = ["one/first"]
[models.again]
targets = ["one/first"]
retry = {{ attempts = 3, backoff = 0.01 }}
[models.shared]
targets = [{{ to = "one/first", weight = 1 }}, {{ to = "two/second", weight = 1 }}]
"""


def config(one: Upstream, two: Upstream, failures: int = 2) -> str:
    return CONFIG.format(one=one.url, two=two.url, failures=failures)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream, Upstream]]:
    """A gateway without breakers, and the two upstreams behind it."""
    with Upstream() as one, Upstream() as two:
        gateway = Gateway(tmp_path_factory.mktemp("both"), config(one, two, failures=0))
        yield gateway, one, two
        gateway.stop()


def ask(model: str, streamed: bool = False) -> dict:
    return {"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Hi"}]}


FAILURES = {
    "a server error": lambda: json_answer({}, status=500),
    "overload": lambda: json_answer({}, status=503),
    "a rate limit": lambda: json_answer({"error": {"message": "slow"}}, status=429),
    "a conflict": lambda: json_answer({}, status=409),
    "a time-out": lambda: json_answer({}, status=408),
    "refused credentials": lambda: json_answer({}, status=401),
    "a closed connection": lambda: [End("fin")],
    "a reset connection": lambda: [End("rst")],
    "a stream without events": lambda: stream_answer(b""),
    "a stream that begins with an error": lambda: stream_answer(sse([{"error": {"message": "x"}}], done=False)),
    "a page": lambda: json_answer(b"<html>"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("streamed", [False, True])
def test_another_target_answers_when_one_fails_before_its_first_event(
    failure: str, streamed: bool, both: tuple[Gateway, Upstream, Upstream]
) -> None:
    gateway, one, two = both
    one.scripts = [lambda _: FAILURES[failure]()]
    with gateway.wire() as wire:
        answer = wire.post(ask("both", streamed))
        wire.get("/healthz")
    assert answer.status == 200
    assert answer.whole
    assert answer.headers["x-lockgate-target"] == "two/second"
    assert answer.headers["x-lockgate-attempts"] == "2"
    assert two.requests[-1].json["model"] == "second"
    record = gateway.records()[-1]
    assert [attempt[0] for attempt in record["attempts"]] == ["one/first", "two/second"]
    assert record["attempts"][0][2] is not None
    assert record["target"] == "two/second"
    # What the first one said must not show in the record of the second.
    assert record["finish"] == {"0": "stop"}
    assert record["code"] is None


def test_a_target_that_keeps_failing_is_left_alone(start_gateway: Callable[..., Gateway]) -> None:
    with Upstream(lambda _: json_answer({}, status=500)) as one, Upstream() as two:
        gateway = start_gateway(config(one, two))
        with gateway.wire() as wire:
            for _ in range(4):
                assert wire.post(ask("both")).status == 200
            alone = wire.post(ask("alone"))
        assert len(one.requests) == 2
        assert len(two.requests) == 4
    assert alone.status == 503
    assert alone.json["error"]["code"] == "server_is_overloaded"
    assert 1 <= int(alone.headers["retry-after"]) <= 60


def test_an_upstream_that_is_busy_is_asked_again_and_then_answers(start_gateway: Callable[..., Gateway]) -> None:
    busy_once = [lambda _: json_answer({}, status=429, retry_after="1"), lambda _: json_answer(completion())]
    with Upstream(*busy_once) as one:
        gateway = start_gateway(config(one, one))
        with gateway.wire() as wire:
            answer = wire.post(ask("again"))
    assert answer.status == 200
    assert answer.headers["x-lockgate-attempts"] == "2"


def test_a_request_of_which_bytes_were_sent_is_not_sent_to_the_same_target_again(
    start_gateway: Callable[..., Gateway],
) -> None:
    with Upstream(lambda _: [End("fin")]) as one:
        gateway = start_gateway(config(one, one))
        with gateway.client() as client, pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ask("again"))
        assert len(one.requests) == 1


def test_a_stream_that_has_begun_is_not_moved(start_gateway: Callable[..., Gateway]) -> None:
    with Upstream(lambda _: stream_answer(sse(stream()[:2], done=False))) as one, Upstream() as two:
        gateway = start_gateway(config(one, two))
        with gateway.wire() as wire:
            answer = wire.post(ask("both", streamed=True))
        assert not answer.whole
        assert answer.events[-1]["error"]["code"] == "upstream_stream_cut"
        assert two.requests == []


def test_targets_with_weights_share_the_load(start_gateway: Callable[..., Gateway]) -> None:
    with Upstream() as one, Upstream() as two:
        gateway = start_gateway(config(one, two))
        with gateway.wire() as wire:
            targets = {wire.post(ask("shared")).headers["x-lockgate-target"] for _ in range(64)}
    assert targets == {"one/first", "two/second"}


def test_the_headers_about_targets_can_be_switched_off(start_gateway: Callable[..., Gateway]) -> None:
    with Upstream() as one:
        gateway = start_gateway(config(one, one), server={"target_headers": False})
        with gateway.wire() as wire:
            assert not any(name.startswith("x-lockgate") for name in wire.post(ask("alone")).headers)
