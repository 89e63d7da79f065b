"""`lockgate check --live`: what it finds of each target, and what it never tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gateways import free_port
from upstreams import Request, Upstream, head, json_answer

from proxy.cli import main

SECRET = "sk-very-secret-credential"
CONFIG = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[providers.up]
use = "openai"
base_url = "{url}"
api_key = {key}
[models.one]
targets = ["up/a", "up/b"]
"""
KEY = '{ file = "key" }'


@pytest.fixture
def check(tmp_path: Path, upstream: Upstream) -> Callable[..., Result]:
    """Run the command on a configuration, with an upstream that knows only the one credential."""

    def script(request: Request) -> Any:
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            return json_answer({"error": {"message": f"Bad key {request.headers.get('authorization')}"}}, 401)
        return json_answer({"object": "list", "data": []})

    def run(*options: str, toml: str = CONFIG, key: str = KEY, url: str = "", secret: str = SECRET) -> Result:
        (tmp_path / "key").write_text(secret)
        file = tmp_path / "lockgate.toml"
        file.write_text(toml.format(url=url or upstream.url, key=key))
        result = CliRunner().invoke(main, ["check", "--config", str(file), "--live", *options])
        assert SECRET not in result.output and "Bad key" not in result.output
        return result

    upstream.scripts = [script]
    return run


def test_each_target_is_asked_for_once_per_upstream(check: Callable[..., Result], upstream: Upstream) -> None:
    result = check()
    assert result.exit_code == 0, result.output
    assert "up/a" in result.output and "up/b" in result.output
    [request] = upstream.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/models", b"")


def test_as_json(check: Callable[..., Result]) -> None:
    rows = json.loads(check("--json").output)
    assert [(row["target"], row["ok"], row["said"]) for row in rows] == [("up/a", True, "ok"), ("up/b", True, "ok")]
    assert all(isinstance(row["milliseconds"], int) for row in rows)


def test_a_wrong_credential_is_found(check: Callable[..., Result]) -> None:
    result = check("--json", secret="another")
    assert result.exit_code == 1
    assert json.loads(result.output)[0]["said"] == "the credential is refused (HTTP 401)"


def test_an_upstream_that_is_not_there_is_found(check: Callable[..., Result]) -> None:
    result = check("--json", url=f"http://127.0.0.1:{free_port()}/v1")
    assert result.exit_code == 1 and "(upstream_unreachable)" in json.loads(result.output)[0]["said"]


@pytest.mark.parametrize(
    ("status", "ok", "said"),
    [
        (404, False, "nothing is there (HTTP 404)"),
        (429, True, "rate limit"),
        (302, False, "HTTP 302"),
        (500, False, "HTTP 500"),
        (400, False, "HTTP 400"),
    ],
)
def test_other_answers_are_told_by_their_status(
    check: Callable[..., Result], upstream: Upstream, status: int, ok: bool, said: str
) -> None:
    upstream.scripts = [lambda _: head(status, content_length=0)]
    result = check("--json")
    assert result.exit_code == (0 if ok else 1)
    assert json.loads(result.output)[0]["ok"] is ok and said in json.loads(result.output)[0]["said"]


def test_who_has_no_list_of_models_is_asked_for_nothing(check: Callable[..., Result], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: json_answer({"error": {"message": "no model"}}, 400)]
    result = check(toml=CONFIG.replace('use = "openai"', 'use = "openai"\ndialect = "perplexity"'))
    assert result.exit_code == 0, result.output
    assert (upstream.requests[0].method, upstream.requests[0].body) == ("POST", b"{}")


def test_the_credential_of_a_command_is_fetched_first(check: Callable[..., Result], tmp_path: Path) -> None:
    program = tmp_path / "token.py"
    program.write_text(f"print({SECRET!r})")
    assert check(key=json.dumps([sys.executable, str(program)]).join(("{ command = ", " }"))).exit_code == 0
    failed = check("--json", key=json.dumps([sys.executable, "-c", "raise SystemExit(3)"]).join(("{ command = ", " }")))
    assert failed.exit_code == 1 and "exit code 3" in json.loads(failed.output)[0]["said"]


def test_azure_is_asked_with_its_own_header(check: Callable[..., Result], upstream: Upstream) -> None:
    toml = CONFIG.replace('use = "openai"\nbase_url', 'use = "azure"\nendpoint')
    upstream.scripts = [lambda _: json_answer({"data": []})]
    assert check(toml=toml).exit_code == 0
    request = upstream.requests[0]
    assert (request.path, request.headers["api-key"]) == ("/v1/openai/v1/models", SECRET)


def test_the_embedded_provider_has_nobody_to_ask(check: Callable[..., Result]) -> None:
    toml = CONFIG.partition("[providers")[0] + '[providers.up]\nuse = "echo"\n[models.one]\ntargets = ["up"]\n'
    assert "nobody to ask" in check(toml=toml).output


def test_json_is_for_live_checks_only() -> None:
    assert CliRunner().invoke(main, ["check", "--json"]).exit_code == 2
