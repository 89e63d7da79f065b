"""Credentials that expire."""

from __future__ import annotations

import math
import sys
import threading

import pytest
from marshmallow import ValidationError

from proxy import UpstreamError
from proxy.upstreams.renewal import Command, Credential, CredentialField, Renewals, said


def printing(text: str, **more: object) -> Command:
    return Command([sys.executable, "-c", f"print({text!r})"], 600.0, **more)  # type: ignore[arg-type]


def test_a_command_without_an_expiry_is_asked_again_in_time():
    credential = printing("abc")
    assert credential.renew() == pytest.approx(480)
    assert credential.value() == "abc"


@pytest.mark.parametrize(
    ("output", "lives_s"),
    [
        ('{"token": "abc", "expires_in": 100}', 100),
        ('{"access_token": "abc", "expires_in": "100"}', 100),
        ('{"accessToken": "abc", "expires_on": 1100}', 100),
        ('{"token": "abc", "expires_at": "1970-01-01T00:18:20+00:00"}', 100),
        ('{"token": "abc", "expiresOn": "1100"}', 100),
        ('{"token": "abc"}', 60),
        ('{"token": "abc", "expires_in": null}', 60),
        ("abc\n", 60),
    ],
)
def test_the_output_of_a_command_says_how_long_it_is_good_for(output, lives_s):
    assert said(output.encode(), 60, 1000) == ("abc", lives_s)


@pytest.mark.parametrize(
    "output", ['{"token": "abc", "expires_in": 0}', '{"token": "a", "expires_at": 1}', '{"x": 1}', ""]
)
def test_output_that_is_no_credential_is_refused(output):
    with pytest.raises(ValueError, match=r"expired|no credential"):
        printing(output).renew()


def test_a_command_that_fails_says_so_without_its_output():
    failing = Command([sys.executable, "-c", "print('sekrit'); raise SystemExit(3)"], 60)
    with pytest.raises(ValueError, match="exit code 3") as caught:
        failing.renew()
    assert "sekrit" not in str(caught.value)


def test_without_a_credential_that_holds_the_upstream_is_not_asked():
    for credential in (Command(["true"], 60), Credential("abc", expires=1.0)):
        with pytest.raises(UpstreamError) as caught:
            credential.value()
        assert (caught.value.status, caught.value.code) == (503, "upstream_auth_error")


def test_no_listing_shows_a_credential():
    assert "abc" not in f"{Credential('abc')!r} {Credential('abc')}"


@pytest.mark.parametrize(
    "value", [{"command": "ls"}, {"command": []}, {"command": ["a"], "x": 1}, {"command": ["a"], "ttl": 1}]
)
def test_a_command_is_a_list_of_words_and_a_time(value):
    with pytest.raises(ValidationError):
        CredentialField().deserialize(value)


def test_a_credential_from_the_environment_is_a_text_for_a_header(monkeypatch):
    monkeypatch.setenv("KEY", "abc")
    assert CredentialField().deserialize({"env": "KEY"}).value() == "abc"
    monkeypatch.setenv("KEY", "a\nb")
    with pytest.raises(ValidationError, match="printable"):
        CredentialField().deserialize({"env": "KEY"})


def test_what_fails_is_tried_again_until_it_succeeds(caplog):
    tries = []
    done = threading.Event()

    def renew() -> float:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        done.set()
        return math.inf

    renewals = Renewals({"up": renew, "fixed": lambda: None})
    renewals.start()
    assert done.wait(20)
    renewals.stop()
    assert "provider up: no new credential: ValueError: not yet" in caplog.text
