"""Reload, stop and sudden death of a gateway while 200 streams are open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowds import Crowd, Holding, quick, sign, start, until
from gateways import Gateway
from wire import PATIENCE_S

from proxy.records.reading import lines

STREAMS = 200


@pytest.fixture
def up() -> Iterator[Holding]:
    with Holding() as made:
        yield made


def files(gateway: Gateway) -> dict[int, Path]:
    """The journal's file of each worker that ever was."""
    return {int(path.name.split("-")[1]): path for path in (gateway.folder / "var" / "journal").glob("2*.jsonl")}


def locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a worker for a while: what comes meanwhile goes to the others."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # The signal is on its way only: a thread that still runs may take a connection into the frost.
        until(lambda: all(" T " in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_reloads_cut_none_of_200_streams_and_are_live_at_once(worker: str, tmp_path: Path, up: Holding) -> None:
    gateway = start(tmp_path, up, worker, {"workers": 2, "threads": 250})
    try:
        with Crowd(gateway, STREAMS) as crowd:
            old = set(gateway.worker_pids())
            assert crowd.workers() <= old
            text = gateway.config.read_text()

            gateway.config.write_text(text.replace("[models.quick]", "[models.quack]"))
            (tmp_path / "own" / "sign.py").write_text("def broken(:\n")
            os.kill(gateway.pid, signal.SIGHUP)
            refusal = gateway.wait_log(r"Reload refused, the old configuration stays: (.*)")[1]
            assert "own/sign.py: cannot be loaded: line 1" in refusal
            assert quick(gateway).headers["x-sign"] == "good"
            assert set(gateway.worker_pids()) == old

            gateway.config.write_text(
                text.replace("[models.quick]", '[models.new]\ntargets = ["up"]\n\n[models.quick]')
            )
            sign(tmp_path, "better")
            os.kill(gateway.pid, signal.SIGHUP)

            def renewed() -> bool:
                answer = quick(gateway, "new")
                if answer.status == 404:
                    assert set(gateway.worker_pids()) & old
                    return False
                assert (answer.status, answer.whole, answer.headers["x-sign"]) == (200, True, "better")
                return int(answer.headers["x-worker"]) not in old

            gateway.wait_log("Hang up: Master")
            until(renewed)
            os.kill(gateway.pid, signal.SIGHUP)
            for _ in range(20):
                assert quick(gateway).status == 200
            up.gate.open()
            crowd.assert_whole()
        gateway.wait_log("(?s)" + "Hang up: Master.*" * 2)
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.wait_log("(?s)" + "Hang up: Master.*" * 3)
        assert quick(gateway, "new").status == 200
        assert not set(gateway.worker_pids()) & old
        ends = {line["id"]: line["complete"] for line in gateway.records() if line["kind"] == "end"}
        assert crowd.ids() <= ends.keys() and all(ends[id] for id in crowd.ids())
        assert "Traceback" not in gateway.log
    finally:
        assert gateway.stop() == 0


def test_a_killed_worker_takes_only_its_own_streams_with_it(worker: str, tmp_path: Path, up: Holding) -> None:
    gateway = start(tmp_path, up, worker, {"workers": 2, "threads": 250})
    try:
        dead, alive = until(lambda: len(pids := gateway.worker_pids()) == 2 and len(files(gateway)) == 2 and pids)
        with frozen(alive):
            lost = Crowd(gateway, STREAMS // 2)
        with frozen(dead):
            kept = Crowd(gateway, STREAMS // 2)
        with lost, kept:
            assert (lost.workers(), kept.workers()) == ({dead}, {alive})
            # The configuration is bad meanwhile: the replacement starts from the last good copy.
            gateway.config.write_text("nonsense")
            (tmp_path / "own" / "sign.py").write_text("def broken(:\n")
            os.kill(dead, signal.SIGKILL)
            lost.assert_cut()
            until(lambda: int(quick(gateway).headers["x-worker"]) not in (dead, alive))
            up.gate.open()
            kept.assert_whole()
        shelf = files(gateway)
        assert {pid for pid, path in shelf.items() if locked(path)} == set(gateway.worker_pids())
        assert not locked(shelf[dead])
        raw = shelf[dead].read_bytes()
        records = [line for line, _ in lines(shelf[dead])]
        assert raw.endswith(b"\n") and len(records) == raw.count(b"\n")
        assert {line["id"] for line in records if line["kind"] == "start"} == lost.ids()
        assert not any(line["id"] in lost.ids() for line in records if line["kind"] == "end")
        assert "Traceback" not in gateway.log
    finally:
        assert gateway.stop() == 0


def test_term_lets_200_streams_come_to_their_end(worker: str, tmp_path: Path, up: Holding) -> None:
    gateway = start(tmp_path, up, worker, {"workers": 2, "threads": 250})
    try:
        with Crowd(gateway, STREAMS) as crowd:
            os.kill(gateway.pid, signal.SIGTERM)
            until(lambda: refused(gateway))
            up.gate.open()
            crowd.assert_whole()
        assert status(gateway) == 0
    finally:
        gateway.stop()
    ends = {line["id"]: line["complete"] for line in gateway.records() if line["kind"] == "end"}
    assert crowd.ids() <= ends.keys() and all(ends[id] for id in crowd.ids())
    assert not any(locked(path) for path in files(gateway).values())
    assert "Traceback" not in gateway.log


def test_a_stream_that_outlasts_the_time_for_leaving_never_looks_complete(
    worker: str, tmp_path: Path, up: Holding
) -> None:
    gateway = start(tmp_path, up, worker, {"workers": 1}, env={"GUNICORN_CMD_ARGS": "--graceful-timeout 1"})
    try:
        with Crowd(gateway, 20) as crowd:
            os.kill(gateway.pid, signal.SIGTERM)
            crowd.assert_cut()
        assert status(gateway) == 0
    finally:
        gateway.stop()
    for connection in range(1, 21):
        assert up.wait_end(connection).ended_by == "client"
    for path in files(gateway).values():
        assert len(list(lines(path))) == path.read_bytes().count(b"\n")
    ends = {line["id"]: line["complete"] for line in gateway.records() if line["kind"] == "end"}
    assert not any(ends.get(id) for id in crowd.ids())


def status(gateway: Gateway) -> int:
    """Wait until a gateway that was told to end has done so, and return its exit status."""
    descriptor = os.pidfd_open(gateway.pid)
    assert select.select([descriptor], [], [], PATIENCE_S)[0], gateway.log
    os.close(descriptor)
    return gateway.stop()


def refused(gateway: Gateway) -> bool:
    """Whether nobody takes connections; one that was taken is answered or dropped."""
    try:
        with gateway.wire() as wire:
            wire.get("/healthz")
    except ConnectionRefusedError:
        return True
    except (EOFError, ConnectionResetError, BrokenPipeError):
        pass
    return False
