"""The counters: one contract for every store, alone and shared by processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.counters import Claim, Memory, Rate, Slots, Window
from proxy.counters.lmdb import Lmdb
from proxy.counters.redis import Redis, connect
from proxy.counters.windows import window, zone_of
from proxy.secrets import Secret
from proxy.settings import CountersSettings

NOON = datetime(2026, 3, 18, 12, tzinfo=UTC).timestamp()  # a Wednesday
STORES = ("memory", "lmdb", "redis")

#: A busy machine is no outage.
LONG_S = 20.0


class Bench:
    """A store with a clock that stands still until it is moved."""

    def __init__(self, make):
        self.now = NOON
        self.store = make(lambda: self.now)

    def take(self, *wants):
        claim = Claim(os.urandom(16), list(wants), [])
        self.store.take(claim)
        return claim

    def left(self, bucket):
        """What another claim would find, which takes nothing."""
        claim = self.take((bucket, 0))
        return claim.states[0].left

    def settle(self, claim, *spent):
        self.store.settle([(claim, spent)])


@pytest.fixture(params=STORES)
def bench(request, tmp_path):
    if request.param == "memory":
        made = Bench(lambda clock: Memory(clock, clock))
    elif request.param == "lmdb":
        made = Bench(lambda clock: Lmdb(tmp_path, 1 << 20, steady=clock, wall=clock))
    else:
        server = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        options = CountersSettings(store="redis", url=Secret(server.url))
        made = Bench(lambda clock: Redis(connect(options, 4), clock, LONG_S))
    yield made
    made.store.close()


def test_a_rate_grants_its_burst_at_once_and_then_as_it_comes_back(bench):
    rate = Rate("r", limit=60, burst=10)
    assert [bench.take((rate, 1)).granted for _ in range(12)] == [True] * 10 + [False] * 2
    refused = bench.take((rate, 1))
    assert (refused.refused, refused.wait_s) == (0, 1.0)
    bench.now += 0.999
    assert not bench.take((rate, 1)).granted
    bench.now += 0.001
    assert bench.take((rate, 1)).granted
    assert not bench.take((rate, 1)).granted
    bench.now += 3600
    assert [bench.take((rate, 1)).granted for _ in range(11)] == [True] * 10 + [False]


def test_a_claim_says_what_is_left_and_when_all_is_back(bench):
    rate = Rate("r", limit=600)
    state = bench.take((rate, 150)).states[0]
    assert (state.left, state.reset_s) == (450, 15.0)


def test_an_odd_limit_is_granted_to_the_last_unit(bench):
    rate = Rate("r", limit=7)
    granted = 0
    for _ in range(60_000 // 250):
        granted += sum(bench.take((rate, 1)).granted for _ in range(3))
        bench.now += 0.25
    assert granted == 7 + 6  # the burst, and what came back before the minute was over


def test_what_is_more_than_the_burst_is_never_granted(bench):
    claim = bench.take((Rate("r", limit=100), 101))
    assert (claim.refused, claim.wait_s) == (0, None)
    claim = bench.take((Window("w", 100, "day"), 101))
    assert (claim.refused, claim.wait_s) == (0, None)
    assert bench.take((Rate("r", limit=100), 100)).granted


def test_all_or_nothing_and_the_longest_wait_is_told(bench):
    wide, narrow, slots = Rate("wide", 1000), Rate("narrow", 6), Slots("slots", 1)
    assert bench.take((wide, 1), (narrow, 6), (slots, 1)).granted
    refused = bench.take((wide, 1), (slots, 1), (narrow, 1))
    assert (refused.refused, refused.wait_s) == (2, 10.0)
    assert [(state.left, state.reset_s) for state in refused.states] == [(999, 0.06), (0, 10.0), (0, 60.0)]
    assert bench.left(wide) == 999


def test_settling_counts_the_difference_either_way(bench):
    rate, budget = Rate("r", 1000), Window("w", 1000, "month")
    less, more = bench.take((rate, 500), (budget, 500)), bench.take((rate, 100), (budget, 100))
    bench.settle(less, 20, 20)
    bench.settle(more, 900, 900)
    assert (bench.left(rate), bench.left(budget)) == (80, 80)
    assert bench.take((rate, 81)).wait_s == 0.06


def test_what_was_owed_is_bounded_by_an_hour(bench):
    rate, budget = Rate("r", 60), Window("w", 60, "day")
    claim = bench.take((rate, 1), (budget, 1))
    bench.settle(claim, 2**52, 2**52)
    assert bench.take((rate, 1)).wait_s == 3601
    assert not bench.take((budget, 1)).granted
    bench.now += 3601
    assert bench.take((rate, 1)).granted


def test_what_comes_back_late_is_no_more_than_the_burst(bench):
    rate = Rate("r", 60)
    claim = bench.take((rate, 60))
    bench.now += 60
    bench.settle(claim, 0)
    assert [bench.take((rate, 1)).granted for _ in range(61)] == [True] * 60 + [False]


def test_a_window_begins_anew_at_its_end(bench):
    day, week, month = Window("d", 5, "day"), Window("w", 5, "week"), Window("m", 5, "month")
    assert bench.take((day, 5), (week, 5), (month, 5)).granted
    assert bench.take((day, 1)).wait_s == 12 * 3600
    bench.now += 12 * 3600 - 1
    assert not bench.take((day, 1)).granted
    bench.now += 1
    assert bench.take((day, 1)).granted
    assert bench.take((week, 1)).wait_s == 4 * 86400
    bench.now += 4 * 86400
    assert bench.take((week, 1)).granted
    assert not bench.take((month, 1)).granted
    bench.now = datetime(2026, 4, 1, tzinfo=UTC).timestamp()
    assert bench.take((month, 1)).granted


def test_an_amount_is_settled_in_the_window_where_it_was_taken(bench):
    day = Window("d", 100, "day")
    claim = bench.take((day, 60))
    bench.now += 86400
    assert bench.take((day, 10)).granted
    bench.settle(claim, 80)
    assert bench.left(day) == 90
    bench.now -= 86400
    assert bench.left(day) == 20


def test_a_soft_window_counts_and_never_refuses(bench):
    soft = Window("w", 10, "day", soft=True)
    assert [bench.take((soft, 8)).states[0].left for _ in range(2)] == [2, 0]
    assert bench.left(replace(soft, soft=False)) == 0


def test_slots_come_back_when_released_or_when_their_term_is_over(bench):
    slots = Slots("s", 2, term_s=30)
    first, _ = bench.take((slots, 1)), bench.take((slots, 1))
    assert not bench.take((slots, 1)).granted
    bench.settle(first, 0)
    assert bench.take((slots, 1)).granted
    assert not bench.take((slots, 1)).granted
    bench.now += 30.001
    assert [bench.take((slots, 1)).granted for _ in range(3)] == [True, True, False]


def test_a_renewed_slot_is_held_on_and_a_lost_one_is_taken_again(bench):
    slots = Slots("s", 1, term_s=30)
    claim = bench.take((slots, 1))
    bench.now += 20
    bench.store.renew([(slots, claim.id)])
    bench.now += 20
    assert not bench.take((slots, 1)).granted
    bench.now += 20
    other = bench.take((slots, 1))
    assert other.granted
    bench.store.renew([(slots, claim.id)])
    bench.settle(other, 0)
    assert not bench.take((slots, 1)).granted
    bench.settle(claim, 0)
    assert bench.take((slots, 1)).granted


@pytest.mark.parametrize("jump_s", [-3600, 3600, -86400])
def test_a_clock_that_jumps_hands_out_one_burst_at_most_and_freezes_nothing(bench, jump_s):
    rate, day = Rate("r", 60, 10), Window("d", 15, "day")
    assert bench.take((rate, 10), (day, 10)).granted
    bench.now += jump_s
    granted = sum(bench.take((rate, 1)).granted for _ in range(20))
    assert granted == (10 if jump_s > 0 else 0)
    bench.now += 2
    assert bench.take((rate, 2)).granted
    bench.now = NOON
    assert bench.left(day) == 5


def test_reading_names_every_bucket_and_resetting_forgets_it(bench):
    rate, day, slots = Rate("key=a/r", 60), Window("key=a/w", 100, "day"), Slots("key=b/s", 3)
    claim = bench.take((rate, 10), (day, 40), (slots, 1))
    found = {status.name: (status.kind, status.used) for status in bench.store.read()}
    assert found == {
        "key=a/r": ("rate", 10),
        "key=a/w/day@2026-03-18": ("window", 40),
        "key=b/s": ("slots", 1),
    }
    names = [status.name for status in bench.store.read("key=a")]
    assert sorted(names) == ["key=a/r", "key=a/w/day@2026-03-18"]
    assert bench.store.reset(names) == 2
    assert (bench.left(rate), bench.left(day)) == (60, 100)
    bench.settle(claim, 0, 0, 0)  # what it gives back was forgotten
    assert (bench.left(rate), bench.left(day)) == (60, 100)


def test_restoring_raises_a_window_and_never_lowers_it(bench):
    day = Window("d", 100, "day")
    bench.take((day, 30))
    bench.store.restore([(day, NOON, 20)])
    assert bench.left(day) == 70
    bench.store.restore([(day, NOON, 90), (day, NOON - 86400, 50)])
    assert bench.left(day) == 10
    bench.now -= 86400
    assert bench.left(day) == 50


@pytest.mark.parametrize("name", ["ключ/№1", "a" * 2000, "\ud800", "a\0b", "a*[b]?"])
def test_any_name_is_a_bucket_of_its_own(bench, name):
    one, other = Rate(name, 10), Rate(name + "x", 10)
    assert bench.take((one, 10)).granted
    assert bench.left(other) == 10
    assert not bench.take((one, 1)).granted


steps = st.lists(
    st.tuples(st.sampled_from(["take", "settle"]), st.integers(0, 70), st.integers(0, 90), st.integers(0, 40_000)),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_stores_agree_with_a_model_whatever_happens(redis_server, steps):
    """A rate's level in 60,000ths and a window's sum, kept the simple way."""
    with redis_server.client() as client:
        client.flushall()
    options = CountersSettings(store="redis", url=Secret(redis_server.url))
    benches = [
        Bench(lambda clock: Memory(clock, clock)),
        Bench(lambda clock: Redis(connect(options, 2), clock, LONG_S)),
    ]
    rate, day = Rate("r", 60, 60), Window("d", 200, "day")
    level, used, open_claims = 0, 0, []
    for what, amount, spent, pause_ms in steps:
        if what == "take":
            claims = [bench.take((rate, amount), (day, amount)) for bench in benches]
            fits = level + amount * 60_000 <= 60 * 60_000 and used + amount <= 200
            assert [claim.granted for claim in claims] == [fits, fits]
            if fits:
                level, used = level + amount * 60_000, used + amount
                open_claims.append((amount, claims))
        elif open_claims:
            amount, claims = open_claims.pop()
            for bench, claim in zip(benches, claims, strict=True):
                bench.settle(claim, spent, spent)
            level, used = max(0, level + (spent - amount) * 60_000), used + spent - amount
        for bench in benches:
            bench.now = round(bench.now + pause_ms / 1000, 3)
        level = max(0, level - pause_ms * 60)
    for bench in benches:
        assert bench.left(day) == max(0, 200 - used)
        assert bench.left(rate) == max(0, 60 * 60_000 - level) // 60_000
        bench.store.close()


TAKES = """
import os, sys
from proxy.counters import Claim, Rate, Slots, Window
which, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
clock = lambda: 1773835200.0
if which == "lmdb":
    from pathlib import Path
    from proxy.counters.lmdb import Lmdb
    store = Lmdb(Path(where), 1 << 20, steady=clock, wall=clock)
else:
    from proxy.counters.redis import Redis, connect
    from proxy.secrets import Secret
    from proxy.settings import CountersSettings
    store = Redis(connect(CountersSettings(store="redis", url=Secret(where)), 4), clock, 20.0)
wants = [(Rate("rate", 30_000), 1), (Window("window", 40_000, "day"), 1)]
granted = 0
sys.stdin.readline()
for _ in range(count):
    claim = Claim(os.urandom(16), wants, [])
    store.take(claim)
    granted += claim.granted
print(granted)
"""


@pytest.mark.parametrize("which", ["lmdb", "redis"])
def test_eight_processes_are_granted_exactly_the_limit(which, tmp_path, request):
    where = str(tmp_path)
    if which == "redis":
        server = request.getfixturevalue("redis_server")
        where = server.url
        with server.client() as client:
            client.flushall()
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES, which, where, "10000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for taker in takers:
        taker.stdin.write("\n")
        taker.stdin.flush()
    granted = [int(taker.communicate()[0]) for taker in takers]
    assert sum(granted) == 30_000


def test_windows_follow_the_time_zone_also_when_a_day_has_another_length():
    berlin = ZoneInfo("Europe/Berlin")
    spring = datetime(2026, 3, 29, 12, tzinfo=berlin).timestamp()
    label, begins, ends = window("day", "Europe/Berlin", spring)
    assert (label, ends - begins) == (b"@2026-03-29", 23 * 3600)
    label, begins, ends = window("week", "America/New_York", NOON)
    assert label == b"@2026-03-16"
    label, begins, ends = window("month", "Asia/Kolkata", datetime(2026, 2, 28, 20, tzinfo=UTC).timestamp())
    assert label == b"@2026-03-01"
    assert datetime.fromtimestamp(ends, ZoneInfo("Asia/Kolkata")).isoformat() == "2026-04-01T00:00:00+05:30"


def test_an_unknown_time_zone_is_named():
    with pytest.raises(ValueError, match="no time zone is called 'Mars/Olympus'"):
        zone_of("Mars/Olympus")


@pytest.mark.parametrize("limit", [0, -1, 1.5, "7", True, 2**60])
def test_a_limit_that_is_none_cannot_be_made(limit):
    for make in (lambda: Rate("r", limit), lambda: Slots("s", limit), lambda: Window("w", limit, "day")):
        with pytest.raises(ValueError, match="a limit is a whole number"):
            make()
    with pytest.raises(ValueError, match="a window is a day"):
        Window("w", 1, "year")
