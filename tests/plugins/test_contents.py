"""What was asked and answered: kept only where it is wanted, as the chain shows it, encrypted, for a while."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, date, datetime

import pytest
from click.testing import CliRunner
from gateways import ECHO
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from plugins.contents import Contents
from proxy import Reject, cli, hookimpl, rewrite_text
from proxy.records.contents import ContentStore, WrongKey
from proxy.secrets import Secret
from proxy.testing import Rig, configured, tool_call

KEY = "k" * 32
DAY_S = 86400.0
CANARY = "canary-4417"


@pytest.fixture
def keyed(monkeypatch):
    monkeypatch.setenv("CONTENTS_KEY", KEY)

    def make(**options):
        return configured(Contents, key={"env": "CONTENTS_KEY"}, **options)

    return make


def kept(rig, id):
    return list(ContentStore(rig.gateway.state / "contents", KEY).find(id))


def files(rig):
    return [path.read_bytes() for path in (rig.gateway.state / "contents").rglob("*") if path.is_file()]


class Redact:
    """Takes the canary out on the way in, and puts it back on the way out."""

    name = "redact"

    @hookimpl
    def on_request(self, exchange):
        text = json.dumps(exchange.body["messages"]).replace(CANARY, "[N0]")
        exchange.body["messages"] = json.loads(text)

    @hookimpl
    def on_response(self, exchange):
        import re

        return lambda events: rewrite_text(events, re.compile(r"\[N0\]"), CANARY, longest=4)


@pytest.mark.parametrize("stream", [False, True])
def test_an_exchange_is_kept_as_it_was_asked_and_answered(keyed, stream):
    with Rig(keyed(models=["test-*"])) as rig:
        result = rig.run("How are you?", "I am well", stream=stream)
        [record] = kept(rig, result.exchange.id)
        assert record["request"]["messages"] == [{"role": "user", "content": "How are you?"}]
        [choice] = record["answer"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("I am well", "stop")
        assert (record["subject"], record["team"], record["model"]) == ("tester", "testers", "test-model")
        assert (record["status"], record["complete"]) == (200, True)
        assert all(b"How are you" not in raw and b"I am well" not in raw for raw in files(rig))


@pytest.mark.parametrize("stream", [False, True])
def test_behind_a_plugin_that_redacts_it_sees_placeholders_in_both_directions(keyed, stream):
    with Rig(Redact(), keyed(models=["*"])) as rig:
        result = rig.run(f"My name is {CANARY}", "Hello [N0]!", stream=stream)
        assert CANARY in result.text
        [record] = kept(rig, result.exchange.id)
        assert record["request"]["messages"][0]["content"] == "My name is [N0]"
        assert record["answer"][0]["message"]["content"] == "Hello [N0]!"


def test_before_it_what_the_client_sees(keyed):
    with Rig(keyed(models=["*"]), Redact()) as rig:
        result = rig.run(f"My name is {CANARY}", "Hello [N0]!", stream=True)
        [record] = kept(rig, result.exchange.id)
        assert record["request"]["messages"][0]["content"] == f"My name is {CANARY}"
        assert record["answer"][0]["message"]["content"] == f"Hello {CANARY}!"


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        ({"models": ["test-model"]}, True),
        ({"models": ["*"]}, True),
        ({"models": ["test"]}, False),
        ({"models": ["TEST-*", "t[e]st-*"]}, False),
        ({"teams": ["testers"]}, True),
        ({"teams": ["others"]}, False),
        ({"models": ["other"], "teams": ["testers"]}, True),
        ({"models": ["*"], "sample": 0}, False),
    ],
)
def test_only_named_models_and_teams_are_kept(keyed, options, is_kept):
    with Rig(keyed(**options)) as rig:
        result = rig.run()
        assert bool(kept(rig, result.exchange.id)) == is_kept
        assert bool(files(rig)) == is_kept


def test_a_sample_is_a_share(keyed, monkeypatch):
    draws = iter([0.1, 0.5, 0.29, 0.31])
    monkeypatch.setattr("plugins.contents.random.random", lambda: next(draws))
    with Rig(keyed(models=["*"], sample=0.3)) as rig:
        assert [bool(kept(rig, rig.run().exchange.id)) for _ in range(4)] == [True, False, True, False]


def test_what_is_too_long_is_cut_and_the_client_gets_it_all(keyed):
    with Rig(keyed(models=["*"], max_bytes=500)) as rig:
        result = rig.run("q" * 5000, "a" * 5000, stream=True, split=100)
        assert result.text == "a" * 5000
        [record] = kept(rig, result.exchange.id)
        assert record["request"]["cut"].endswith("qqq") and len(record["request"]["cut"]) == 500
        assert "aaa" in record["answer"]["cut"] and len(record["answer"]["cut"]) < 1000
        whole = rig.run("q", "é" * 5000)
        [record] = kept(rig, whole.exchange.id)
        assert len(record["answer"]["cut"]) <= 500


def test_tool_calls_refusals_and_cut_streams_are_kept_as_far_as_they_came(keyed):
    with Rig(keyed(models=["*"])) as rig:
        result = rig.run("Hi", {"tool_calls": [tool_call("weather", '{"city":"Oslo"}')]}, stream=True)
        [record] = kept(rig, result.exchange.id)
        [call] = record["answer"][0]["message"]["tool_calls"]
        assert call["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
        left = rig.run("Hi", "Hello there, friend", stream=True, leave_after=4)
        [record] = kept(rig, left.exchange.id)
        assert record["answer"][0]["finish_reason"] is None
        assert not record["complete"]


def test_what_a_later_plugin_refused_has_no_answer(keyed):
    class Guard:
        name = "guard"

        @hookimpl
        def on_request(self, exchange):
            raise Reject(403, "no", "No.")

    with Rig(keyed(models=["*"]), Guard) as rig:
        [record] = kept(rig, rig.run("Hi").exchange.id)
        assert (record["answer"], record["status"], record["code"]) == (None, 403, "no")


def test_a_full_disk_loses_the_record_and_not_the_answer(keyed, monkeypatch, caplog):
    with Rig(keyed(models=["*"])) as rig:
        monkeypatch.setattr(ContentStore, "_open", _full)
        first, second = rig.run(), rig.run()
        assert (first.status, first.complete, second.status) == (200, True, 200)
        assert rig.gateway.plugins["contents"]._lost.value == 2
        assert caplog.text.count("contents cannot be kept: No space left on device") == 1


def _full(self, today):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "models"),
        ({"models": []}, "models"),
        ({"models": [""]}, "models"),
        ({"models": ["*"], "sample": 1.5}, "sample"),
        ({"models": ["*"], "days": 0}, "days"),
        ({"models": ["*"], "max_bytes": 1}, "max_bytes"),
    ],
)
def test_options_that_keep_nothing_or_too_much_are_refused(keyed, options, where):
    with pytest.raises(ValidationError) as wrong:
        keyed(**options)
    assert where in wrong.value.messages


def test_a_short_key_is_refused(monkeypatch):
    monkeypatch.setenv("SHORT", "k" * 31)
    with pytest.raises(ValidationError, match="at least 32 characters"):
        configured(Contents, key={"env": "SHORT"}, models=["*"])
    with pytest.raises(ValidationError):
        configured(Contents, key=KEY, models=["*"])


class Store(ContentStore):
    """A store with a clock that the test moves."""

    def __init__(self, folder, key=KEY, days=30, now=datetime(2026, 1, 31, 12, tzinfo=UTC)):
        self.now = now.timestamp()
        super().__init__(folder, key, days, clock=lambda: self.now)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=50)), max_size=5))
def test_what_is_written_is_found_by_its_id(records):
    import tempfile
    from pathlib import Path

    records = [
        (id.encode("utf-8", "replace").decode(), text.encode("utf-8", "replace").decode()) for id, text in records
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for id, text in records:
            store.write(id, {"text": text})
        for id in {id for id, _ in records}:
            assert [found["text"] for found in store.find(id)] == [text for i, text in records if i == id]
        store.close()


def test_days_that_are_over_are_removed_when_a_new_one_begins(tmp_path):
    store = Store(tmp_path / "c", days=3)
    for day in range(5):
        store.write(f"req_{day}", {})
        store.now += DAY_S
    assert store.days() == ["2026-02-02", "2026-02-03", "2026-02-04"]
    assert [bool(list(store.find(f"req_{day}"))) for day in range(5)] == [False, False, True, True, True]
    assert store.purge(date(2026, 2, 4)) == ["2026-02-02", "2026-02-03"]
    store.close()


def test_a_clock_that_steps_back_writes_on(tmp_path):
    store = Store(tmp_path / "c")
    for step in (0, -2 * DAY_S, 2 * DAY_S):
        store.now += step
        store.write("req", {"at": store.now})
    assert len(list(store.find("req"))) == 3
    store.close()


def test_only_the_owner_may_read_it(tmp_path):
    store = Store(tmp_path / "c")
    store.write("req_1", {})
    store.close()
    [path] = (tmp_path / "c").rglob("*.lgc")
    assert [stat.S_IMODE(os.stat(p).st_mode) for p in (path, path.parent)] == [0o600, 0o700]


def test_another_key_opens_nothing(tmp_path):
    store = Store(tmp_path / "c")
    store.write("req_1", {"secret": 1})
    store.close()
    with pytest.raises(WrongKey, match="another key"):
        list(Store(tmp_path / "c", key="x" * 32).find("req_1"))


def test_a_record_that_was_changed_moved_or_renamed_is_told(tmp_path):
    store = Store(tmp_path / "c")
    for id in ("req_1", "req_2"):
        store.write(id, {"text": "the same"})
    store.close()
    [path] = (tmp_path / "c").rglob("*.lgc")
    whole = path.read_bytes()
    head, half = whole[:32], (len(whole) - 32) // 2
    first, second = whole[32 : 32 + half], whole[32 + half :]
    for changed in (
        whole[:-1] + bytes([whole[-1] ^ 1]),
        head + second + first,
        head + second,
        head + first.replace(b"req_1", b"req_2") + second,
    ):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="was changed"):
            list(store.find("req_2"))


@pytest.mark.parametrize("left", [33, 40, 60, -1])
def test_a_record_that_was_torn_is_left_out(tmp_path, left):
    store = Store(tmp_path / "c")
    store.write("req_1", {"text": "whole"})
    store.close()
    [path] = (tmp_path / "c").rglob("*.lgc")
    path.write_bytes(path.read_bytes()[:left])
    assert list(store.find("req_1")) == []


def test_a_write_that_the_disk_took_half_of_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path / "c")
    store.write("req_1", {})
    put = os.write
    calls = iter([lambda f, d: put(f, d[:10]), _no_space])
    monkeypatch.setattr("proxy.records.contents.os.write", lambda f, d: next(calls)(f, d))
    with pytest.raises(OSError, match="No space"):
        store.write("req_2", {})
    monkeypatch.undo()
    store.write("req_3", {})
    assert [len(list(store.find(f"req_{n}"))) for n in (1, 2, 3)] == [1, 0, 1]
    store.close()


def _no_space(file, data):
    raise OSError(28, "No space left on device")


def run(tmp_path, *arguments):
    return CliRunner().invoke(cli.main, ["contents", *arguments, "--config", str(tmp_path / "lockgate.toml")])


def test_the_command_shows_and_removes(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTENTS_KEY", KEY)
    own = '[plugins.contents]\nuse = "contents"\nmodels = ["*"]\nkey = { env = "CONTENTS_KEY" }\n'
    (tmp_path / "lockgate.toml").write_text(ECHO + own)
    old = Store(tmp_path / "var" / "contents")
    old.write("req_1", {"id": "req_1", "request": "Grüße"})
    old.close()
    shown = run(tmp_path, "show", "req_1")
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, {"id": "req_1", "request": "Grüße"})
    missing = run(tmp_path, "show", "req_2")
    assert missing.exit_code == 1 and "nothing is kept of 'req_2'" in missing.output
    monkeypatch.setenv("CONTENTS_KEY", "x" * 32)
    assert "another key" in run(tmp_path, "show", "req_1").output
    assert "2026-01-31" in run(tmp_path, "purge").output
    assert "nothing to remove" in run(tmp_path, "purge", "--all").output
    assert run(tmp_path, "purge", "--all", "--before", "2026-01-01").exit_code == 2


def test_the_key_is_shown_nowhere(keyed):
    plugin = keyed(models=["*"])
    assert isinstance(plugin._config["key"], Secret)
    assert KEY not in repr(vars(plugin))
