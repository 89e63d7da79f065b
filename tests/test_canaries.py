"""Secrets planted everywhere show up nowhere: logs, answers, state, database, process titles, listings."""

from __future__ import annotations

import base64
import gzip
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from gateways import Gateway, _environment, free_port
from identity_providers import AUDIENCE, IdentityProvider, identity_provider
from upstreams import FIN, Request, Upstream, chunked, head, json_answer, plain, sse, streaming

from proxy.testing import completion, stream

#: What no sink may hold, by where it is planted. All but the last four are never in an answer either.
PLANTED = (
    "an upstream's key", "an upstream's header", "a secret file", "the pepper", "a proxy's password", "a wrong key",
    "text in a file", "a key in the URL", "a cookie", "another API's key header", "basic credentials", "a forged token",
    "a prompt", "a card number", "a parameter", "a tool",
)  # fmt: skip
CANARIES = {name: "cnry" + secrets.token_hex(12) for name in PLANTED} | {"a card number": "4539578763621486"}
SAID = PLANTED[-4:]
CONFIG = """
chain = ["traces", "keys", "tokens", "access", "log"]

[plugins.keys]
use = "api_keys"
[plugins.tokens]
use = "jwt"
issuers = [{{ issuer = "{issuer}", audience = ["{audience}"] }}]
[plugins.access]
use = "access"
[plugins.log]
use = "request_log"
[plugins.traces]
use = "traces"
endpoint = "{collector}/traces"
[plugins.clumsy]
use = "clumsy"
secret = {{ env = "CANARY_KEY" }}

[keys]
pepper = {{ env = "CANARY_PEPPER" }}

[providers.up]
use = "openai"
base_url = "{url}"
api_key = {{ env = "CANARY_KEY" }}
headers = {{ X-Extra = {{ env = "CANARY_HEADER" }}, X-File = {{ file = "secret.txt" }} }}
breaker = {{ failures = 0 }}
[providers.away]
use = "openai"
base_url = "http://127.0.0.1:{closed}/v1"
api_key = {{ env = "CANARY_KEY" }}
[providers.behind]
use = "openai"
base_url = "http://upstream.example/v1"
api_key = {{ env = "CANARY_KEY" }}
proxy = {{ env = "CANARY_PROXY" }}
[providers.secure]
use = "openai"
base_url = "https://127.0.0.1:{port}/v1"
api_key = {{ env = "CANARY_KEY" }}
timeouts = {{ connect = 0.2 }}
"""
MODELS = ("good", "echoes", "unauthorized", "fails", "refuses", "finishes", "cut", "garbled", "garbled_stream")
PLUGIN = '''
from marshmallow import Schema
from proxy import SecretField, hookimpl


class Clumsy:
    """Fails with secrets in its hands."""

    name = "clumsy"

    class Config(Schema):
        secret = SecretField(required=True)

    def __init__(self, config):
        self.secret = config["secret"]

    @hookimpl
    def on_request(self, exchange):
        secret, headers, credential = self.secret, dict(exchange.headers), exchange.credential
        raise RuntimeError(f"failed with {secret} {exchange} {exchange.identity} {self.secret!r}")
'''


def answer(request: Request) -> object:
    """Answer as the model's name says, with whatever was sent repeated where nobody should repeat it."""
    sent = json.dumps({"headers": request.headers, "body": request.json})
    model = request.json["model"]
    if model == "unauthorized":
        return json_answer({"error": {"message": f"Incorrect API key: {sent}", "code": "invalid_api_key"}}, 401)
    if model == "fails":
        return json_answer({"error": {"message": sent, "type": "server_error"}}, 500)
    if model == "refuses":
        prompt = request.json["messages"][0]["content"]
        error = {"message": json.dumps(request.json), "code": prompt, "type": prompt, "param": prompt}
        return json_answer({"error": error}, 400)
    if model == "finishes":
        finished = completion("done")
        finished["choices"][0]["finish_reason"] = request.json["messages"][0]["content"]
        return json_answer(finished)
    if model == "garbled":
        return json_answer(sent.encode()[:-1])
    if model == "garbled_stream":
        return streaming() + chunked(sse([sent.encode()[:-1]], done=False))
    if model == "cut":
        return iter([streaming() + chunked(sse(stream()[:1], done=False), last=False), FIN])
    if model == "echoes":
        return json_answer(completion("done"), x_echo=quote(sent[:2000]), set_cookie="a=b")
    return plain(request)


@pytest.fixture(scope="module")
def idp() -> Iterator[IdentityProvider]:
    with identity_provider() as made:
        yield made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, idp: IdentityProvider) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("canaries")
    (folder / "plugins.d").mkdir()
    (folder / "plugins.d" / "clumsy.py").write_text(PLUGIN)
    (folder / "secret.txt").write_text(CANARIES["a secret file"])
    taken = head(200, content_length=0)
    with Upstream(answer) as up, Upstream(lambda _: taken) as collector:  # type: ignore[arg-type]
        told = {"issuer": idp.issuer, "audience": AUDIENCE, "collector": collector.url}
        text = CONFIG.format(**told, url=up.url, closed=free_port(), port=up.port)
        once = "retry = { attempts = 1 }\n"
        text += "".join(f'[models.{name}]\ntargets = ["up"]\nparameters = ["*"]\n{once}' for name in MODELS)
        text += "".join(f'[models.{name}]\ntargets = ["{name}"]\n{once}' for name in ("away", "behind", "secure"))
        text += '[models.clumsy]\ntargets = ["up"]\nchain = ["clumsy", "log"]\n'
        password = CANARIES["a proxy's password"]
        env = {
            "CANARY_KEY": CANARIES["an upstream's key"],
            "CANARY_HEADER": CANARIES["an upstream's header"],
            "CANARY_PEPPER": CANARIES["the pepper"] + "0" * 32,
            "CANARY_PROXY": f"http://user:{password}@127.0.0.1:{free_port()}",
        }
        os.environ.update(env)
        try:
            made = Gateway(folder, text, server={"plugins_dir": "plugins.d", "workers": 2}, env=env)
        finally:
            for name in env:
                del os.environ[name]
        made.env = env  # type: ignore[attr-defined]
        made.collector = collector  # type: ignore[attr-defined]
        yield made
        made.stop()


def talk(gateway: Gateway, idp: IdentityProvider) -> list[bytes]:
    """Call the gateway in all ways in which something can go wrong; return all answers, headers included."""
    answers: list[bytes] = []
    body = {
        "messages": [{"role": "user", "content": f"{CANARIES['a prompt']}, card {CANARIES['a card number']}"}],
        "top_q": CANARIES["a parameter"],
        "tools": [{"type": "function", "function": {"name": CANARIES["a tool"][:64]}}],
    }
    own = {"cookie": CANARIES["a cookie"], "x_api_key": CANARIES["another API's key header"]}

    def post(body: object, path: str = "/v1/chat/completions", **headers: str | None) -> None:
        with gateway.wire() as wire:
            said = wire.post(body, path, **{**own, **headers})
        answers.append(json.dumps(said.headers).encode() + said.body)

    for model in (*MODELS, "away", "behind", "secure", "clumsy", "none"):
        for more in ({}, {"stream": True}):
            extra = {} if model in MODELS else {"top_q": None}
            sent = {key: value for key, value in {**body, **extra, **more, "model": model}.items() if value is not None}
            post(sent)
            post(sent, authorization=f"Bearer {idp.token()}")
    wrong = CANARIES["a wrong key"]
    forged = idp.token(header={"x": CANARIES["a forged token"]})[:-8] + "AAAAAAAA"
    basic = base64.b64encode(f"user:{CANARIES['basic credentials']}".encode()).decode()
    for authorization in (f"Bearer lg_{wrong}", f"Bearer {wrong}", wrong, f"Bearer {forged}", f"Basic {basic}", None):
        post({**body, "model": "good"}, authorization=authorization)
    post({**body, "model": "good"}, authorization=f"Bearer {wrong}, Bearer {wrong}")
    for path in ("/v1/chat/completions", "/v1/models", "/v1/none", "/healthz"):
        post({**body, "model": "good"}, f"{path}?api_key={CANARIES['a key in the URL']}")
    post(json.dumps(body).encode()[:-1])
    post({"model": "good", "messages": CANARIES["a prompt"]})
    for raw in (
        b"GET / HTTP/1.1\r\nAuthorization: Bearer " + wrong.encode() + b"\0\r\n\r\n",
        wrong.encode() + b"\r\n\r\n",
    ):
        with gateway.wire() as wire:
            wire.send(raw)
            answers.append(wire.answer().body)
    return answers


def listings(gateway: Gateway) -> bytes:
    """Return what the commands print, also of a configuration with secrets where they do not belong."""

    def run(*arguments: str) -> bytes:
        command = [sys.executable, "-c", "from proxy.cli import main; main()", *arguments]
        env = {**_environment(), **gateway.env, "LOCKGATE_CONFIG": str(gateway.config)}  # type: ignore[attr-defined]
        done = subprocess.run(command, cwd=gateway.folder, env=env, capture_output=True, check=False)
        return done.stdout + done.stderr

    good = run("check", "--print")
    assert b"***" in good and b"providers" in good
    said = [good] + [run(name, "--json") for name in ("plugins", "providers", "models")]
    assert all(json.loads(text) for text in said[1:])
    said.append(run("keys", "list", "--json"))
    wrong = gateway.folder / "wrong.toml"
    text = gateway.config.read_text()
    text = text.replace('{ env = "CANARY_KEY" }', f'"{CANARIES["text in a file"]}"')
    wrong.write_text(text.replace('use = "access"', f'use = "access"\nmodels = "{CANARIES["text in a file"]}"'))
    said.append(run("check", "--config", str(wrong)))
    assert b"a secret is not written here" in said[-1]
    return b"\n".join(said)


def spelt(canary: str) -> set[bytes]:
    """Return what a canary looks like in some disguises."""
    raw = canary.encode()
    whole = {base64.b64encode(b" " * pad + raw)[2 + pad : -4] for pad in range(3)}
    return {raw, raw.hex().encode(), raw[::-1], *whole}


def found(where: str, data: bytes, names: tuple[str, ...] = PLANTED) -> list[str]:
    """Return which canaries are in some bytes."""
    return [f"{name} in {where}" for name in names if any(form in data for form in spelt(CANARIES[name]))]


def test_the_search_finds_what_it_looks_for() -> None:
    for name, canary in CANARIES.items():
        for pad in range(5):
            hidden = base64.b64encode(b"x" * pad + canary.encode() + b"yyyy")
            assert found("a", b"--" + hidden + b"--") == [f"{name} in a"]
        assert found("a", canary.encode()) == [f"{name} in a"]


def test_no_secret_gets_anywhere(gateway: Gateway, idp: IdentityProvider) -> None:
    answers = talk(gateway, idp)
    printed = listings(gateway)
    # A reload that is refused tells why.
    before = gateway.config.read_text()
    gateway.config.write_text(before.replace('{ env = "CANARY_HEADER" }', f'"{CANARIES["text in a file"]}\\u0001"'))
    os.kill(gateway.pid, signal.SIGHUP)
    gateway.wait_log("Reload refused")
    pids = [gateway.pid, *gateway.worker_pids()]
    titles = b"".join(Path(f"/proc/{pid}/{part}").read_bytes() for pid in pids for part in ("cmdline", "comm"))
    gateway.stop()

    tokens = [gateway.key, idp.token()]
    silent = tuple(name for name in PLANTED if name not in SAID)
    leaks = found("an answer", b"\n".join(answers), silent)
    leaks += found("the log", gateway.log.encode()) + found("a listing", printed) + found("a title", titles)
    state = {path: path.read_bytes() for path in (gateway.folder / "var").rglob("*") if path.is_file()}
    assert any(path.suffix == ".db" for path in state) and any(path.suffix == ".jsonl" for path in state)
    for path, data in state.items():
        leaks += found(str(path.relative_to(gateway.folder)), data)
    spans = [gzip.decompress(request.body) for request in gateway.collector.requests]  # type: ignore[attr-defined]
    assert spans
    leaks += found("a span", b"".join(spans))
    everything = [gateway.log.encode(), printed, titles, *answers, *state.values(), *spans]
    leaks += [f"a live key, in sink {at}" for at, data in enumerate(everything) if tokens[0].encode() in data]
    leaks += [f"a live token, in sink {at}" for at, data in enumerate(everything) if tokens[1][:30].encode() in data]
    assert leaks == []
    for told in ("plugin clumsy failed", "Reload refused", '"code":"invalid_api_key"', '"code":"credential_in_url"'):
        assert told in gateway.log, f"not tried: {told}"
