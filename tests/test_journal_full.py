"""The journal where there is no room: refused or gone without, as chosen, counted, and back by itself."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import resource
import signal
import subprocess
import threading

import crowds
import pytest
from crowds import Crowd, Holding, ask, until
from gateways import ECHO
from journals import KEY, answered, asked, child, exchange, opened, over, records, whole

from proxy.exchange import Attempt
from proxy.records import journal as module
from proxy.records import segment as segments
from proxy.records.reading import alive, files, lines
from proxy.records.verify import verify
from proxy.settings import JournalSettings


class Disk:
    """A folder of which `full()` says for how long nothing can be written to the journal of these processes.

    A file system of its own where this user may mount one; else the processes may write no file that is any longer,
    which is refused at the same place with another number.
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "lockgate", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    @contextlib.contextmanager
    def full(self, pids=()):
        ballast = self.folder / "ballast"
        if self.mounted:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
        for pid in () if self.mounted else pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            ballast.unlink(missing_ok=True)
            for pid in () if self.mounted else pids:
                with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@contextlib.contextmanager
def no_room(monkeypatch):
    """Have every write of this process take half of a line, and then none."""
    put = os.write

    def write(descriptor, data):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        yield


class Blocks:
    """A disk as the journal of this process sees it: while it is `full` a file has what was set aside for it."""

    def __init__(self, monkeypatch, failure=errno.ENOSPC):
        self.full, self.calls = False, 0
        self._failure, self._ends, self._write = failure, {}, os.write
        monkeypatch.setattr(segments, "_set_aside", self._set_aside)
        monkeypatch.setattr(os, "write", self._checked)

    def _set_aside(self, descriptor, offset, size_bytes):
        self.calls += 1
        if self.full:
            raise OSError(self._failure, os.strerror(self._failure))
        self._ends[descriptor] = offset + size_bytes

    def _checked(self, descriptor, data):
        if self.full and os.fstat(descriptor).st_size + len(data) > self._ends.get(descriptor, 0):
            raise OSError(self._failure, os.strerror(self._failure))
        return self._write(descriptor, data)


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    return Blocks(monkeypatch)


def long(sent):
    """Return an exchange whose settle line and end line are hardly shorter than any line may be."""
    sent.outcome.finish_reasons = dict.fromkeys(range(60), "a" * 50)
    sent.attempts = [Attempt("a" * 50, 1.0, 503, "a" * 40, 0.25) for _ in range(30)]
    return sent


@pytest.mark.parametrize("worker", ["threads", "gevent"])
def test_what_was_answered_while_the_disk_was_full_is_known_after_a_kill(disk, tmp_path, worker):
    state = disk.folder / "state"
    with Holding() as up, contextlib.closing(Held(tmp_path, up, worker, state)) as held, held.gateway.wire() as wire:
        with disk.full(held.gateway.worker_pids()):
            until(lambda: wire.post(ask("quick")).status == 503)
            assert wire.post(ask("quick")).json["error"]["code"] == "journal_unavailable"
            up.gate.open()
            rests = held.crowd.rests()
            [worker_pid] = held.gateway.worker_pids()
            [written] = files(state / "journal")
            os.kill(worker_pid, signal.SIGKILL)
            until(lambda: not alive(written))
            found = {record["id"]: record["state"] for record in records(written)}
            finished = {id for id, (rest, _) in zip(held.ids, rests, strict=True) if b"[DONE]" in rest}
            # Where nothing could be mounted the worker may write nothing at all, and has no use for room on the disk.
            assert finished == set(held.ids) or not disk.mounted
            assert {found[id] for id in finished} <= {"settled", "ended"}
        until(lambda: crowds.quick(held.gateway).status == 200)
    assert verify(state / "journal", (state / "journal.key").read_bytes().strip()).problems == []


class Held:
    """A gateway with its state in `state`, and 30 streams through it that `up` holds."""

    def __init__(self, folder, up, worker, state):
        self.gateway = crowds.start(folder, up, worker, {"state": str(state)})
        try:
            self.crowd = Crowd(self.gateway, 30)
        except BaseException:
            self.gateway.stop()
            raise
        self.ids = [re.search(r"(?im)^x-request-id: *(\S+)", head)[1] for head in self.crowd.heads]

    def close(self):
        self.crowd.__exit__()
        self.gateway.stop()


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EDQUOT])
def test_exchanges_under_way_have_their_room_and_new_ones_are_refused(tmp_path, monkeypatch, failure):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    blocks = Blocks(monkeypatch, failure)
    with opened(tmp_path) as journal:
        sent = [long(asked(str(number))) for number in range(300)]
        for each in sent:
            journal.start(each)
        blocks.full = True
        while journal.writable:  # what was set aside for others is free to take
            with contextlib.suppress(OSError):
                journal.start(other := asked("beside"))
                journal.end(other)
        for number in range(2000):
            journal.end(exchange(f"refused {number}"))
            with pytest.raises(OSError, match=os.strerror(failure)):
                journal.start(asked("refused"))
        for each in sent:
            journal.settle(long(answered(each)))
        states = {record["id"]: record["state"] for record in records(journal.path)}
        assert {states[each.id] for each in sent} == {"settled"}
        for each in sent:
            journal.end(long(over(each)))
        states = {record["id"]: record["state"] for record in records(journal.path)}
        assert {states[each.id] for each in sent} == {"ended"}
        written = journal.path.read_bytes().splitlines()
        assert all(len(line) > 3500 for line in written[-600:])
        assert journal.failures >= 2000 and not journal.writable
        blocks.full = False
        until(lambda: journal.writable)
        journal.start(asked("after"))
        assert journal.lost == 0
    states = {record["id"]: record["state"] for record in records(journal.path)}
    assert states["after"] == "lost" and states["refused 1999"] == "ended" and "refused" not in states
    assert verify(tmp_path, KEY).problems == []


def test_with_leave_to_continue_the_lines_of_exchanges_under_way_have_their_room_too(tmp_path, blocks):
    with opened(tmp_path, JournalSettings(when_full="continue")) as journal:
        sent = asked("under way")
        journal.start(sent)
        blocks.full = True
        until(lambda: whole(journal, "beside") or not journal.writable)
        journal.settle(answered(sent))
        assert {record["id"]: record["state"] for record in records(journal.path)}["under way"] == "settled"


def test_room_is_set_aside_once_in_hundreds_of_exchanges_and_given_back_at_the_end(tmp_path, disk, monkeypatch):
    asked_for, set_aside = [], segments._set_aside

    def counted(*where):
        asked_for.append(where)
        set_aside(*where)

    for folder in (tmp_path / "here", disk.folder / "there"):
        asked_for.clear()
        with monkeypatch.context() as patched, opened(folder) as journal:
            patched.setattr(segments, "_set_aside", counted)
            for number in range(500):
                whole(journal, str(number))
            assert 1 < len(asked_for) <= 3
            assert journal.path.stat().st_blocks * 512 >= sum(asked_for[-1][1:])
            assert sum(asked_for[-1][1:]) > journal.path.stat().st_size
        assert journal.path.stat().st_blocks * 512 < journal.path.stat().st_size + (1 << 14)
        assert len(records(journal.path)) == 500


def test_what_a_killed_process_had_set_aside_is_given_back_by_the_next(tmp_path):
    process = child(tmp_path, 'whole(journal); print("written", flush=True); time.sleep(60)')
    process.stdout.readline()
    process.kill()
    process.communicate()
    [path] = files(tmp_path)
    before = path.read_bytes()
    assert path.stat().st_blocks * 512 > segments.STEP_BYTES
    with opened(tmp_path):
        assert path.stat().st_blocks * 512 < 1 << 14
        assert path.read_bytes() == before
    assert verify(tmp_path, KEY).problems == []


def test_an_answer_whose_line_finds_no_room_is_not_handed_over_and_its_end_says_what_it_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)

    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(segments, "_set_aside", unknown)  # a file system that sets nothing aside
    with opened(tmp_path) as journal:
        sent = asked("under way")
        journal.start(sent)
        with no_room(monkeypatch):
            with pytest.raises(OSError, match="No space"):
                journal.settle(answered(sent))
            with pytest.raises(OSError, match="No space"):
                journal.start(asked("refused"))
            sent.outcome.code, sent.outcome.complete = "journal_unavailable", False
            journal.end(sent)
            assert [record["state"] for record in records(journal.path)] == ["lost"]
        until(lambda: journal.writable)
    [record] = records(journal.path)
    assert (record["state"], record["code"], record["cost"]) == ("ended", "journal_unavailable", 400)
    assert record["settled"] is None and record["usage"]["completion"] == 20
    assert verify(tmp_path, KEY).problems == []


@pytest.mark.parametrize("when_full", ["refuse", "continue"])
def test_a_line_that_cannot_be_put_on_the_disk_is_as_good_as_not_written(tmp_path, monkeypatch, when_full):
    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    going_on = contextlib.nullcontext() if when_full == "continue" else pytest.raises(OSError, match="Input/output")
    with opened(tmp_path, JournalSettings(fsync="each", when_full=when_full)) as journal:
        sent = asked()
        journal.start(sent)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", refuse)
            with going_on:
                journal.settle(answered(sent))
            assert (journal.failures, journal.writable) == (1, False)
        until(lambda: journal.writable)
        journal.end(over(sent))
    assert [record["state"] for record in records(journal.path)] == ["ended"]


def test_a_signal_does_not_keep_room_from_being_set_aside(tmp_path, monkeypatch):
    outcomes = [errno.EINTR, errno.EINTR, 0]

    class Interrupted:
        def fallocate(self, *_):
            ctypes.set_errno(outcomes[0])
            return -1 if outcomes.pop(0) else 0

    with opened(tmp_path) as journal:
        monkeypatch.setattr(segments, "_libc", Interrupted())
        journal.start(asked())
        assert outcomes == [] and journal.writable


def test_a_full_disk_refuses_new_exchanges_and_it_comes_back_by_itself(disk, start_gateway):
    gateway = start_gateway(ECHO, server={"state": str(disk.folder / "state")})
    journal = disk.folder / "state" / "journal"
    with gateway.wire() as wire:
        assert wire.post(ask("echo", streamed=False)).status == 200
        with disk.full(gateway.worker_pids()):
            until(lambda: wire.post(ask("echo", streamed=False)).status == 503)
            refused = wire.post(ask("echo", streamed=False))
            assert (refused.status, refused.json["error"]["code"]) == (503, "journal_unavailable")
            gateway.wait_log("The journal cannot be written")
        until(lambda: wire.post(ask("echo", streamed=False)).status == 200)
        gateway.wait_log("The journal can be written again")
    gateway.stop()
    found = [record for path in files(journal) for record in records(path)]
    assert {(record["status"], record["state"]) for record in found} == {(200, "ended"), (503, "ended")}
    assert verify(journal, (disk.folder / "state" / "journal.key").read_bytes().strip()).problems == []


def test_a_full_disk_does_not_stop_a_gateway_that_may_go_on_without(disk, start_gateway):
    toml = ECHO + '[journal]\nwhen_full = "continue"\n'
    gateway = start_gateway(toml, server={"state": str(disk.folder / "state")})
    with gateway.wire() as wire, disk.full(gateway.worker_pids()):
        for _ in range(20):
            assert wire.post(ask("echo", streamed=False)).status == 200
        gateway.wait_log("The journal cannot be written")
    gateway.wait_log("The journal can be written again")
    gateway.stop()
    found = [record for path in files(disk.folder / "state" / "journal") for record in records(path)]
    assert {record["status"] for record in found} == {200}
    assert len(found) >= 20


def test_a_line_for_which_there_is_no_room_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    with opened(tmp_path) as journal:
        journal.start(asked("before"))
        before = journal.path.read_bytes()
        with no_room(monkeypatch):
            for _ in range(3):
                with pytest.raises(OSError, match="No space"):
                    journal.start(asked("refused"))
            assert journal.path.read_bytes() == before
            assert (journal.failures, journal.writable) == (3, False)
        until(lambda: journal.writable)
        journal.start(asked("after"))
    assert [(line["seq"], line["id"]) for line, _ in lines(journal.path)] == [(1, "before"), (2, "after")]
    assert verify(tmp_path, KEY).problems == []


def test_end_lines_wait_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    with opened(tmp_path, JournalSettings(when_full="continue")) as journal:
        sent = asked("under way")
        journal.start(sent)
        with no_room(monkeypatch):
            journal.settle(answered(sent))
            journal.end(over(sent))
            journal.end(exchange("refused"))
            assert (journal.writable, journal.lost) == (False, 0)
        until(lambda: journal.writable)
    found = {record["id"]: record for record in records(journal.path)}
    assert {id: record["state"] for id, record in found.items()} == {"under way": "ended", "refused": "ended"}
    assert found["under way"]["cost"] == 400
    assert verify(tmp_path, KEY).problems == []


def test_with_leave_to_continue_an_exchange_is_told_at_its_end_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    with opened(tmp_path, JournalSettings(when_full="continue")) as journal:
        sent = asked("unwritten")
        with no_room(monkeypatch):
            journal.start(sent)
        until(lambda: journal.writable)
        journal.settle(answered(sent))
        journal.end(over(sent))
    [record] = records(journal.path)
    assert (record["subject"], record["cost"], record["state"], record["reserved"]) == ("k1", 400, "ended", 700)
    assert journal.failures == 1


def test_what_waits_for_room_is_bounded_and_what_is_given_up_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 5)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    with opened(tmp_path) as journal:
        with no_room(monkeypatch):
            for number in range(8):
                journal.end(exchange(str(number)))
            assert journal.lost == 3
        until(lambda: journal.writable)
    assert [record["id"] for record in records(journal.path)] == ["0", "1", "2", "3", "4"]


def test_a_backlog_is_written_in_pieces_in_its_order(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    with opened(tmp_path) as journal:
        with no_room(monkeypatch):
            for number in range(1000):
                journal.end(exchange(str(number)))
        until(lambda: journal.writable)
    assert [record["id"] for record in records(journal.path)] == [str(number) for number in range(1000)]
    assert verify(tmp_path, KEY).problems == []


FULL = """
def write(number, size=None):
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        while not journal.writable and size is None:
            time.sleep(0.01)
        journal.start(asked(number))
        print("written", flush=True)
    except OSError as failure:
        print(failure.errno, flush=True)
write("1")
size = os.stat(journal.path).st_size
"""


def test_a_limit_of_the_system_is_a_full_disk_too(tmp_path):
    process = child(tmp_path, FULL + 'write("2", size + 50); write("3", size); write("4"); journal.close()')
    assert process.communicate()[0].splitlines() == ["written", str(errno.EFBIG), str(errno.EFBIG), "written"]
    [path] = files(tmp_path)
    assert [(line["seq"], line["id"]) for line, _ in lines(path)] == [(1, "1"), (2, "4")]
    assert path.read_bytes().count(b"\n") == 2
    assert verify(tmp_path, KEY).problems == []


def test_a_half_line_that_cannot_be_taken_back_is_taken_back_before_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path) as journal:
        journal.start(asked("before"))
        size = journal.path.stat().st_size
        with no_room(monkeypatch), monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", refuse)
            with pytest.raises(OSError, match="Input/output"):
                journal.start(asked("refused"))
            assert journal.path.stat().st_size > size
            assert [line["id"] for line, _ in lines(journal.path)] == ["before"]
        until(lambda: journal.writable)
        journal.start(asked("after"))
    assert [line["id"] for line, _ in lines(journal.path)] == ["before", "after"]
    assert verify(tmp_path, KEY).problems == []


def test_a_disk_that_takes_nothing_at_the_end_leaves_a_file_that_the_next_process_closes(tmp_path, monkeypatch):
    with opened(tmp_path) as journal:
        journal.start(asked())
        monkeypatch.setattr("proxy.records.segment.Index.append", lambda *_: (_ for _ in ()).throw(OSError(28, "No")))
    monkeypatch.undo()
    assert len(verify(tmp_path, KEY).notes) == 1
    with opened(tmp_path):
        assert verify(tmp_path, KEY).notes == []
    assert verify(tmp_path, KEY).problems == []


def test_writers_beside_a_disk_that_fills_and_empties_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.005)
    begun: list[str] = []

    def write(name):
        for number in range(200):
            sent = asked(f"{name}-{number}")
            try:
                journal.start(sent)
            except OSError:
                continue
            begun.append(sent.id)
            with contextlib.suppress(OSError):
                journal.settle(answered(sent))
            journal.end(over(sent))

    with opened(tmp_path) as journal:
        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with no_room(monkeypatch):
                until(lambda: not journal.writable or not any(thread.is_alive() for thread in threads))
            until(lambda: journal.writable)
        until(lambda: journal.writable)
    found = {record["id"]: record["state"] for record in records(journal.path)}
    assert sorted(found) == sorted(begun) and set(found.values()) == {"ended"}
    assert verify(tmp_path, KEY).problems == []
