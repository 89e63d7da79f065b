"""Records from lines: an exchange is one record, whoever reads from wherever, and whoever died over it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import answered, asked, exchange, opened, over, records, whole

from proxy.exchange import Outcome
from proxy.records.journal import Journal
from proxy.records.reading import FIELDS, Records, lines
from proxy.settings import JournalSettings


@pytest.fixture
def journal(tmp_path):
    with opened(tmp_path / "journal", JournalSettings(fsync="never"), clock=lambda: 1.5) as made:
        yield made


def test_a_record_has_all_fields_whatever_became_of_the_exchange(journal):
    whole(journal, "ended")
    journal.end(exchange("refused", outcome=Outcome(429, "rate_limit_exceeded")))
    journal.start(asked("lost"))
    journal.close()
    found = records(journal.path)
    assert [tuple(record) for record in found] == [FIELDS] * 3
    assert [(record["id"], record["state"]) for record in found] == [
        ("ended", "ended"),
        ("refused", "ended"),
        ("lost", "lost"),
    ]
    assert [record["key"] for record in found] == [f"{journal.path.stem}:{number}" for number in (1, 4, 5)]


def test_a_record_says_who_asked_what_it_cost_and_how_long_it_took(journal):
    sent = answered(asked(received=1.0))
    journal.start(sent)
    journal.settle(sent)
    journal.end(over(sent))
    journal.close()
    [record] = records(journal.path)
    assert (record["subject"], record["team"], record["model"], record["target"]) == (
        *("k1", "search", "gpt-5.2"),
        "openai/gpt-5.2",
    )
    assert (record["cost"], record["reserved"], record["estimated"], record["prompt"]) == (400, 700, False, 9)
    assert (record["time"], record["settled"], record["ended"]) == (1.0, 1.5, 1.5)
    assert (record["upstream_s"], record["ours_s"], record["duration_s"]) == (1.25, 0.25, 1.75)
    assert "mac" not in record and "seq" not in record and "name" not in record


def test_a_last_line_that_is_no_record_is_told_once(journal, tmp_path, caplog):
    whole(journal, "before")
    journal.close()
    path = tmp_path / "edited.jsonl"
    path.write_bytes(journal.path.read_bytes() + b"no record\n[]\n")
    reader = Records(path)
    assert [record["id"] for record in reader.read()] == ["before"]
    for _ in range(3):
        assert reader.read() == []
    assert caplog.text.count("is no record, left out") == 2
    assert reader.offset == path.stat().st_size


def test_what_died_before_its_answer_is_lost_at_its_estimate_and_what_had_one_is_not(journal):
    journal.start(asked("lost"))
    journal.start(paid := asked("settled"))
    journal.settle(answered(paid))
    journal.close()
    reader = Records(journal.path)
    assert reader.read() == []
    lost, settled = reader.rest()
    assert (lost["id"], lost["state"], lost["cost"], lost["estimated"], lost["status"]) == (
        "lost",
        "lost",
        700,
        True,
        None,
    )
    assert (settled["id"], settled["state"], settled["cost"], settled["estimated"]) == (
        "settled",
        "settled",
        400,
        False,
    )
    assert (settled["status"], settled["usage"]["completion"], settled["ended"]) == (200, 20, None)
    assert reader.rest() == []


def test_a_reader_that_goes_on_misses_nothing_and_knows_where_another_must_begin(journal):
    journal.start(long := asked("long"))
    reader = Records(journal.path)
    for number in range(5):
        journal.end(exchange(str(number)))
    assert [record["id"] for record in reader.read(2)] == ["0", "1"]
    assert [record["id"] for record in reader.read()] == ["2", "3", "4"]
    assert (reader.read(), reader.offset) == ([], 0)  # the oldest has not ended
    journal.end(over(long))
    assert [record["id"] for record in reader.read()] == ["long"]
    assert reader.offset == journal.path.stat().st_size
    journal.start(asked("next"))
    assert reader.read() == []
    assert Records(journal.path, reader.offset).read() == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40), st.data())
def test_readers_that_take_turns_return_each_record_once_by_its_key(tmp_path_factory, steps, data):
    journal = Journal(tmp_path_factory.mktemp("turns"), b"k" * 32, JournalSettings(fsync="never"))
    running: dict[int, object] = {}
    offset, seen, done = 0, {}, 0
    for slot, what in steps:
        sent = running.get(slot)
        if sent is None:
            running[slot] = asked(f"{slot}")
            journal.start(running[slot])
            done += 1
        elif what == 0:
            journal.settle(answered(sent))
        elif what == 1:
            journal.end(running.pop(slot))
        elif what == 2:
            journal.end(exchange("refused"))
            done += 1
        else:
            reader = Records(journal.path, offset)
            seen |= {record["key"]: record for record in reader.read(data.draw(st.integers(1, 5)))}
            offset = reader.offset
    journal.close()
    reader = Records(journal.path, offset)
    while found := reader.read(3):
        seen |= {record["key"]: record for record in found}
    for record in reader.rest():
        assert record["key"] not in seen
        seen[record["key"]] = record
    assert seen == {record["key"]: record for record in records(journal.path)}
    assert len(seen) == done


def test_a_torn_last_line_is_left_out_and_read_when_it_is_whole(journal, caplog):
    journal.end(exchange("whole"))
    journal.end(exchange("torn"))
    journal.close()
    raw = journal.path.read_bytes()
    first = raw.index(b"\n") + 1
    journal.path.chmod(0o600)
    for cut in range(first, len(raw)):
        journal.path.write_bytes(raw[:cut])
        reader = Records(journal.path)
        assert [record["id"] for record in reader.read()] == ["whole"]
        journal.path.write_bytes(raw)
        assert [record["id"] for record in reader.read()] == ["torn"]
    assert not caplog.records


@pytest.mark.parametrize("garbage", [b"\0\0\n", b"[]\n", b'"text"\n', b"{\n"])
def test_a_line_that_is_no_record_is_left_out_and_told(journal, caplog, garbage):
    journal.end(exchange("whole"))
    journal.close()
    journal.path.chmod(0o600)
    journal.path.write_bytes(garbage + journal.path.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert [record["id"] for record in records(journal.path)] == ["whole"]
    assert caplog.messages == [f"{journal.path}: the line before byte {len(garbage)} is no record, left out"]


def test_lines_of_another_kind_are_no_records(journal):
    whole(journal)
    journal.close()
    index = journal.path.with_name("index.jsonl")
    assert [line["kind"] for line, _ in lines(index)] == ["open", "close"]
    assert records(index) == []
