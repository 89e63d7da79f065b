"""Wrong credentials from one address: so many are told that they are wrong, the others to wait."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.access.throttle import Throttle, network


def made(burst=3, pause_s=2.0, addresses=100):
    now = [1000.0]
    return Throttle(burst, pause_s, addresses, clock=lambda: now[0]), now


def test_a_burst_is_answered_and_then_one_in_each_pause():
    throttle, now = made()
    assert [throttle.wrong("10.0.0.1") for _ in range(4)] == [0, 0, 0, 2.0]
    now[0] += 1.5
    assert throttle.wrong("10.0.0.1") == 0.5
    now[0] += 0.5
    assert [throttle.wrong("10.0.0.1") for _ in range(2)] == [0, 2.0]
    assert (throttle.refused, throttle.slowed) == (7, 3)


def test_other_addresses_are_not_concerned():
    throttle, _ = made()
    for _ in range(10):
        throttle.wrong("10.0.0.1")
    assert throttle.wrong("10.0.0.2") == 0


def test_an_address_that_kept_quiet_has_its_burst_back():
    throttle, now = made()
    for _ in range(50):
        throttle.wrong("10.0.0.1")
    now[0] += 6.0
    assert [throttle.wrong("10.0.0.1") for _ in range(4)] == [0, 0, 0, 2.0]


def test_asking_on_makes_the_wait_no_longer():
    throttle, now = made()
    for _ in range(100):
        throttle.wrong("10.0.0.1")
    now[0] += 2.0
    assert throttle.wrong("10.0.0.1") == 0


def test_a_bounded_number_of_addresses_is_remembered():
    throttle, _ = made(addresses=10)
    for number in range(1000):
        throttle.wrong(f"10.0.{number // 250}.{number % 250}")
    assert len(throttle) == 10


def test_one_that_goes_on_is_not_forgotten_for_others():
    throttle, _ = made(addresses=10)
    for number in range(100):
        throttle.wrong("10.9.9.9")
        throttle.wrong(f"10.0.0.{number}")
    assert throttle.wrong("10.9.9.9") > 0


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""), ("unix:", ""), ("10.1.2", ""),
    ],
)  # fmt: skip
def test_a_sender_is_an_address_or_the_network_of_one_host(address, sender):
    assert network(address) == sender


@settings(max_examples=50)
@given(st.lists(st.floats(0, 20), max_size=60))
def test_no_more_than_the_burst_and_one_a_pause_are_answered(steps):
    throttle, now = made()
    answered = []
    for step in steps:
        now[0] += step
        if throttle.wrong("10.0.0.1") == 0:
            answered.append(now[0])
    for first, at in enumerate(answered):
        within = [time for time in answered[first:] if time < at + 20]
        assert len(within) <= 3 + 20 / 2.0


def test_threads_share_one_count():
    throttle, _ = made(burst=50)
    passed = []
    threads = [
        threading.Thread(target=lambda: passed.extend(throttle.wrong("10.0.0.1") == 0 for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(passed), throttle.refused) == (50, 200)
