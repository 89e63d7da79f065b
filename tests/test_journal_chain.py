"""The journal's chain: whatever is changed, moved or taken out is found and named, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import closing

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import KEY, answered, asked, child, exchange, opened, records, whole

from proxy.exchange import Outcome
from proxy.records import chain
from proxy.records import verify as verification
from proxy.records.index import NAME, Index
from proxy.records.reading import alive, files
from proxy.records.verify import verify
from proxy.settings import JournalSettings

#: Of a small journal for the property: one file with two exchanges and one refusal.
LINES = 7


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A journal of three closed files, with an anchor before the last of them."""
    directory = tmp_path_factory.mktemp("kept")
    anchor = b""
    for number in range(3):
        if number == 2:
            anchor = Index(directory, KEY).anchor()
        with opened(directory, JournalSettings(fsync="never")) as journal:
            whole(journal, f"a{number}")
            whole(journal, f"b{number}")
            journal.end(exchange(f"c{number}", outcome=Outcome(429, "rate_limit_exceeded")))
    return directory, anchor


@pytest.fixture
def copy(kept, tmp_path):
    """Copies of that journal, to be changed: the folder and its files, the index last."""
    shutil.copytree(kept[0], tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        path.chmod(0o600)
    return tmp_path / "copy", [*files(tmp_path / "copy"), tmp_path / "copy" / NAME]


def problems(directory, anchor=None):
    return verify(directory, KEY, anchor).problems


def put(path, lines):
    path.chmod(0o600)
    path.write_bytes(b"".join(lines))


def taken(path):
    return path.read_bytes().splitlines(keepends=True)


def test_a_journal_that_nobody_changed_verifies(kept):
    directory, anchor = kept
    report = verify(directory, KEY, anchor)
    assert (report.problems, report.notes) == ([], [])
    assert (report.files, report.lines, report.dropped) == (3, 3 * LINES + 7, 0)
    assert report.anchored == orjson.loads(anchor)["time"]


def test_another_key_makes_every_line_wrong(kept):
    assert len(verify(kept[0], b"x" * 32).problems) == 7 + 3


def test_the_first_changed_record_is_named(copy):
    directory, [_, path, *_] = copy
    lines = taken(path)
    put(path, [*lines[:4], lines[4].replace(b'"cost":400', b'"cost":100'), *lines[5:]])
    assert problems(directory) == [f"{path.name}, line 5: record 5 (b1) was changed, or does not belong there"]


def test_a_record_taken_out_is_told_by_its_number(copy):
    directory, [path, *_] = copy
    lines = taken(path)
    put(path, [*lines[:2], *lines[4:]])
    assert problems(directory) == [
        f"{path.name}, line 3: record 5 (b0) does not follow: records 3 to 4 before it are missing",
        f"{path.name}: its tail is missing, records 6 to 7",
    ]


def test_a_tail_taken_off_is_told_by_its_numbers(copy):
    directory, [path, *_] = copy
    put(path, taken(path)[:-2])
    assert problems(directory) == [f"{path.name}: its tail is missing, records 6 to 7"]


def test_a_line_that_is_no_record_any_more_is_told(copy):
    directory, [path, *_] = copy
    lines = taken(path)
    put(path, [lines[0], b"gone\n", *lines[2:]])
    assert problems(directory)[0] == f"{path.name}, line 2: where record 2 should be is no record"


def test_a_file_taken_away_is_named(copy):
    directory, [path, *_] = copy
    path.unlink()
    [problem] = problems(directory)
    assert problem.startswith(f"{path.name} is missing: it was begun at 20")


def test_a_file_that_was_put_there_is_named(copy):
    directory, [path, *_] = copy
    shutil.copy(path, directory / "20990101T000000.000000Z-1-00000000.jsonl")
    [problem] = problems(directory)
    assert problem.startswith("20990101T000000.000000Z-1-00000000.jsonl is not in the index")


def test_two_files_that_change_names_are_found(copy):
    directory, [one, two, *_] = copy
    one.rename(directory / "x")
    two.rename(one)
    (directory / "x").rename(two)
    assert len(problems(directory)) == 4


def test_an_index_taken_away_or_emptied_is_found(copy):
    directory, [*_, index] = copy
    put(index, [])
    assert len(problems(directory)) == 3
    index.unlink()
    assert problems(directory) == ["index.jsonl is missing, without which nothing can be told of any file"]


def test_a_tail_of_everything_is_found_by_the_anchor_that_was_brought_to_safety(copy, kept):
    directory, [_, second, third, index] = copy
    lines = taken(index)
    put(index, lines[:3])
    second.unlink()
    third.unlink()
    assert problems(directory) == [f"{second.name} is missing: it was begun" + problems(directory)[0].split("begun")[1]]
    put(index, lines[:2])
    assert problems(directory) == []  # nothing here knows better
    [problem] = problems(directory, kept[1])
    assert problem.startswith("index.jsonl does not have line 5 as it was anchored at 20")


def test_the_tail_of_an_open_file_is_found_by_the_last_anchor(tmp_path):
    with opened(tmp_path) as journal:
        for number in range(3):
            journal.end(exchange(str(number)))
        anchor = Index(tmp_path, KEY).anchor()
        journal.end(exchange("later"))
        assert verify(tmp_path, KEY, anchor).problems == []
        lines = taken(journal.path)
        put(journal.path, lines[:3])
        assert problems(tmp_path) == []  # not anchored yet
        put(journal.path, lines[:2])
        found = problems(tmp_path)
        assert found[0].startswith(f"{journal.path.name}: its tail is missing, records 3 to 3, which were there at 20")
        put(journal.path, [])


def test_what_is_no_anchor_is_refused(kept):
    for raw in (b"", b"{}", b"[1]", b'{"kind":"open","seq":1}'):
        with pytest.raises(ValueError, match="not an anchor"):
            verify(kept[0], KEY, raw)


def test_a_forged_anchor_is_believed_in_nothing(kept):
    forged = b'{"seq":1,"kind":"anchor","time":1,"files":{"a":[1,2]}}'
    assert problems(kept[0], forged) == [
        "index.jsonl does not have line 1 as it was anchored at 1970-01-01T00:00:01Z: "
        "it was changed, or its tail is missing"
    ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_any_byte_or_line_is_found(kept, tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("changed") / "journal"
    shutil.copytree(kept[0], directory)
    path = data.draw(st.sampled_from([*files(directory), directory / NAME]))
    lines = taken(path)
    position = st.integers(0, len(lines) - 1)
    how = data.draw(st.sampled_from(["byte", "cut", "remove", "move", "double", "insert", "append"]))
    at, other = data.draw(position), data.draw(position)
    changed = list(lines)
    if how == "byte":
        where, byte = data.draw(st.integers(0, len(lines[at]) - 1)), data.draw(st.binary(min_size=1, max_size=1))
        changed[at] = lines[at][:where] + byte + lines[at][where + 1 :]
    elif how == "cut":
        changed[at:] = [lines[at][: data.draw(st.integers(0, len(lines[at]) - 1))]]
    elif how == "remove":
        del changed[at : max(at, other) + 1]
    elif how == "move":
        changed.insert(other, changed.pop(at))
    elif how == "double":
        changed.insert(other, lines[at])
    elif how == "insert":
        changed.insert(at, data.draw(st.binary(max_size=20)) + b"\n")
    else:
        changed.append(data.draw(st.binary(min_size=1, max_size=20)))
    put(path, changed)
    left = path.read_bytes()
    if path.name == NAME and left[: left.rfind(b"\n") + 1] == b"".join(lines[:-1]):
        # The index has lost its last line, behind the last anchor: who vouches for it is the next anchor.
        return
    if path.name == NAME and left[: left.rfind(b"\n") + 1] == b"".join(lines):
        # A half line behind it is what a crash leaves, and nobody reads it.
        return
    assert (problems(directory, kept[1]) == []) is (left == b"".join(lines))


def test_a_process_that_died_is_entered_by_the_next_one_and_all_verifies(tmp_path):
    process = child(tmp_path, "journal.start(asked()); os.write(1, b'x'); sys.stdin.read()")
    assert process.stdout.read(1) == "x"
    [path] = files(tmp_path)
    assert verify(tmp_path, KEY).notes == []
    assert Index(tmp_path, KEY).recover() == []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with path.open("ab") as file:
        file.write(b'{"seq":2,"kind":"sett')
    report = verify(tmp_path, KEY)
    assert (report.problems, len(report.notes)) == ([], 2)
    with opened(tmp_path) as journal:
        closed = [entry for entry in Index(tmp_path, KEY).entries() if entry["kind"] == "close"]
        assert [(entry["file"], entry["lines"], entry["torn"], entry["died"]) for entry in closed] == [
            (path.name, 1, 21, True)
        ]
        assert alive(journal.path) and not alive(path)
    report = verify(tmp_path, KEY)
    assert (report.problems, report.notes) == ([], [])
    assert [record["state"] for record in records(path)] == ["lost"]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    assert problems(tmp_path) == [f"{path.name}: has other bytes behind its last record than when it was closed"]


def test_retention_leaves_a_checkpoint_and_the_rest_verifies(copy, kept):
    directory, [one, two, three, _] = copy
    assert Index(directory, KEY).drop([one.name, two.name, "never there"]) == [one.name, two.name]
    assert files(directory) == [three]
    report = verify(directory, KEY, kept[1])
    assert (report.problems, report.files, report.dropped) == ([], 1, 2)
    drops = [entry for entry in Index(directory, KEY).entries() if entry["kind"] == "drop"]
    assert [(entry["file"], entry["lines"]) for entry in drops] == [(one.name, LINES), (two.name, LINES)]
    shutil.copy(kept[0] / one.name, one)  # it died between the entry and the removal
    assert problems(directory) == []


def test_a_file_that_another_process_takes_or_keeps_is_left_by_who_recovers(tmp_path, monkeypatch, caplog):
    paths = []
    for _ in range(2):
        with opened(tmp_path) as journal:
            paths.append(journal.path)
    for path in paths:
        path.chmod(0o600)

    def alive(path):
        raise FileNotFoundError(path) if path == paths[0] else PermissionError(path)

    monkeypatch.setattr("proxy.records.index.alive", alive)
    assert Index(tmp_path, KEY).recover() == []
    assert caplog.messages == [f"{paths[1]} cannot be read by this user, and is left as it is"]


def test_a_gateway_that_goes_on_meanwhile_makes_no_problem(copy, monkeypatch):
    directory, [one, *_] = copy
    began = verification.files
    dropped = Index(directory, KEY)

    def files(folder):
        with opened(directory, JournalSettings(fsync="never")) as journal:
            journal.end(exchange("meanwhile"))
        return began(folder)

    monkeypatch.setattr(verification, "files", files)
    assert problems(directory) == []
    exists = type(one).exists

    def gone(path):
        if path.name == one.name and exists(path):
            dropped.drop([one.name])
        return exists(path)

    monkeypatch.setattr(type(one), "exists", gone)
    assert problems(directory) == []


def test_an_open_file_is_not_dropped(tmp_path):
    with opened(tmp_path) as journal:
        assert Index(tmp_path, KEY).drop([journal.path.name]) == []
        assert journal.path.exists()


def test_a_half_line_of_the_index_is_taken_away_by_whoever_appends_next(tmp_path):
    index = Index(tmp_path, KEY)
    index.append("audit", {"act": "first"})
    with index.path.open("ab") as file:
        file.write(b'{"seq":2,"kind":"au')
    assert [entry["act"] for entry in index.entries()] == ["first"]
    index.append("audit", {"act": "second"})
    assert [(entry["seq"], entry["act"]) for entry in index.entries()] == [(1, "first"), (2, "second")]
    assert problems(tmp_path) == []


def test_processes_that_append_at_once_keep_the_index_whole(tmp_path):
    code = """
from proxy.records.index import Index
sys.stdin.readline()
for number in range(50):
    Index(Path(sys.argv[1]), KEY).append("audit", {"act": str(number)})
"""
    processes = [child(tmp_path, code) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert problems(tmp_path) == []
    assert len([entry for entry in Index(tmp_path, KEY).entries() if entry["kind"] == "audit"]) == 4 * 50


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=4), st.integers(0, 100_000))
@settings(max_examples=20, deadline=None)
def test_the_last_whole_line_is_found_however_long_lines_are(tmp_path_factory, lengths, torn):
    path = tmp_path_factory.mktemp("tail") / "file"
    lines = [b"x" * length + b"\n" for length in lengths]
    path.write_bytes(b"".join(lines) + b"y" * torn)
    with closing(os.fdopen(os.open(path, os.O_RDONLY))) as file:
        size = path.stat().st_size
        assert chain.tail(file.fileno(), size) == (lines[-1], size - torn)


def test_a_clock_that_steps_back_makes_no_problem(tmp_path):
    times = [1e9]
    for _ in range(3):
        with opened(tmp_path, clock=lambda: times[-1]) as journal:
            sent = answered(asked(received=times[-1]))
            journal.start(sent)
            times.append(times[-1] - 86_400)
            journal.end(sent)
        [record] = records(journal.path)
        assert record["ended"] < record["time"]
    assert problems(tmp_path) == []
