"""The audit: what was done to the gateway is written down, and the whole journal can be verified and anchored."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner
from gateways import ECHO, Gateway
from journals import KEY, exchange, opened
from states import settings_in

from proxy import cli
from proxy.config import assemble
from proxy.errors import ConfigError
from proxy.records import audit
from proxy.records.index import Index, key, of
from proxy.records.journal import Journal
from proxy.records.verify import verify
from proxy.settings import JournalSettings, Settings

SECRET = "s" * 32


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration whose journal has some records, and a key from the environment."""
    monkeypatch.setenv("JOURNAL_KEY", SECRET)
    path = tmp_path / "lockgate.toml"
    path.write_text(ECHO + '[journal]\nkey = { env = "JOURNAL_KEY" }\n[server]\nstate = "var"\n')
    with closing(Journal(tmp_path / "var" / "journal", SECRET.encode())) as journal:
        for number in range(3):
            journal.end(exchange(str(number)))
    return path


def run(config, *arguments, code=0):
    """Run `lockgate audit …` and return what it prints."""
    done = CliRunner().invoke(cli.main, ["audit", *map(str, arguments), "--config", str(config)])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def acts(state):
    return [(act["act"], act["details"]) for act in audit.acts(settings_in(state))]


def test_an_act_is_written_down_with_who_did_it(tmp_path):
    audit.note(settings_in(tmp_path), "key.create", key="k1", team="search", changed=["grants", "limits"])
    [act] = audit.acts(settings_in(tmp_path))
    assert (act["act"], act["details"]) == (
        "key.create",
        {"key": "k1", "team": "search", "changed": ["grants", "limits"]},
    )
    assert (act["by"]["uid"], act["by"]["pid"]) == (os.getuid(), os.getpid())
    assert verify(tmp_path / "journal", key(settings_in(tmp_path))).problems == []


def test_who_became_root_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1000")
    audit.note(settings_in(tmp_path), "key.revoke", key="k1")
    [act] = audit.acts(settings_in(tmp_path))
    assert act["by"]["sudo_uid"] == 1000


def test_an_act_with_texts_that_break_lines_is_one_line(tmp_path):
    audit.note(settings_in(tmp_path), "team.create", team="a\n\ud800\x1b" + "x" * 100_000)
    [act] = audit.acts(settings_in(tmp_path))
    assert act["details"]["team"].startswith("a\ufffd\ufffd\ufffdxxx")
    assert len(of(settings_in(tmp_path)).path.read_bytes()) < 1000


def test_an_act_that_cannot_be_written_raises(tmp_path, monkeypatch):
    audit.note(settings_in(tmp_path), "first")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            audit.note(settings_in(tmp_path), "second")
    assert [act for act, _ in acts(tmp_path)] == ["first"]


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    made = key(settings_in(tmp_path))
    assert len(made) == 64 and key(settings_in(tmp_path)) == made
    assert (tmp_path / "journal.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "journal.key").chmod(0o644)
    with pytest.raises(ConfigError, match="is open to other users"):
        key(settings_in(tmp_path))
    (tmp_path / "journal.key").chmod(0o600)
    (tmp_path / "journal.key").write_text("short")
    with pytest.raises(ConfigError, match="must have at least 32 characters"):
        key(settings_in(tmp_path))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('key = "written here"', "a secret is not written here"),
        ('key = { env = "SHORT" }', "must have at least 32 characters"),
        ("fsync = 5", 'must be "never", "each", or milliseconds'),
        ('fsync = "sometimes"', 'must be "never", "each", or milliseconds'),
        ("fsync = true", 'must be "never", "each", or milliseconds'),
        ('when_full = "panic"', "must be one of refuse, continue"),
        ("max_file_bytes = 1", "65536"),
    ],
)
def test_a_journal_section_that_is_wrong_is_told(tmp_path, monkeypatch, line, problem):
    monkeypatch.setenv("SHORT", "x")
    path = tmp_path / "lockgate.toml"
    path.write_text(ECHO + f"[journal]\n{line}\n")
    with pytest.raises(ConfigError) as told:
        assemble(path)
    assert [text for text in told.value.problems if text.startswith("journal.") and problem in text]


def test_a_journal_section_that_is_right_is_read(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_text(ECHO + '[journal]\nfsync = 200\nwhen_full = "continue"\nmax_file_bytes = 65536\n')
    settings: Settings = assemble(path)[0]
    assert settings.journal == JournalSettings(None, 200, 65536, "continue")
    path.write_text(ECHO + '[journal]\nfsync = "each"\n')
    assert assemble(path)[0].journal == JournalSettings(fsync="each")


def test_verify_says_that_all_is_well_and_what_is_not(config, tmp_path):
    assert run(config, "verify").startswith("The journal verifies: 5 lines in 1 files, 0 removed by retention")
    [path] = (tmp_path / "var" / "journal").glob("2*.jsonl")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"id":"1"', b'"id":"7"'))
    assert run(config, "verify", code=1).startswith(f"BROKEN  {path.name}, line 2: record 2 (7) was changed")
    report = json.loads(run(config, "verify", "--json", code=1))
    assert (len(report["problems"]), report["files"], report["lines"], report["anchored"]) == (1, 1, 5, None)


def test_a_copy_is_verified_where_no_gateway_is(config, tmp_path):
    (tmp_path / "key").write_text(SECRET + "\n")
    (tmp_path / "var" / "journal").rename(tmp_path / "copy")
    journal = ["--journal", tmp_path / "copy", "--key-file", tmp_path / "key"]
    assert run(tmp_path / "nowhere.toml", "verify", *journal).startswith("The journal verifies")
    assert "belong together" in run(config, "verify", "--journal", tmp_path / "copy", code=2)
    assert "No such file" in run(config, "verify", "--journal", tmp_path, "--key-file", tmp_path / "none", code=1)


def test_an_anchor_in_a_file_tells_that_later_ones_are_gone(config, tmp_path):
    journal = tmp_path / "var" / "journal"
    before = {path.name: path.read_bytes() for path in journal.iterdir()}
    run(config, "anchor", "--to", tmp_path / "anchors")
    run(config, "anchor", "--to", tmp_path / "anchors")
    assert len((tmp_path / "anchors").read_text().splitlines()) == 2
    assert "last anchored: 20" in run(config, "verify", "--anchor", tmp_path / "anchors")
    for name, content in before.items():
        (journal / name).chmod(0o600)
        (journal / name).write_bytes(content)
    assert "last anchored: never" in run(config, "verify")
    assert "its tail is missing" in run(config, "verify", "--anchor", tmp_path / "anchors", code=1)
    (tmp_path / "anchors").write_text("nonsense\n")
    assert "not an anchor" in run(config, "verify", "--anchor", tmp_path / "anchors", code=1)
    (tmp_path / "anchors").write_text("")
    assert "holds no anchor" in run(config, "verify", "--anchor", tmp_path / "anchors", code=1)


def test_an_anchor_goes_to_a_command(config, tmp_path):
    run(
        config,
        "anchor",
        "--command",
        f"{sys.executable} -c \"import sys; open('{tmp_path}/kept', 'w').write(input())\"",
    )
    assert json.loads((tmp_path / "kept").read_text())["kind"] == "anchor"
    assert run(config, "verify", "--anchor", tmp_path / "kept")
    assert "returned non-zero exit status 3" in run(config, "anchor", "--command", "sh -c 'exit 3'", code=1)
    assert "No such file" in run(config, "anchor", "--command", "no-such-command", code=1)
    assert "one of --to and --command" in run(config, "anchor", code=2)


def test_an_anchor_vouches_for_files_that_are_being_written(tmp_path):
    with opened(tmp_path) as journal:
        journal.end(exchange())
        anchor = json.loads(Index(tmp_path, KEY).anchor())
        assert [lines for lines, _ in anchor["files"].values()] == [1]
        assert list(anchor["files"]) == [journal.path.name]


def test_a_gateways_life_is_in_the_audit(tmp_path):
    gateway = Gateway(tmp_path, server={"workers": 1})
    try:
        [worker] = gateway.worker_pids()
        os.kill(worker, signal.SIGKILL)
        gateway.wait_log(r"(?s)Booting worker.*Booting worker")
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.wait_log(r"Hang up")
        gateway.wait_log(r"(?s)(Booting worker.*){3}")
    finally:
        assert gateway.stop() == 0
    found = acts(tmp_path / "var")
    assert [act for act, _ in found] == ["gateway.start", "worker.died", "gateway.reload", "gateway.stop"]
    started = found[0][1]
    assert (started["master"], started["number"], len(started["sha256"])) == (gateway.pid, 1, 64)
    shown = run(gateway.config, "show")
    assert "gateway.reload  by_uid=" in shown and len(shown.splitlines()) == 4
    assert json.loads(run(gateway.config, "show", "--json", "--since", "2090-01-01")) == []
    assert run(gateway.config, "verify").startswith("The journal verifies")


def test_keys_and_teams_that_are_made_and_ended_are_in_the_audit_and_no_name_is(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_text(ECHO + '[server]\nstate = "var"\n')

    def lockgate(*arguments):
        done = CliRunner().invoke(cli.main, [*arguments, "--config", str(path)])
        assert done.exit_code == 0, done.output
        return done.output

    made = json.loads(lockgate("keys", "create", "--name", "canary", "--owner", "canary", "--json"))
    lockgate("keys", "revoke", made["id"])
    assert [(act, details["key"]) for act, details in acts(tmp_path / "var")] == [
        ("key.create", made["id"]),
        ("key.revoke", made["id"]),
    ]
    raw = b"".join(path.read_bytes() for path in (tmp_path / "var" / "journal").iterdir())
    assert b"canary" not in raw and made["key"].encode() not in raw


def test_what_cannot_be_entered_in_the_audit_is_not_done(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_text(ECHO + '[server]\nstate = "var"\n')
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "journal").write_text("in the way")
    for command in (["keys", "create", "--name", "x"], ["teams", "create", "x"]):
        done = CliRunner().invoke(cli.main, [*command, "--config", str(path)])
        assert done.exit_code == 1 and "nothing was done, since the audit cannot be written" in done.output
    done = CliRunner().invoke(cli.main, ["keys", "list", "--json", "--config", str(path)])
    assert json.loads(done.output) == []
