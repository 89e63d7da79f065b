"""`lockgate redact` shows what configured instances would do."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from proxy.cli import main

FILE = """
chain = ["keys", "careful"]
[plugins.keys]
use = "api_keys"
[plugins.careful]
use = "redact"
request = { secret = "block" }
response = { email = "mask" }
[plugins.easy]
use = "redact"
request = { default = "observe" }
[providers.echo]
use = "echo"
[models.all]
targets = ["echo"]
"""
EMAIL = "jo.doe@example.com"


@pytest.fixture
def redact(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCKGATE_CONFIG", raising=False)

    def run(text, *options):
        result = CliRunner().invoke(main, ["redact", *options], input=text)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_without_a_file_the_defaults_are_shown(redact):
    shown = redact(f"Write to {EMAIL} today", "--explain")
    assert "email: 1, restore" in shown and "Write to [EMAIL_" in shown
    assert "messages.0.content" in shown and "9-27" in shown and EMAIL in shown and "µs" in shown


def test_each_instance_shows_what_it_would_do_with_a_text(redact, tmp_path):
    (tmp_path / "lockgate.toml").write_text(FILE)
    careful, easy = json.loads(redact(f"Write to {EMAIL} today", "--json"))
    assert careful["instance"] == "careful" and careful["found"] == {"email": {"count": 1, "action": "restore"}}
    assert careful["upstream"].startswith("Write to [EMAIL_") and careful["answer"]["text"] == careful["upstream"]
    assert easy["upstream"] == f"Write to {EMAIL} today" and easy["microseconds"] > 0


def test_a_request_is_shown_as_it_would_go_up_or_be_refused(redact, tmp_path):
    (tmp_path / "lockgate.toml").write_text(FILE)
    body = {"model": "m", "user": EMAIL, "messages": [{"role": "user", "content": "password: Tr0ub4dor&3"}]}
    careful, easy = json.loads(redact(json.dumps(body), "--json", "--explain"))
    assert careful["refused"] == "The request holds what must not be passed on: secret."
    assert [one["where"] for one in careful["explained"]] == ["messages.0.content", "user"]
    assert easy["upstream"] == body


def test_a_team_has_placeholders_of_its_own(redact):
    assert redact(EMAIL, "--team", "search") != redact(EMAIL, "--team", "sales")
