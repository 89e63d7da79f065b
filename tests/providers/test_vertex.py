"""Vertex AI: Google's credentials, and both publishers behind them."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gateways import Gateway
from geminis import USAGE, called, judged, said, streamed, text, whole
from talks import HI
from upstreams import Request, Upstream, json_answer, stream_answer

from proxy.errors import UpstreamError
from proxy.exchange import Exchange
from proxy.providers.vertex import Vertex

CLAUDE = "claude-sonnet-4-5@20250929"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "model": CLAUDE,
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
STREAM = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


class Google:
    """Stands for Google: gives a token to a service account that signs its wish, and serves both publishers' models."""

    def __init__(self) -> None:
        self.tokens = 0
        self.status = 200

    def __call__(self, request: Request) -> bytes:
        if request.path == "/token":
            return self.token(request)
        stream = "stream" in request.path
        if "/publishers/anthropic/" in request.path:
            body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in STREAM)
            return stream_answer(body) if stream else json_answer(MESSAGE)
        return (streamed if stream else whole)(said(text("Hello."), finish="STOP", usage=USAGE))

    def token(self, request: Request) -> bytes:
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        claims = jwt.decode(form["assertion"], KEY.public_key(), ["RS256"], options={"verify_aud": False})
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        self.tokens += 1
        if self.status != 200:
            return json_answer({"error": "invalid_grant"}, self.status)
        return json_answer({"access_token": f"token-{self.tokens}", "expires_in": 3600, "token_type": "Bearer"})


@pytest.fixture
def google(upstream: Upstream) -> Google:
    made = Google()
    upstream.scripts = [made]
    return made


@pytest.fixture
def account(tmp_path: Path, upstream: Upstream) -> Path:
    """The file of a service account."""
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = tmp_path / "account.json"
    email = "lockgate@corp.example"
    uri = f"http://{upstream.address}/token"
    path.write_text(
        json.dumps({"type": "service_account", "client_email": email, "private_key": pem, "token_uri": uri})
    )
    return path


@pytest.fixture
def vertex(google: Google, account: Path, upstream: Upstream) -> Vertex:
    """A provider of its own, without a gateway."""
    options = {"project": "corp-ai", "base_url": f"http://{upstream.address}/v1", "credentials": str(account)}
    return Vertex(Vertex.Config().load(options))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["gemini-2.5-flash", CLAUDE])
def test_both_publishers_answer_with_a_token_of_the_service_account(
    start_gateway: Callable[..., Gateway], google: Google, account: Path, upstream: Upstream, model: str, stream: bool
) -> None:
    base = f"http://{upstream.address}/v1"
    gateway = start_gateway(f"""
        chain = ["keys"]
        plugins.keys = {{ use = "api_keys" }}
        models."*" = {{ targets = ["vertex"] }}
        [providers.vertex]
        use = "vertex"
        project = "corp-ai"
        location = "europe-west4"
        base_url = "{base}"
        credentials = "{account}"
    """)
    with gateway.client() as client:
        got = client.chat.completions.create(model=model, messages=HI, stream=stream, max_tokens=50)
        if stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in got) == "Hello."
        else:
            assert (got.choices[0].message.content, got.model) == ("Hello.", model)
    request = upstream.requests[-1]
    assert request.headers["authorization"] == f"Bearer token-{google.tokens}"
    places = "/v1/projects/corp-ai/locations/europe-west4/publishers"
    if model == CLAUDE:
        assert request.path == f"{places}/anthropic/models/{CLAUDE}:{'streamRawPredict' if stream else 'rawPredict'}"
        body = request.json
        assert body["anthropic_version"] == "vertex-2023-10-16" and "model" not in body
        assert (body["stream"], body["max_tokens"]) == (stream, 50)
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    else:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        assert request.path == f"{places}/google/models/gemini-2.5-flash:{method}"
        assert judged(request)["generationConfig"] == {"maxOutputTokens": 50}


def test_a_token_is_renewed_before_it_expires(vertex: Vertex, google: Google) -> None:
    assert vertex.renew() == pytest.approx(2880, abs=30)
    assert vertex.renew() == pytest.approx(2880, abs=30)
    call = vertex.open(Exchange("req_1", "POST", "/", {}, "", model="m"), {"model": "gemini-3-pro", "messages": HI})
    assert call.outgoing.headers["Authorization"] == "Bearer token-2"


def test_a_refused_credential_is_told_without_it(vertex: Vertex, google: Google) -> None:
    google.status = 401
    with pytest.raises(Exception, match="invalid_grant") as caught:
        vertex.renew()
    assert "PRIVATE" not in str(caught.value)
    with pytest.raises(UpstreamError) as unavailable:
        vertex.open(Exchange("req_1", "POST", "/", {}, ""), {"model": "gemini-3-pro", "messages": HI})
    assert (unavailable.value.status, unavailable.value.code) == (503, "upstream_auth_error")


def test_locations_have_their_own_hosts(account: Path) -> None:
    for location, host in [
        ("global", "aiplatform.googleapis.com"),
        ("us-east5", "us-east5-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ]:
        options = {"project": "corp-ai", "location": location, "credentials": str(account)}
        made = Vertex(Vertex.Config().load(options))
        made._token = type("Token", (), {"value": lambda self: "t"})()
        call = made.open(Exchange("req_1", "POST", "/", {}, "", model="m"), {"model": "a/b", "messages": HI})
        assert call.outgoing.url.startswith(
            f"https://{host}/v1/projects/corp-ai/locations/{location}/publishers/google/"
        )
        assert call.outgoing.url.endswith("/models/a%2Fb:generateContent")


def test_signatures_of_the_other_way_to_the_same_model_are_not_sent(
    start_gateway: Callable[..., Gateway], google: Google, account: Path, upstream: Upstream
) -> None:
    gateway = start_gateway(f"""
        chain = ["keys"]
        plugins.keys = {{ use = "api_keys" }}
        providers.direct = {{ use = "gemini", base_url = "http://{upstream.address}/v1beta" }}
        models.direct = {{ targets = ["direct/gemini-3-pro"] }}
        models.cloud = {{ targets = ["vertex/gemini-3-pro"] }}
        [providers.vertex]
        use = "vertex"
        project = "p"
        base_url = "http://{upstream.address}/v1"
        credentials = "{account}"
    """)
    upstream.scripts = [lambda _: whole(said(called("f", "c2ln", id="fc1"), finish="STOP"))]
    with gateway.client() as client:
        call = client.chat.completions.create(model="direct", messages=HI).choices[0].message.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": "ok"}
        turns = [*HI, {"role": "assistant", "tool_calls": [call.model_dump()]}, result]
        for model, signature in [("direct", "c2ln"), ("cloud", "skip_thought_signature_validator")]:
            client.chat.completions.create(model=model, messages=turns)
            part = judged(upstream.requests[-1])["contents"][1]["parts"][0]
            assert part["thoughtSignature"] == signature


def test_an_unreadable_file_of_credentials_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(Exception, match="credentials"):
        Vertex.Config().load({"project": "p", "credentials": "/nowhere/account.json"})
