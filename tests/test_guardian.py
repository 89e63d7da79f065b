"""Who has left, what is late, and that nobody else is hurt."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from proxy import sockets
from proxy.call import Call
from proxy.guardian import Guardian

SECONDS = 20.0


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    made = Guardian()
    yield made
    made.stop()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and the server's side of it."""
    client, server = socket.socketpair()
    with client, server:
        yield client, server


Pair = tuple[socket.socket, socket.socket]


def blocked(call: Call) -> bytes:
    """Wait for an upstream that says nothing; return what the guardian's shutdown makes of the read."""
    upstream, silent = sockets.pair()
    upstream.settimeout(SECONDS)
    with upstream, silent:
        call.attach(upstream)
        call.wait()
        try:
            return upstream.recv(1)
        finally:
            call.woke()
            call.detach()


def test_a_client_that_closes_ends_the_wait_for_the_upstream(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    call = guardian.watch(server)
    client.close()
    assert blocked(call) == b""
    assert call.why == "client_gone"
    call.close()
    server.close()


def test_a_half_close_counts_as_gone(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    call = guardian.watch(server)
    client.shutdown(socket.SHUT_WR)
    assert blocked(call) == b""
    assert call.why == "client_gone"
    call.close()


def test_a_client_that_sends_more_is_still_there(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    call = guardian.watch(server)
    call.arm("idle", 0.05)
    client.send(b"the next request")
    assert blocked(call) == b""
    assert call.why == "idle"
    call.close()


@pytest.mark.parametrize("phase", ["connect", "first_byte", "idle"])
def test_a_deadline_ends_the_wait_and_says_which(guardian: Guardian, phase: str) -> None:
    call = guardian.watch(None)
    call.arm(phase, 0.02, total=SECONDS)
    assert blocked(call) == b""
    assert call.why == phase
    call.close()


def test_the_total_outlives_the_phases(guardian: Guardian) -> None:
    call = guardian.watch(None)
    call.arm("connect", SECONDS, total=0.05)
    call.arm("idle", SECONDS, total=SECONDS)
    assert blocked(call) == b""
    assert call.why == "total"
    assert not call.again()
    call.close()


def test_a_later_phase_may_be_due_earlier(guardian: Guardian) -> None:
    call = guardian.watch(None)
    call.arm("first_byte", SECONDS)
    call.arm("idle", 0.02)
    assert blocked(call) == b""
    assert call.why == "idle"
    call.close()


def test_a_touch_moves_the_deadline(guardian: Guardian) -> None:
    call = guardian.watch(None)
    call.arm("idle", 0.05)
    armed = time.monotonic()
    while time.monotonic() < armed + 0.2:
        call.touch()
    assert call.why is None
    assert blocked(call) == b""
    call.close()


def test_a_socket_that_is_attached_too_late_is_shut_at_once(guardian: Guardian) -> None:
    call = guardian.watch(None)
    call.end("client_gone")
    assert blocked(call) == b""


def test_another_attempt_may_follow_a_deadline_but_not_a_lost_client(guardian: Guardian) -> None:
    call = guardian.watch(None)
    call.end("first_byte")
    assert call.again()
    assert call.why is None
    call.end("client_gone")
    assert not call.again()


def test_a_closed_call_is_left_alone(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    call = guardian.watch(server)
    call.close()
    client.close()
    call.end("idle")
    assert call.why is None


def test_heartbeats_come_only_within_a_wait(pair: Pair) -> None:
    guardian = Guardian(heartbeat_s=0.01)
    client, server = pair
    beats = threading.Semaphore(0)
    call = guardian.watch(server)
    outside = []
    call.beat(lambda: (outside.append(1), beats.release()))  # type: ignore[func-returns-value,arg-type]
    waited = threading.Event()

    def wait() -> None:
        blocked(call)
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(3):
        assert beats.acquire(timeout=SECONDS)
    client.close()
    thread.join(SECONDS)
    assert waited.is_set()
    count = len(outside)
    other = guardian.watch(None)
    other.arm("idle", 0.05)
    blocked(other)
    assert len(outside) == count
    call.close()
    guardian.stop()


def test_a_client_that_does_not_read_gets_no_heartbeat(pair: Pair) -> None:
    guardian = Guardian(heartbeat_s=0.01)
    client, server = pair
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            server.send(bytes(65536))
    call = guardian.watch(server)
    beats: list[int] = []
    call.beat(lambda: beats.append(1))
    call.arm("idle", 0.1)
    assert blocked(call) == b""
    assert beats == []
    call.close()
    guardian.stop()
    client.close()


def test_no_exchange_is_ended_for_another_that_had_its_descriptor(guardian: Guardian) -> None:
    """Clients leave and descriptors come back as fast as they can; those who stay are never touched."""
    stop = threading.Event()
    wrong: list[str | None] = []

    def leave() -> None:
        while not stop.is_set():
            client, server = socket.socketpair()
            call = guardian.watch(server)
            upstream, silent = sockets.pair()
            call.attach(upstream)
            client.close()
            call.detach()
            call.close()
            for each in (server, upstream, silent):
                each.close()

    def stay() -> None:
        for _ in range(3000):
            client, server = socket.socketpair()
            call = guardian.watch(server)
            upstream, other = sockets.pair()
            call.attach(upstream)
            other.send(b"x")
            call.wait()
            got = upstream.recv(1)
            call.woke()
            call.detach()
            if got != b"x" or call.why is not None:
                wrong.append(call.why)
            call.close()
            for each in (client, server, upstream, other):
                each.close()

    leavers = [threading.Thread(target=leave) for _ in range(2)]
    stayers = [threading.Thread(target=stay) for _ in range(2)]
    for thread in leavers + stayers:
        thread.start()
    for thread in stayers:
        thread.join()
    stop.set()
    for thread in leavers:
        thread.join()
    assert wrong == []


def test_nothing_is_kept_of_calls_that_are_over(guardian: Guardian) -> None:
    for _ in range(1000):
        client, server = socket.socketpair()
        call = guardian.watch(server)
        call.arm("connect", 0.001)
        call.close()
        client.close()
        server.close()
    last = guardian.watch(None)
    last.arm("idle", 0.05)
    blocked(last)
    assert not any(known.call for known in guardian._clients.values())
    assert len(guardian._clients) <= 1
    assert len(guardian._heap) <= 1


def test_the_calls_of_one_connection_are_told_apart(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    first = guardian.watch(server)
    first.close()
    second = guardian.watch(server)
    client.close()
    blocked(second)
    assert (first.why, second.why) == (None, "client_gone")


def test_a_client_that_left_between_two_calls_is_gone_at_once(guardian: Guardian, pair: Pair) -> None:
    client, server = pair
    guardian.watch(server).close()
    client.close()
    late = guardian.watch(server)
    blocked(late)
    assert late.why == "client_gone"
    assert guardian.watch(server).why == "client_gone"


def test_a_client_that_could_not_be_watched_is_watched_from_the_next_call_on(
    guardian: Guardian, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "too many are watched")

    client, server = pair
    with monkeypatch.context() as patched, pytest.raises(OSError, match="too many"):
        patched.setattr(guardian, "_register", full)
        guardian.watch(server)
    call = guardian.watch(server)
    client.close()
    blocked(call)
    assert call.why == "client_gone"


def test_the_guardian_is_a_native_thread_under_gevent() -> None:
    """A greenlet that never yields stops every other greenlet, but not the guardian."""
    code = """
from gevent import monkey; monkey.patch_all()
import socket, time
from proxy import sockets
from proxy.guardian import Guardian
guardian = Guardian()
call = guardian.watch(None)
call.arm("idle", 0.05)
end = time.monotonic() + 20
while call.why is None and time.monotonic() < end:
    pass
print(call.why)
upstream, other = sockets.pair()
call = guardian.watch(None)
call.attach(upstream)
call.arm("first_byte", 0.05)
print(upstream.recv(1), call.why)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.stdout.splitlines() == ["idle", "b'' first_byte"], done.stderr
