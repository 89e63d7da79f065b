"""The line before a limit: in order, fair among teams, bounded; and what keeps slots held."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from proxy.counters import Claim, Counters, Memory, Rate, Slots, Unavailable
from proxy.counters.scopes import ScopeField, scoped
from proxy.counters.waiting import Waiting
from proxy.errors import Reject
from proxy.exchange import Exchange

RATE, SLOTS = Rate("r", 60), Slots("s", 1)


def until(condition):
    deadline, waiting = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.005)


def refused(name, wait_s):
    return Claim(b"", [(SLOTS, 1)], [], refused=0, wait_s=wait_s)


class Door:
    """Grants to whoever asks as often as it is opened; remembers in which order."""

    def __init__(self, waiting):
        self.waiting = waiting
        self.granted = []
        self._open = 0
        self._lock = threading.Lock()
        self._threads = []

    def come(self, team, name=None, longest_s=20.0):
        """Stand in line, in a thread of its own, and be there before the next one comes."""
        before = self.waiting.count
        thread = threading.Thread(target=self._take, args=(team, name or team, longest_s))
        self._threads.append(thread)
        thread.start()
        until(lambda: self.waiting.count > before)

    def open(self, times):
        """Let so many in, one after the other."""
        for _ in range(times):
            before = len(self.granted)
            with self._lock:
                self._open += 1
            self.waiting.stir()
            until(lambda: len(self.granted) > before)  # noqa: B023
        for thread in self._threads:
            if not self.waiting.count:
                thread.join()

    def attempt(self):
        with self._lock:
            if self._open:
                self._open -= 1
                return Claim(b"", [(SLOTS, 1)], [])
            return Claim(b"", [(SLOTS, 1)], [], refused=0, wait_s=1.0)

    def _take(self, team, name, longest_s):
        claim = self.waiting.take(("s",), team, longest_s, self.attempt, refused)
        if claim.granted:
            with self._lock:
                self.granted.append(name)


def test_the_line_is_in_the_order_of_coming():
    door = Door(Waiting(10, 10))
    for number in range(4):
        door.come("search", number + 1)
    door.open(4)
    assert door.granted == [1, 2, 3, 4]
    assert door.waiting.count == 0


def test_teams_take_turns():
    door = Door(Waiting(10, 10))
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        door.come(name[0], name)
    door.open(6)
    assert door.granted == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_the_line_and_each_teams_part_of_it_are_bounded():
    waiting = Waiting(3, 2)
    door = Door(waiting)
    door.come("a")
    door.come("a")
    assert not waiting.take(("s",), "a", 20.0, door.attempt, refused).granted
    door.come("b")
    assert not waiting.take(("s",), "c", 20.0, door.attempt, refused).granted
    assert waiting.count == 3
    door.open(3)


def test_who_comes_later_does_not_overtake_those_who_wait():
    waiting = Waiting(1, 1)
    door = Door(waiting)
    door.come("a")
    door._open = 1  # what comes free is for the one in line, who has not noticed yet
    assert not waiting.take(("s",), "b", 0.0, door.attempt, refused).granted
    waiting.stir()
    until(lambda: door.granted == ["a"])


def test_nobody_waits_longer_than_allowed():
    waiting = Waiting(10, 10)
    door = Door(waiting)
    began = time.monotonic()
    claim = waiting.take(("s",), "a", 0.2, door.attempt, refused)
    assert not claim.granted
    assert time.monotonic() - began >= 0.2
    assert waiting.count == 0
    assert claim.waited_s >= 0.2


def test_one_who_fails_while_in_line_leaves_it():
    waiting = Waiting(10, 10)
    answers = [Claim(b"", [(SLOTS, 1)], [], refused=0, wait_s=1.0)]

    def attempt():
        if answers:
            return answers.pop()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        waiting.take(("s",), "a", 5.0, attempt, refused)
    assert waiting.count == 0
    assert waiting._lines == {}


def test_one_whose_client_has_left_leaves_the_line():
    waiting, gone = Waiting(10, 10), threading.Event()
    door = Door(waiting)

    def check():
        if gone.is_set():
            raise ConnectionError

    def stand():
        with pytest.raises(ConnectionError):
            waiting.take(("s",), "a", 60.0, door.attempt, refused, check)

    thread = threading.Thread(target=stand)
    thread.start()
    until(lambda: waiting.count == 1)
    gone.set()
    thread.join()
    assert waiting.count == 0


def test_who_is_not_let_into_the_line_is_told_of_its_own_buckets_and_takes_nothing_of_them():
    counters = Counters(Memory(lambda: 1000.0), threads=4)  # one may wait
    team, own, slots = Rate("team", 60, 1), Rate("own", 100), Slots("slots", 5)
    counters.take([(team, 1)])
    over = threading.Event()

    def left():
        return over.is_set()

    def stand():
        with pytest.raises(Reject):
            counters.take_in_line([(team, 1)], "t", 60.0, left=left)

    waiter = threading.Thread(target=stand)
    waiter.start()
    until(lambda: counters.waiting.count == 1)
    claim = counters.take_in_line([(own, 7), (slots, 1), (team, 1)], "t", 60.0)
    assert (claim.granted, claim.refused, claim.wait_s) == (False, 2, 1.0)
    assert [state.left for state in claim.states] == [100, 0, 0]
    assert counters.take([(own, 100)]).granted
    over.set()
    waiter.join()
    counters.close()


def test_slots_are_held_for_as_long_as_they_are_not_settled(monkeypatch):
    monkeypatch.setattr("proxy.counters.upkeep.RENEW_S", 0.05)
    slots = Slots("s", 1, term_s=0.3)
    counters = Counters(Memory())
    claim = counters.take([(slots, 1)])
    waited = threading.Event()
    for _ in range(10):
        waited.wait(0.1)
        assert not counters.take([(slots, 1)]).granted
    counters.settle(claim, 1)
    assert counters.take([(slots, 1)]).granted
    counters.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_one_step_settles_is_counted_at_once_also_when_it_fails(fails):
    def step(exchange):
        for claim in claims:
            counters.settle(claim, 4, 1)
        assert store.settled == []
        if fails:
            raise LookupError

    class Seen(Memory):
        def __init__(self):
            super().__init__(steady=lambda: 1000.0)
            self.settled = []

        def settle(self, settled):
            self.settled.append(len(settled))
            super().settle(settled)

    store = Seen()
    counters, ending = Counters(store), Exchange("req_1", "POST", "/v1/chat/completions", {}, "10.1.2.3")
    # Slots of two plugins, whose claims have ids of their own.
    claims = [counters.take([(RATE, 10), (slots, 1)]) for slots in (SLOTS, Slots("others", 7))]
    with pytest.raises(LookupError) if fails else contextlib.nullcontext():
        counters.together(step, ending)
    assert store.settled == [2]
    assert {status.name: status.used for status in store.read()} == {RATE.name: 8}
    counters.settle(counters.take([(RATE, 1)]), 1)
    assert store.settled == [2, 1]
    counters.close()


class Flaky(Memory):
    """A store that is out of reach when told so."""

    gone = False

    def _do(self, step, *arguments):
        if self.gone:
            raise Unavailable("it is gone", divide=True)
        return super()._do(step, *arguments)

    def probe(self):
        self._do(lambda records: None)


def test_what_was_taken_before_an_outage_stays_taken_and_after_it_all_is_as_before():
    store = Flaky()
    counters = Counters(store, divided=2)
    claim = counters.take([(RATE, 30), (SLOTS, 1)])
    store.gone = True
    local = counters.take([(RATE, 30)], divide=True)
    assert (local.granted, local.local) == (True, True)
    counters.settle(claim, 0, 1)  # nobody can be told
    store.gone = False
    until(lambda: not counters.down)
    counters.settle(local, 0)
    left = counters.take([(RATE, 0)]).states[0].left
    assert 30 <= left <= 45
    counters.close()


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("key", "key=k1"),
        ("key+model", "key=k1+model=gpt-*"),
        ("team", "team=a%2Bb%3Dc%2Fd"),
        ("address", "address=2001:db8:1:2::%2F64"),
    ],
)
def test_a_scope_names_its_bucket_and_nothing_in_it_is_taken_for_another(scope, name):
    facts = {"subject": "k1", "team": "a+b=c/d", "model": "gpt-*", "address": "2001:db8:1:2:3:4:5:6"}
    assert scoped(scope, **facts) == name


@pytest.mark.parametrize(
    ("address", "value"), [("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("unix:", "unix:"), ("", None)]
)
def test_callers_without_a_key_are_told_apart_by_address(address, value):
    facts = {"subject": None, "team": None, "model": None, "address": address}
    assert scoped("key", **facts) == (value and f"keyless={value}")
    assert scoped("key+address", **facts) == (value and f"keyless={value}+address={value}")
    assert scoped("key+team", **facts) is None


def test_the_order_in_a_scope_does_not_matter():
    assert ScopeField().deserialize("model+key") == "key+model"
