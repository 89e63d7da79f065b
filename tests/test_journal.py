"""The journal: a line for what happened, whatever was in it, whatever happens next."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.exchange import Attempt, Exchange, Identity, Outcome, Usage
from proxy.records.journal import Journal, read
from proxy.records.lines import json_line


def exchange(id="req_1", **fields):
    given = {"headers": {"user-agent": "OpenAI/Python 3.54.0"}, "client_address": "10.1.2.3", **fields}
    return Exchange(id, "POST", "/v1/chat/completions", **given)


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal", clock=lambda: 1.5)
    yield opened
    opened.close()


def locked(path):
    """Tell whether some process holds the file's lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_an_exchange_leaves_three_lines(journal):
    sent = exchange(
        identity=Identity("k1", "app", "search", expires=9.0), model="gpt-5.2", stream=True, target="openai/gpt-5.2"
    )
    journal.start(sent)
    sent.usage = Usage(10, 20, cached_tokens=3, reasoning_tokens=4)
    sent.outcome.status, sent.outcome.finish_reasons = 200, {0: "stop", 1: "length"}
    journal.settle(sent)
    sent.attempts = [Attempt("a/x", 1.0, 503, "overloaded", 0.25), Attempt("openai/gpt-5.2", 2.0, 200, None, 1.0)]
    sent.outcome = Outcome(200, None, True, False, {0: "stop", 1: "length"}, 1234, 0.5, 1.75)
    journal.end(sent)
    finish = {"0": "stop", "1": "length"}
    usage = {"prompt": 10, "completion": 20, "cached": 3, "cache_write": 0, "reasoning": 4, "audio": 0}
    usage["estimated"] = False
    assert list(read(journal.path)) == [
        {
            "seq": 1,
            "kind": "start",
            "id": "req_1",
            "time": 1.5,
            "subject": "k1",
            "name": "app",
            "team": "search",
            "path": "/v1/chat/completions",
            "model": "gpt-5.2",
            "target": "openai/gpt-5.2",
            "stream": True,
            "client": "10.1.2.3",
            "agent": "OpenAI/Python 3.54.0",
        },
        {
            "seq": 2,
            "kind": "settle",
            "id": "req_1",
            "time": 1.5,
            "target": "openai/gpt-5.2",
            "status": 200,
            "finish": finish,
            "usage": usage,
        },
        {
            "seq": 3,
            "kind": "end",
            "id": "req_1",
            "time": 1.5,
            "target": "openai/gpt-5.2",
            "status": 200,
            "code": None,
            "complete": True,
            "client_gone": False,
            "culprit": None,
            "finish": finish,
            "usage": usage,
            "attempts": [["a/x", 503, "overloaded", 0.25], ["openai/gpt-5.2", 200, None, 1.0]],
            "first_event_s": 0.5,
            "duration_s": 1.75,
            "bytes_out": 1234,
        },
    ]


def test_an_exchange_refused_before_its_upstream_leaves_one_line_with_all(journal):
    refused = exchange(identity=Identity("k1"), model="gpt-5.2", outcome=Outcome(429, "rate_limit_exceeded"))
    journal.end(refused)
    [line] = read(journal.path)
    assert (line["kind"], line["subject"], line["model"], line["client"]) == ("end", "k1", "gpt-5.2", "10.1.2.3")
    assert (line["status"], line["code"], line["usage"]) == (429, "rate_limit_exceeded", None)


def test_a_caller_nobody_knows_leaves_a_line_too(journal):
    journal.end(exchange(headers={}, outcome=Outcome(401, "invalid_api_key")))
    [line] = read(journal.path)
    assert (line["subject"], line["team"], line["model"], line["agent"]) == (None, None, None, "")


def test_nothing_that_was_said_and_no_credential_is_written(journal):
    sent = exchange(
        headers={"authorization": "Bearer canary", "cookie": "canary", "x-anything": "canary"},
        body={"messages": [{"role": "user", "content": "canary"}], "user": "canary", "metadata": {"canary": "canary"}},
        response_headers={"x-canary": "canary"},
        identity=Identity("k1", grants={"canary": "canary"}),
        model="m",
    )
    sent.stash["canary"] = "canary"
    for write in (journal.start, journal.settle, journal.end):
        write(sent)
    assert b"canary" not in journal.path.read_bytes()


awkward = st.sampled_from("a\n\r\0\x1b\x7f\x85\x9b\u2028\u202e\ud800é")
any_text = st.text(st.characters(), max_size=40) | st.text(awkward)
any_long = any_text | st.builds(lambda text: text * 500, any_text)
any_number = st.integers() | st.floats()
any_exchange = st.builds(
    Exchange,
    id=any_text,
    method=any_text,
    path=any_long,
    headers=st.fixed_dictionaries({"user-agent": any_long, "authorization": any_long}),
    client_address=any_text,
    identity=st.none() | st.builds(Identity, any_long, any_long, st.none() | any_long),
    model=st.none() | any_long,
    stream=st.booleans(),
    target=st.none() | any_text,
    attempts=st.lists(st.builds(Attempt, any_text, any_number, any_number, any_text, any_number), max_size=3),
    usage=st.none() | st.builds(Usage, st.integers(), st.integers(), st.integers()),
    outcome=st.builds(
        Outcome,
        status=st.integers(),
        code=st.none() | any_long,
        finish_reasons=st.dictionaries(st.integers(), any_long, max_size=3),
        bytes_out=st.integers(),
        first_event_s=st.none() | any_number,
        duration_s=any_number,
        culprit=st.none() | any_text,
    ),
)


@settings(deadline=None)
@given(any_exchange)
def test_whatever_is_in_an_exchange_makes_one_legal_line_each(tmp_path_factory, sent):
    journal = Journal(tmp_path_factory.mktemp("journal"))
    for write in (journal.start, journal.settle, journal.end):
        write(sent)
    journal.close()
    raw = journal.path.read_bytes()
    assert raw.count(b"\n") == 3 and raw.endswith(b"\n")
    assert all(character.isprintable() for character in raw.decode().replace("\n", ""))
    assert all(len(line) < 4200 for line in raw.splitlines())
    assert [(line["seq"], line["kind"]) for line in read(journal.path)] == [(1, "start"), (2, "settle"), (3, "end")]
    assert [*map(json.loads, raw.splitlines())]


def test_an_ordinary_text_in_another_script_stays_readable():
    assert json_line({"name": "Jürgen 東京"}) == '{"name":"Jürgen 東京"}\n'.encode()


def test_a_control_character_that_json_leaves_is_replaced():
    assert json.loads(json_line({"delete": "a\x7fb"})) == {"delete": "a\ufffdb"}
    assert json.loads(json_line({"agent": "a\x9b31m\u202eb", "deep": [{"x\x85": "\ud800"}]})) == {
        "agent": "a\ufffd31m\ufffdb",
        "deep": [{"x\ufffd": "\ufffd"}],
    }


def test_a_file_is_its_owners_alone_and_sorts_by_time(tmp_path):
    clock = iter([1e9, 1e9, 1e9 + 1]).__next__
    journals = [Journal(tmp_path / "journal", clock=clock) for _ in range(3)]
    names = [journal.path.name for journal in journals]
    assert all(name.startswith("20010909T0146") and f"-{os.getpid()}-" in name for name in names)
    assert len(set(names)) == 3 and max(names) == names[2]
    assert {journal.path.stat().st_mode & 0o777 for journal in journals} == {0o600}
    assert sorted(os.listdir(tmp_path / "journal")) == sorted(names)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    for journal in journals:
        journal.close()


def test_a_file_is_locked_until_it_is_closed(journal):
    journal.end(exchange())
    assert locked(journal.path)
    journal.close()
    journal.close()
    assert not locked(journal.path)


def test_a_closed_journal_refuses(journal):
    journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.start(exchange())


def test_threads_write_whole_lines_in_one_order(journal, monkeypatch):
    put = os.write

    def in_two_pieces(descriptor, line):
        return put(descriptor, line[: len(line) // 2 or 1])

    monkeypatch.setattr(os, "write", in_two_pieces)

    def write(thread):
        for number in range(100):
            journal.end(exchange(f"{thread}-{number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = list(read(journal.path))
    assert [line["seq"] for line in lines] == list(range(1, 801))
    assert len({line["id"] for line in lines}) == 800


def test_a_forked_child_may_not_write_its_parents_journal(journal):
    child = os.fork()
    if child == 0:
        try:
            journal.end(exchange())
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list(read(journal.path)) == []


def test_a_torn_last_line_is_left_out(journal, caplog):
    journal.end(exchange("whole"))
    raw = journal.path.read_bytes()
    for cut in range(1, len(raw) - 1):
        journal.path.write_bytes(raw + raw[:cut])
        assert [line["id"] for line in read(journal.path)] == ["whole"]
    assert not caplog.records
    journal.path.write_bytes(b"\0\0\n" + raw)
    assert [line["id"] for line in read(journal.path)] == ["whole"]
    assert caplog.messages == [f"{journal.path}:1: not a record, left out"]


def child(tmp_path, code):
    """Start a process that writes a journal in `tmp_path` as `code` says."""
    before = """
import os, resource, sys
from pathlib import Path
from proxy.exchange import Exchange
from proxy.records.journal import Journal
def exchange(id):
    return Exchange(str(id), "POST", "/v1/chat/completions", {}, "10.1.2.3")
journal = Journal(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", before + code, str(tmp_path)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_no_line_that_it_was_told_is_written(tmp_path):
    code = """
for number in range(10**9):
    journal.start(exchange(number))
    os.write(1, b"%d\\n" % number)
"""
    process = child(tmp_path, code)
    while process.stdout.readline() != "200\n":
        pass
    [path] = tmp_path.iterdir()
    assert locked(path)
    process.send_signal(signal.SIGKILL)
    told = [int(line) for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    assert not locked(path)
    ids = [int(line["id"]) for line in read(path)]
    assert ids == list(range(len(ids)))
    assert len(ids) > max(told, default=200)


FULL = """
def write(number, size=None):
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.start(exchange(number))
        print("written")
    except OSError as failure:
        print(failure.errno, failure.filename == str(journal.path))
write(1)
size = os.stat(journal.path).st_size
"""


def test_a_line_for_which_there_is_no_room_is_refused_and_leaves_nothing(tmp_path):
    process = child(tmp_path, FULL + "write(2, size + 50); write(3, size); write(4)")
    assert process.communicate()[0].splitlines() == ["written", f"{errno.EFBIG} True", f"{errno.EFBIG} True", "written"]
    [path] = tmp_path.iterdir()
    assert [(line["seq"], line["id"]) for line in read(path)] == [(1, "1"), (2, "4")]
    assert path.read_bytes().count(b"\n") == 2


def test_a_half_line_that_cannot_be_taken_back_spoils_no_other(tmp_path, caplog):
    code = """
def refuse(*arguments):
    raise OSError(5, "Input/output error")
truncate, os.ftruncate = os.ftruncate, refuse
write(2, size + 50)
write(3, size + 52)
write(4)
os.ftruncate = truncate
write(5, os.stat(journal.path).st_size + 50)
write(6)
"""
    process = child(tmp_path, FULL + code)
    said = [line.split()[0] for line in process.communicate()[0].splitlines()]
    assert said == ["written", "27", "27", "written", "27", "written"]
    [path] = tmp_path.iterdir()
    assert [(line["seq"], line["id"]) for line in read(path)] == [(1, "1"), (2, "4"), (3, "6")]
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["not a record, left out"] * 2
