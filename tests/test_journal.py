"""The journal: a line for what happened, whatever was in it, whatever happens next."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading

import pytest
from crowds import until
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import KEY, answered, asked, child, exchange, opened, over, records, whole

from proxy.exchange import Attempt, Exchange, Identity, Outcome, Usage
from proxy.records.journal import Journal
from proxy.records.lines import json_line
from proxy.records.reading import Records, alive, files, lines
from proxy.records.rotation import DAY_S
from proxy.settings import JournalSettings


@pytest.fixture
def journal(tmp_path):
    with opened(tmp_path / "journal", clock=lambda: 1.5) as made:
        yield made


def kinds(path):
    """Return what kinds of lines a file has."""
    return [line["kind"] for line, _ in lines(path)]


def locked(path):
    """Tell whether some process holds the file's lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_an_exchange_leaves_three_lines(journal):
    sent = over(answered(asked(received=1.0, stream=True)))
    for write in (journal.start, journal.settle, journal.end):
        write(sent)
    journal.close()
    raw = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert all(len(line.pop("mac")) == 32 for line in raw)
    assert raw == [
        {
            "seq": 1,
            "kind": "start",
            "id": "req_1",
            "time": 1.0,
            "subject": "k1",
            "team": "search",
            "path": "/v1/chat/completions",
            "model": "gpt-5.2",
            "target": "openai/gpt-5.2",
            "stream": True,
            "client": "10.1.2.3",
            "agent": "OpenAI/Python 3.54.0",
            "prompt": 9,
            "reserved": 700,
        },
        {
            "seq": 2,
            "kind": "settle",
            "start": 1,
            "id": "req_1",
            "settled": 1.5,
            "target": "openai/gpt-5.2",
            "status": 200,
            "finish": {"0": "stop", "1": "length"},
            "usage": {"prompt": 10, "completion": 20, "cached": 3, "cache_write": 0, "reasoning": 4, "audio": 0},
            "estimated": False,
            "cost": 400,
        },
        {
            "seq": 3,
            "kind": "end",
            "start": 1,
            "id": "req_1",
            "ended": 1.5,
            "status": 200,
            "code": None,
            "complete": True,
            "client_gone": False,
            "culprit": None,
            "attempts": [["a/x", 503, "overloaded", 0.25], ["openai/gpt-5.2", 200, None, 1.0]],
            "first_event_s": 1.5,
            "duration_s": 1.75,
            "bytes_in": 567,
            "bytes_out": 1234,
            "trace": [["keys", "identified", 31]],
            "findings": {"email.request": 2},
        },
    ]


def test_an_exchange_refused_before_its_upstream_leaves_one_line_with_all(journal):
    refused = exchange(identity=Identity("k1"), model="gpt-5.2", outcome=Outcome(429, "rate_limit_exceeded"))
    journal.end(refused)
    [(line, _)] = lines(journal.path)
    assert (line["kind"], line["subject"], line["model"], line["client"]) == ("end", "k1", "gpt-5.2", "10.1.2.3")
    assert (line["status"], line["code"], line["usage"]) == (429, "rate_limit_exceeded", None)


def test_a_caller_nobody_knows_leaves_a_line_too(journal):
    journal.end(exchange(headers={}, outcome=Outcome(401, "invalid_api_key")))
    [(line, _)] = lines(journal.path)
    assert (line["subject"], line["team"], line["model"], line["agent"]) == (None, None, None, "")


def test_an_answer_that_broke_off_says_at_its_end_what_it_cost(journal):
    sent = answered(asked())
    journal.start(sent)
    sent.outcome = Outcome(200, "upstream_error", False)
    journal.end(sent)
    *_, (end, _) = lines(journal.path)
    assert (end["kind"], end["cost"], end["usage"]["completion"], end["code"]) == ("end", 400, 20, "upstream_error")


def test_nothing_that_was_said_and_no_credential_and_no_name_is_written(journal):
    sent = asked(
        headers={"authorization": "Bearer canary", "cookie": "canary", "x-anything": "canary"},
        body={"messages": [{"role": "user", "content": "canary"}], "user": "canary", "metadata": {"canary": "canary"}},
        response_headers={"x-canary": "canary"},
        identity=Identity("k1", "canary", grants={"canary": "canary"}, limits={"canary": 1}),
        upstream_headers={"traceparent": "canary"},
    )
    sent.stash["canary"] = "canary"
    for write in (journal.start, journal.settle, journal.end):
        write(sent)
    journal.close()
    assert kinds(journal.path) == ["start", "settle", "end"]
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
    attempts=st.lists(st.builds(Attempt, any_text, any_number, any_number, any_text, any_number), max_size=20),
    usage=st.none() | st.builds(Usage, st.integers(), st.integers(), st.integers()),
    cost_estimate=st.none() | st.integers(),
    findings=st.dictionaries(any_text, st.integers(), max_size=30),
    trace=st.lists(st.tuples(any_text, any_long, st.integers()), max_size=40),
    outcome=st.builds(
        Outcome,
        status=st.integers(),
        code=st.none() | any_long,
        finish_reasons=st.dictionaries(st.integers(), any_long, max_size=130),
        bytes_in=st.integers(),
        bytes_out=st.integers(),
        first_event_s=st.none() | any_number,
        duration_s=any_number,
        culprit=st.none() | any_text,
    ),
)


@settings(deadline=None, max_examples=60)
@given(any_exchange)
def test_whatever_is_in_an_exchange_makes_one_legal_line_each(tmp_path_factory, sent):
    with opened(tmp_path_factory.mktemp("journal"), JournalSettings(fsync="never")) as journal:
        for write in (journal.start, journal.settle, journal.end):
            write(sent)
    raw = journal.path.read_bytes()
    assert raw.count(b"\n") == 3 and raw.endswith(b"\n")
    assert all(character.isprintable() for character in raw.decode().replace("\n", ""))
    assert all(len(line) <= 4096 for line in raw.splitlines(keepends=True))
    assert [(line["seq"], line["kind"]) for line, _ in lines(journal.path)] == [(1, "start"), (2, "settle"), (3, "end")]
    assert [*map(json.loads, raw.splitlines())]


def test_a_user_agent_of_a_megabyte_leaves_a_line_of_its_beginning(journal):
    journal.end(exchange(headers={"user-agent": "a\ud800" * 500_000}))
    [(line, _)] = lines(journal.path)
    assert line["agent"] == "a\ufffd" * 128
    assert len(journal.path.read_bytes()) < 4096


def test_an_ordinary_text_in_another_script_stays_readable():
    assert json_line({"name": "Jürgen 東京"}) == '{"name":"Jürgen 東京"}\n'.encode()


def test_a_control_character_that_json_leaves_is_replaced():
    assert json.loads(json_line({"delete": "a\x7fb"})) == {"delete": "a\ufffdb"}
    assert json.loads(json_line({"agent": "a\x9b31m\u202eb", "deep": [{"x\x85": "\ud800"}]})) == {
        "agent": "a\ufffd31m\ufffdb",
        "deep": [{"x\ufffd": "\ufffd"}],
    }


def test_lists_that_are_too_long_are_cut_and_the_record_keeps_its_own_names():
    line = json.loads(json_line({f"field{n}": ["é" * 300] * 100 for n in range(20)}))
    assert len(line) == 20 and len(line["field7"]) == 4


def test_a_file_is_its_owners_alone_and_sorts_by_time(tmp_path):
    journals = [Journal(tmp_path / "journal", KEY, clock=lambda now=now: now) for now in (1e9, 1e9, 1e9 + 1)]
    names = [journal.path.name for journal in journals]
    assert all(name.startswith("20010909T0146") and f"-{os.getpid()}-" in name for name in names)
    assert len(set(names)) == 3 and max(names) == names[2]
    assert {journal.path.stat().st_mode & 0o777 for journal in journals} == {0o600}
    assert files(tmp_path / "journal") == sorted(journal.path for journal in journals)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    for journal in journals:
        journal.close()
    assert {journal.path.stat().st_mode & 0o777 for journal in journals} == {0o400}


def test_a_file_is_locked_until_it_is_closed(journal):
    journal.end(exchange())
    assert locked(journal.path) and alive(journal.path)
    journal.close()
    journal.close()
    assert not locked(journal.path) and not alive(journal.path)


def test_two_who_ask_at_once_do_not_take_each_other_for_the_writer(journal):
    journal.close()
    with journal.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not alive(journal.path)


def test_a_closed_journal_refuses(journal):
    journal.close()
    for write in (journal.start, journal.end):
        with pytest.raises(OSError, match="Bad file descriptor"):
            write(exchange())


def test_threads_write_whole_lines_in_one_order(journal, monkeypatch):
    put = os.write

    def in_two_pieces(descriptor, line):
        return put(descriptor, line[: len(line) // 2 or 1])

    monkeypatch.setattr(os, "write", in_two_pieces)

    def write(thread):
        for number in range(50):
            whole(journal, f"{thread}-{number}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    journal.close()
    assert [line["seq"] for line, _ in lines(journal.path)] == list(range(1, 1201))
    found = records(journal.path)
    assert len({record["id"] for record in found}) == len(found) == 400
    assert {record["state"] for record in found} == {"ended"}


def test_a_forked_child_may_not_write_its_parents_journal(journal):
    process = os.fork()
    if process == 0:
        try:
            journal.end(exchange())
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    assert list(lines(journal.path)) == []


def test_the_end_of_a_settled_exchange_goes_with_the_next_line(journal, monkeypatch):
    written, put = [], os.write
    monkeypatch.setattr("proxy.records.journal.HOLD_S", 3600)
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: written.append(data.count(b"\n")) or put(descriptor, data)
    )
    whole(journal, "first")
    assert kinds(journal.path) == ["start", "settle"]
    journal.start(asked("second"))
    assert kinds(journal.path) == ["start", "settle", "end", "start"] and written == [1, 1, 2]


def test_an_end_that_no_line_follows_is_written_a_moment_later(journal):
    whole(journal)
    until(lambda: kinds(journal.path) == ["start", "settle", "end"])


def test_an_end_without_which_nothing_would_be_known_does_not_wait(journal, monkeypatch):
    monkeypatch.setattr("proxy.records.journal.HOLD_S", 3600)
    sent = asked()
    journal.start(sent)
    journal.end(sent)
    journal.end(exchange("refused"))
    assert kinds(journal.path) == ["start", "end", "end"]


def test_an_exchange_stays_in_its_file_and_new_ones_go_to_the_next(tmp_path):
    with opened(tmp_path, JournalSettings(max_file_bytes=1000)) as journal:
        sent, first = asked("long"), journal.path
        journal.start(sent)
        for number in range(3):
            whole(journal, f"in between {number}")
        assert journal.path != first and alive(first)
        journal.settle(answered(sent))
        journal.end(over(sent))
        until(lambda: not alive(first))
        assert [record["state"] for record in records(first)] == ["ended"] * len(records(first))
        assert "long" in {record["id"] for record in records(first)}
    found = [record["id"] for path in files(tmp_path) for record in records(path)]
    assert sorted(found) == ["in between 0", "in between 1", "in between 2", "long"]


def test_a_new_day_begins_a_new_file_and_a_clock_that_steps_back_none(tmp_path):
    now = 5 * DAY_S - 1.0
    with opened(tmp_path, clock=lambda: now) as journal:
        whole(journal, "1")
        first = journal.path
        now += 2
        whole(journal, "2")
        second = journal.path
        now -= 3600
        whole(journal, "3")
        assert first != second == journal.path and first.name[:8] == "19700105"
    assert [record["id"] for record in records(first)] == ["1"]
    assert [record["id"] for record in records(second)] == ["2", "3"]


def test_a_file_that_cannot_have_a_successor_goes_on_being_used(tmp_path, monkeypatch):
    with opened(tmp_path, JournalSettings(max_file_bytes=1)) as journal:
        whole(journal, "1")
        monkeypatch.setattr("proxy.records.rotation.Segment", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many")))
        whole(journal, "2")
        whole(journal, "3")
        assert journal.failures == 1 and journal.writable
    assert [record["id"] for record in records(journal.path)] == ["1", "2", "3"]


@pytest.mark.parametrize(("fsync", "least"), [("never", 0), (10, 1), ("each", 2)])
def test_lines_are_put_on_the_disk_as_often_as_was_asked_for(tmp_path, monkeypatch, fsync, least):
    synced = []
    sync = os.fdatasync
    with opened(tmp_path, JournalSettings(fsync=fsync)) as journal:
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(descriptor) or sync(descriptor))
        sent = answered(asked())
        journal.start(sent)
        journal.settle(sent)
        if fsync == "each":
            assert len(synced) == 2
        until(lambda: len(synced) >= least)
        if fsync == "never":
            whole(journal)
            until(lambda: len(kinds(journal.path)) == 5)
            assert synced == []


KILLED = """
number = 0
while True:
    number += 1
    sent = asked(str(number))
    journal.start(sent)
    os.write(1, b"%d start\\n" % number)
    journal.settle(answered(sent))
    os.write(1, b"%d settle\\n" % number)
    journal.end(over(sent))
"""


@pytest.mark.parametrize("round", range(3))
def test_a_killed_process_loses_no_line_that_it_was_told_is_written(tmp_path, round):
    process = child(tmp_path, KILLED)
    while process.stdout.readline() != f"{200 + round} start\n":
        pass
    [path] = files(tmp_path)
    assert alive(path)
    process.send_signal(signal.SIGKILL)
    # `communicate` would miss the line of which the beginning has been read already.
    said = [line.split() for line in process.stdout if line.endswith("\n")]
    process.communicate()
    assert not alive(path)
    found = {record["id"]: record for record in records(path)}
    assert sorted(map(int, found)) == list(range(1, len(found) + 1))
    assert {number for number, _ in said} <= found.keys()
    assert all(found[number]["state"] in ("settled", "ended") for number, what in said if what == "settle")
    assert all(found[number]["cost"] == 400 for number, what in said if what == "settle")
    reader = Records(path)
    assert len(reader.read(50)) == 50 and reader.offset < path.stat().st_size
