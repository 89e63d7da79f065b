"""Budgets in money, through the plugin."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from marshmallow import ValidationError

from plugins.budget import Budget
from proxy import Identity
from proxy.costs.prices import Prices
from proxy.counters import Memory, Unavailable
from proxy.settings import TeamSettings
from proxy.testing import Raw, Rig, completion, configured, stream

NOON = datetime(2026, 3, 18, 12, tzinfo=UTC).timestamp()
#: A dollar for a token: what an answer costs is seen at a glance. The prompt is free.
DOLLAR = {"input": 0, "output": 1_000_000}


class Priced(Rig):
    """A rig whose model has a price, and whose windows run by a clock that stands still until it is moved."""

    def __init__(self, *plugins, prices=DOLLAR, **options):
        super().__init__(*plugins, **options)
        self.now = NOON
        self.gateway.counters.store = Memory(lambda: self.now, lambda: self.now)
        own = {} if prices is None else {"upstream/*": prices}
        self.gateway.prices = Prices(replace(self.gateway.settings, prices=own), [])

    def spend(self, usd, most=None, **how):
        """Have one answer that costs so many dollars, and may cost `most`."""
        request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": most or usd}
        return self.run(request, completion("Hi", usage=(1, usd)), **how)

    def used(self):
        return {status.name: status.used // 10**6 for status in self.gateway.counters.store.read()}


def budget(usd=10, window="day", **options):
    return configured(Budget, budget={"usd": usd, "window": window}, **options)


def test_what_is_spent_is_gone_until_the_window_ends():
    with Priced(budget(10)) as rig:
        assert [rig.spend(4).status for _ in range(3)] == [200, 200, 429]
        assert rig.spend(2).status == 200
        refused = rig.spend(1)
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 10}
        rig.now += 12 * 3600
        assert rig.spend(4).status == 200
    error = refused.json["error"]
    assert (refused.status, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert error["message"].startswith("The budget of 10.00 USD a day, counted by key, is used up.")
    assert refused.headers["x-lockgate-limit"] == "budget; scope=key"
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["retry-after"] == str(12 * 3600 + 1)
    assert refused.sent == []


def test_what_may_be_spent_is_set_aside_and_what_was_not_comes_back():
    with Priced(budget(10)) as rig:
        running = rig.start(
            {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
            stream("Hello", usage=(1, 2)),
            stream=True,
        )
        running.step()
        assert rig.spend(2).status == 429
        running.finish()
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 2}
        assert rig.spend(8).status == 200


def test_a_window_is_exceeded_by_its_last_reservation_at_most():
    with Priced(budget(10)) as rig:
        assert rig.spend(500, most=9).status == 200  # the upstream kept to no bound
        assert rig.spend(1).status == 429
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 500}


@pytest.mark.parametrize(
    "answer", [Raw(500, (b"{}",)), Raw(400, (b"{}",)), Raw(429, (b"{}",)), ConnectionError("gone")]
)
def test_what_no_upstream_charges_for_is_given_back(answer):
    with Priced(budget(10)) as rig:
        assert rig.run({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}, answer).status >= 400
        assert set(rig.used().values()) <= {0}
        assert rig.spend(10).status == 200


def test_more_than_the_whole_budget_is_refused_for_good():
    with Priced(budget(10)) as rig:
        refused = rig.spend(1, most=2**40)
        assert (refused.status, "retry-after" in refused.headers) == (429, False)
        assert "more than the whole budget" in refused.json["error"]["message"]


def test_a_soft_budget_warns_and_refuses_nothing():
    with Priced(budget(10, soft=True)) as rig:
        answers = [rig.spend(4) for _ in range(4)]
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 16}
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.headers.get("x-lockgate-budget") for answer in answers] == [
        None,
        "80%; scope=key",
        "100%; scope=key",
        "100%; scope=key",
    ]


@pytest.mark.parametrize("most", [2**40, 2**62])
def test_an_absurd_expectation_takes_nothing_from_what_a_soft_budget_has_counted(most):
    with Priced(budget(10, soft=True)) as rig:
        rig.spend(4)
        assert rig.spend(3, most=most).status == 200
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 7}


def test_the_fullest_of_several_budgets_is_told():
    scopes = {"team": {"usd": 11, "window": "day"}, "model": {"usd": 10.5, "window": "day"}}
    with Priced(budget(10, scopes=scopes)) as rig:
        assert rig.spend(9).headers["x-lockgate-budget"] == "90%; scope=key"


def test_a_caller_without_a_key_counts_against_its_own_budget_and_that_of_its_address():
    plugin = budget(10, scopes={"address": {"usd": 100, "window": "day"}})
    with Priced(plugin, identity=None, model={"public": True}) as rig:
        assert [rig.spend(2, most=6).status for _ in range(5)] == [200, 200, 200, 429, 429]
        assert rig.used() == {
            "budget/budget/keyless=127.0.0.1/day@2026-03-18": 6,
            "budget/budget/address=127.0.0.1/day@2026-03-18": 6,
        }


def test_a_hard_budget_warns_at_80_percent_too():
    with Priced(budget(10)) as rig:
        assert "x-lockgate-budget" not in rig.spend(7).headers
        assert rig.spend(1).headers["x-lockgate-budget"] == "80%; scope=key"
        near = rig.gateway.metrics.counter("lockgate_budget_near_total", Budget.NEAR, ("plugin", "scope"))
        assert near.labels("budget", "key").value == 1


def test_scopes_count_apart_and_all_must_have_room():
    scopes = {"team": {"usd": 15, "window": "month"}, "key+model": {"usd": 8, "window": "week"}}
    with Priced(budget(10, scopes=scopes)) as rig:
        assert [rig.spend(8).status, rig.spend(1).status] == [200, 429]
        assert rig.used() == {
            "budget/budget/key=tester/day@2026-03-18": 8,
            "budget/budget/team=testers/month@2026-03-01": 8,
            "budget/budget/key=tester+model=*/week@2026-03-16": 8,
        }


def test_a_keys_own_budget_goes_before_its_teams_and_this_before_the_plugins():
    def own(usd):
        return {"budget": {"amount": usd * 10**6, "window": "day"}}

    granted = {}
    for identity in (
        Identity("one", team="search", limits=own(1)),
        Identity("two", team="search"),
        Identity("three", team="unknown"),
    ):
        with Priced(budget(3), identity=identity) as rig:
            rig.gateway.teams._configured["search"] = TeamSettings("search", {}, own(2))
            granted[identity.subject] = [rig.spend(1).status for _ in range(5)].count(200)
    assert granted == {"one": 1, "two": 2, "three": 3}


def test_days_begin_at_midnight_of_the_time_zone():
    with Priced(budget(10, zone="Asia/Tokyo")) as rig:
        assert [rig.spend(10).status, rig.spend(1).status] == [200, 429]
        rig.now += 3 * 3600  # midnight in Tokyo
        assert rig.spend(1).status == 200


def test_a_model_without_a_price_is_refused():
    with Priced(budget(10), prices=None) as rig:
        refused = rig.spend(1)
    assert (refused.status, refused.json["error"]["code"], refused.sent) == (403, "model_unpriced", [])


def test_a_model_without_a_price_may_be_free_and_that_is_told(caplog):
    for unpriced in ("free", "flag"):
        with Priced(budget(10, unpriced=unpriced), prices=None) as rig:
            answers = [rig.spend(1), rig.spend(1)]
            assert [answer.exchange.findings for answer in answers] == [{"budget.unpriced": 1}] * 2
            assert [answer.headers.get("x-lockgate-unpriced") for answer in answers] == (
                ["true"] * 2 if unpriced == "flag" else [None] * 2
            )
            assert sum(rig.used().values()) == 0
    warnings = [record for record in caplog.records if record.name == "lockgate.budget"]
    assert len(warnings) == 1


def test_where_only_the_target_that_answered_has_no_price_what_was_set_aside_is_spent():
    plugin = budget(10)
    with Priced(plugin) as rig:
        rig.gateway.prices.cost = lambda *_: None
        result = rig.run({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}, completion("Hi"))
        assert result.exchange.cost is None
        assert result.exchange.findings == {"budget.unpriced": 1}
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 4}


def test_settling_twice_counts_once():
    plugin = budget(10)
    with Priced(plugin) as rig:
        result = rig.spend(3, most=5)
        plugin.on_complete(result.exchange)
        assert rig.used() == {"budget/budget/key=tester/day@2026-03-18": 3}


def test_a_usage_that_is_missing_is_estimated_and_counts():
    with Priced(budget(5000)) as rig:
        request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000}
        result = rig.run(request, stream("word " * 400, usage=None), stream=True)
        assert result.exchange.usage.estimated
        assert 300 < rig.used()["budget/budget/key=tester/day@2026-03-18"] < 900


class Gone:
    """A Redis that is out of reach."""

    wait_s = 0.05

    def take(self, claim):
        raise Unavailable("it is gone", divide=True)

    def probe(self):
        self.take(None)

    def close(self):
        pass


def test_with_the_store_down_a_hard_budget_is_closed_and_a_soft_one_goes_on(caplog):
    caplog.set_level(logging.CRITICAL)
    with Priced(budget(10)) as rig:
        rig.gateway.counters.store = Gone()
        refused = rig.spend(1)
    assert (refused.status, refused.json["error"]["code"]) == (503, "counters_unavailable")
    with Priced(budget(10, soft=True)) as rig:
        rig.gateway.counters.store = Gone()
        answer = rig.spend(1)
    assert (answer.status, answer.headers["x-lockgate-counters"]) == (200, "local")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": {"usd": 0, "window": "day"}}, "usd must be a number above 0"),
        ({"budget": {"usd": -5, "window": "day"}}, "usd must be a number above 0"),
        ({"budget": {"usd": 5, "window": "year"}}, "window must be one of"),
        ({"budget": 5}, "must be"),
        ({"scopes": {"user": {"usd": 5, "window": "day"}}}, "unknown scope 'user'"),
        ({"zone": "Mars/Olympus"}, "no time zone is called 'Mars/Olympus'"),
        ({"unpriced": "maybe"}, "unpriced"),
        ({"soft": "no"}, "soft"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValidationError) as failure:
        configured(Budget, **options)
    assert said in str(failure.value)
