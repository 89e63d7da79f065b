"""Limits on requests, tokens and exchanges at once, through the plugin."""

from __future__ import annotations

import threading
from types import MappingProxyType

import pytest
from marshmallow import ValidationError

from plugins.rate_limit import RateLimit, _duration
from proxy import Identity
from proxy.counters import Memory, Unavailable
from proxy.settings import TeamSettings
from proxy.testing import Raw, Rig, completion, configured, stream


class Clocked(Rig):
    """A rig whose limits run by a clock that stands still until it is moved."""

    def __init__(self, *plugins, **options):
        super().__init__(*plugins, **options)
        self.now = 1000.0
        self.gateway.counters.store = Memory(lambda: self.now, lambda: self.now)

    def statuses(self, count, **how):
        return [self.run(**how).status for _ in range(count)]


def limits(**options):
    return configured(RateLimit, **options)


def body(**parameters):
    return {"messages": [{"role": "user", "content": "Hello"}], **parameters}


def used(tokens):
    """An answer whose usage is `tokens`."""
    return completion("Hi", usage=(tokens, 0))


def test_requests_beyond_the_limit_get_openais_429():
    with Clocked(limits(requests_per_minute=2)) as rig:
        assert rig.statuses(2) == [200, 200]
        refused = rig.run()
    assert refused.status == 429
    assert refused.json["error"] == {
        "message": "Rate limit reached: 2 requests a minute, counted by key. Try again in 30s.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert refused.headers["retry-after"] == "30"
    assert refused.headers["x-lockgate-limit"] == "requests; scope=key"
    assert refused.sent == []


def test_every_answer_says_what_is_left():
    with Clocked(limits(requests_per_minute=60, tokens_per_minute=60_000)) as rig:
        answers = [
            rig.run(body(max_tokens=100)),
            rig.run(body(max_tokens=100, stream=True)),
            rig.run(body(max_tokens=100), Raw(400, (b"{}",))),
            rig.run(body(max_tokens=60_000)),
        ]
    assert [answer.status for answer in answers] == [200, 200, 400, 429]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "60"
        assert answer.headers["x-ratelimit-limit-tokens"] == "60000"
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["59", "58", "57", "57"]
    assert [answer.headers["x-ratelimit-reset-requests"] for answer in answers[:3]] == ["1s", "2s", "3s"]
    assert answers[0].headers["x-ratelimit-reset-tokens"].endswith("ms")


def test_an_upstreams_own_429_is_not_mistaken_for_ours():
    with Clocked(limits(requests_per_minute=60)) as rig:
        refused = rig.run(answer=Raw(429, (b'{"error": {"message": "slow down", "type": "requests"}}',)))
    assert refused.status == 429
    assert "x-lockgate-limit" not in refused.headers


def test_tokens_are_taken_before_and_settled_after():
    with Clocked(limits(tokens_per_minute=1000)) as rig:
        assert rig.run(body(max_tokens=600), used(50)).status == 200
        refused = rig.run(body(max_tokens=600), Raw(400, (b"{}",)))  # costs nothing
        assert refused.headers["x-ratelimit-remaining-tokens"] == str(1000 - 50 - 600 - rig_prompt(rig))
        assert rig.run(body(max_tokens=600), used(900)).status == 200
        assert rig.run(body(max_tokens=10), used(10)).status == 200
        late = rig.run(body(max_tokens=100))
    assert late.status == 429
    assert late.json["error"]["type"] == "tokens"
    assert late.json["error"]["code"] == "rate_limit_exceeded"


def rig_prompt(rig):
    return rig.gateway.prompt_tokens(body())


def test_more_than_the_whole_limit_is_refused_for_good():
    with Clocked(limits(tokens_per_minute=1000)) as rig:
        for parameters in ({"max_tokens": 2**62}, {"max_completion_tokens": 1000}, {"max_tokens": 300, "n": 4}):
            refused = rig.run(body(**parameters))
            assert refused.status == 429
            assert refused.headers["x-should-retry"] == "false"
            assert "max_completion_tokens" in refused.json["error"]["message"]
        assert rig.run(body(max_tokens=900)).status == 200


@pytest.mark.parametrize(
    "usage",
    [None, {}, "many", 7, [], {"prompt_tokens": -5, "completion_tokens": -5}, {"prompt_tokens": "12"}],
)
def test_a_usage_that_is_none_never_gives_tokens_away(usage):
    answer = completion("Hi", usage=None)
    if usage is not None:
        answer["usage"] = usage
    with Clocked(limits(tokens_per_minute=1000)) as rig:
        rig.run(body(max_tokens=500), answer)
        left = int(rig.run(body(max_tokens=1)).headers["x-ratelimit-remaining-tokens"])
    assert left <= 1000


def test_a_usage_beyond_the_reservation_is_owed():
    with Clocked(limits(tokens_per_minute=1000)) as rig:
        rig.run(body(max_tokens=10), used(3000))
        refused = rig.run(body(max_tokens=10))
        assert refused.status == 429
        assert 120 < int(refused.headers["retry-after"]) < 125
        rig.now += 125
        assert rig.run(body(max_tokens=10)).status == 200
        rig.run(body(max_tokens=10), used(10**8))
        assert int(rig.run(body(max_tokens=10)).headers["retry-after"]) <= 3700


def test_settling_twice_counts_once():
    plugin = limits(tokens_per_minute=1000)
    with Clocked(plugin) as rig:
        result = rig.run(body(max_tokens=500), used(100))
        claim = rig.gateway.counters.take([], divide=True)
        assert claim.granted
        plugin.on_complete(result.exchange)
        rig.run(body(max_tokens=10), used(0))
        left = rig.run(body(max_tokens=1)).headers["x-ratelimit-remaining-tokens"]
    assert int(left) == 900 - 1 - rig_prompt_of(result)


def rig_prompt_of(result):
    return result.exchange.prompt_estimate


def test_slots_are_taken_for_as_long_as_the_exchange_lasts():
    with Clocked(limits(concurrent=2)) as rig:
        first, second = rig.start(stream=True), rig.start(stream=True)
        first.step()
        second.step()
        refused = rig.run()
        assert (refused.status, refused.headers["x-lockgate-limit"]) == (429, "concurrent; scope=key")
        first.leave()
        assert rig.run().status == 200
        second.finish()
        assert rig.statuses(3) == [200] * 3


def test_a_refused_exchange_takes_nothing_of_any_bucket():
    scopes = {"team": {"requests_per_minute": 1}}
    with Clocked(limits(requests_per_minute=10, concurrent=1, scopes=scopes)) as rig:
        assert rig.statuses(5) == [200, 429, 429, 429, 429]
        left = {status.name: status.used for status in rig.gateway.counters.store.read()}
    assert left == {"rate_limit/requests/key=tester": 1, "rate_limit/requests/team=testers": 1}


def test_a_keys_own_limits_go_before_its_teams_and_these_before_the_plugins():
    one = Identity("one", team="search", limits=MappingProxyType({"requests_per_minute": 1}))
    two = Identity("two", team="search")
    three = Identity("three", team="unknown")
    granted = {}
    for identity in (one, two, three):
        with Clocked(limits(requests_per_minute=3), identity=identity) as rig:
            rig.gateway.teams._configured["search"] = TeamSettings("search", {}, {"requests_per_minute": 2})
            granted[identity.subject] = rig.statuses(5).count(200)
    assert granted == {"one": 1, "two": 2, "three": 3}


def test_scopes_count_apart_and_products_of_them_too():
    scopes = {"key+model": {"requests_per_minute": 2}, "address": {"requests_per_minute": 5}}
    with Clocked(limits(scopes=scopes)) as rig:
        assert rig.statuses(3) == [200, 200, 429]
        names = sorted(status.name for status in rig.gateway.counters.store.read())
    assert names == ["rate_limit/requests/address=127.0.0.1", "rate_limit/requests/key=tester+model=*"]


def test_other_names_for_one_model_are_no_way_around_its_limit():
    with Clocked(limits(scopes={"model": {"requests_per_minute": 2}})) as rig:
        answers = [rig.run(body(model=name)).status for name in ("gpt-a", "gpt-b", "gpt-c")]
    assert answers == [200, 200, 429]


def test_a_burst_is_what_may_come_together():
    with Clocked(limits(requests_per_minute=60, burst=3)) as rig:
        assert rig.statuses(4) == [200, 200, 200, 429]
        rig.now += 1
        assert rig.statuses(2) == [200, 429]


def test_headers_tell_of_the_bucket_of_which_least_is_left_of_what_may_come_together():
    scopes = {"team": {"requests_per_minute": 100}}
    with Clocked(limits(requests_per_minute=1000, burst=5, scopes=scopes)) as rig:
        assert rig.run().headers["x-ratelimit-limit-requests"] == "1000"  # 4 of 5, against 99 of 100
    with Clocked(limits(requests_per_minute=1000, burst=500, scopes=scopes)) as rig:
        answer = rig.run()
    assert answer.headers["x-ratelimit-limit-requests"] == "100"  # 499 of 500, against 99 of 100


def test_a_limit_of_which_four_fifths_are_in_use_is_counted_as_near():
    with Clocked(limits(requests_per_minute=10, concurrent=100)) as rig:
        labels = ("plugin", "kind", "scope")
        near = rig.gateway.metrics.counter("lockgate_limit_near_total", RateLimit.NEAR, labels)
        counted = []
        for _ in range(11):
            rig.run()
            counted.append(near.labels("rate_limit", "requests", "key").value)
        assert near.labels("rate_limit", "concurrent", "key").value == 0
    assert counted == [0] * 7 + [1, 2, 3, 3]


def test_callers_without_a_key_count_by_their_address():
    with Clocked(limits(requests_per_minute=1), identity=None, model={"public": True}) as rig:
        assert rig.statuses(2) == [200, 429]
        assert [status.name for status in rig.gateway.counters.store.read()] == [
            "rate_limit/requests/keyless=127.0.0.1"
        ]


def test_a_caller_without_a_key_has_a_limit_of_its_own_beside_that_of_its_address():
    scopes = {"address": {"requests_per_minute": 6000, "tokens_per_minute": 1000, "concurrent": 5}}
    own = limits(requests_per_minute=1, tokens_per_minute=1000, concurrent=5, scopes=scopes)
    with Clocked(own, identity=None, model={"public": True}) as rig:
        assert rig.statuses(2, request=body(max_tokens=300), answer=used(100)) == [200, 429]
        rig.now += 0.01  # the address has one back
        assert rig.run(body(max_tokens=300)).headers["x-lockgate-limit"] == "requests; scope=keyless"
        spent = {status.name: status.used for status in rig.gateway.counters.store.read()}
    assert spent["rate_limit/tokens/keyless=127.0.0.1"] == spent["rate_limit/tokens/address=127.0.0.1"] == 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -5}, "tokens_per_minute"),
        ({"concurrent": 1.5}, "concurrent"),
        ({"burst": "ten"}, "burst"),
        ({"requests_per_minute": 10**12}, "requests_per_minute"),
        ({"scopes": {"user": {"concurrent": 1}}}, "unknown scope 'user'"),
        ({"scopes": {"key+key": {"concurrent": 1}}}, "unknown scope"),
        ({"scopes": {"key": {"concurrent": 0}}}, "concurrent"),
        (
            {"scopes": {"key+model": {"concurrent": 1}, "model+key": {"concurrent": 2}}},
            "'key+model' and 'model+key' are the same scope",
        ),
        ({"max_wait": -1}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"store_down": "open"}, "store_down"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValidationError) as failure:
        limits(**options)
    assert said in str(failure.value)


class Down:
    """A store that is out of reach."""

    wait_s = 0.05

    def __init__(self, divide):
        self.divide = divide

    def take(self, claim):
        raise Unavailable("it is gone", divide=self.divide)

    def probe(self):
        self.take(None)

    def close(self):
        pass


@pytest.mark.parametrize(("divide", "store_down"), [(True, "closed"), (False, "divide")])
def test_closed_means_closed_and_a_damaged_store_is_always(divide, store_down):
    with Clocked(limits(requests_per_minute=8, store_down=store_down)) as rig:
        rig.gateway.counters.store = Down(divide)
        refused = rig.run()
    assert (refused.status, refused.json["error"]["code"]) == (503, "counters_unavailable")
    assert refused.headers["retry-after"] == "5"


def test_while_the_store_is_down_each_worker_has_its_share(caplog):
    with Clocked(limits(requests_per_minute=8, concurrent=1)) as rig:
        counters, store = rig.gateway.counters, rig.gateway.counters.store
        counters.divided = 4
        counters.store = Down(True)
        answers = [rig.run() for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert {answer.headers["x-lockgate-counters"] for answer in answers} == {"local"}
        counters.store = store
        back = threading.Event()
        while counters.down:
            assert not back.wait(0.02)
        assert rig.statuses(8) == [200] * 8
        assert "x-lockgate-counters" not in rig.run().headers
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "counters: it is gone; until it is back rate limits are divided by 4, hard budgets closed"
    ]


def test_a_request_may_wait_and_says_how_long():
    with Rig(limits(requests_per_minute=600, burst=1, max_wait=5)) as rig:
        first, second = rig.run(), rig.run()
    assert (first.status, second.status) == (200, 200)
    assert "x-lockgate-waited" not in first.headers
    assert 0 < float(second.headers["x-lockgate-waited"]) < 5


def test_nobody_waits_for_what_takes_longer_than_allowed():
    with Clocked(limits(requests_per_minute=2, max_wait=29)) as rig:
        assert rig.statuses(3) == [200, 200, 429]


def test_a_slot_that_is_released_is_waited_for():
    with Rig(limits(concurrent=1, max_wait=20)) as rig:
        running = rig.start(stream=True)
        running.step()
        found = []
        waiter = threading.Thread(target=lambda: found.append(rig.run()))
        waiter.start()
        while not rig.gateway.counters.waiting.count:
            assert not threading.Event().wait(0.01)
        running.finish()
        waiter.join()
    assert found[0].status == 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.012, "12ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3661.25, "1h1m1.25s")],
)
def test_durations_have_openais_form(seconds, text):
    assert _duration(seconds) == text


def test_a_stream_without_usage_counts_what_was_relayed():
    with Clocked(limits(tokens_per_minute=10_000)) as rig:
        rig.run(body(max_tokens=5000), stream("word " * 400, usage=None), stream=True)
        left = int(rig.run(body(max_tokens=1)).headers["x-ratelimit-remaining-tokens"])
    assert 9000 < left < 9900
