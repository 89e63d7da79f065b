"""Azure OpenAI: its URLs and credentials, and its errors; its answers are in the matrix."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from dialects.azures import BLOCKED, NO_DEPLOYMENT
from marshmallow import ValidationError

from proxy.errors import Reject, UpstreamError
from proxy.exchange import Exchange
from proxy.providers.azure import Azure
from proxy.testing import configured

ENDPOINT = "https://house.openai.azure.com/"


def opened(azure: Azure, stream: bool = False, **body: Any) -> Any:
    exchange = Exchange("req_1", "POST", "/", {}, "", model="m", stream=stream)
    return azure.open(exchange, {"model": "gpt-5.2", "messages": [{"role": "user", "content": "Hi"}], **body})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("AZURE_KEY", "azure-key")
    return {"env": "AZURE_KEY"}


def test_deployments_are_in_the_path_where_there_is_a_version(key: dict[str, str]) -> None:
    azure = configured(
        Azure, endpoint=ENDPOINT, api_version="2024-10-21", api_key=key, deployments={"gpt-5.2": "eu/one"}
    )
    outgoing = opened(azure).outgoing
    assert outgoing.url == f"{ENDPOINT}openai/deployments/eu%2Fone/chat/completions?api-version=2024-10-21"
    assert (json.loads(outgoing.body)["model"], outgoing.headers["api-key"]) == ("eu/one", "azure-key")
    assert azure.probe().url == f"{ENDPOINT}openai/models?api-version=2024-10-21"


def test_without_a_version_deployments_are_models_of_the_v1_api(key: dict[str, str]) -> None:
    azure = configured(Azure, endpoint=ENDPOINT, api_key=key)
    outgoing = opened(azure, stream=True, stream_options={"include_obfuscation": False}).outgoing
    assert outgoing.url == f"{ENDPOINT}openai/v1/chat/completions"
    said = json.loads(outgoing.body)
    assert said["model"] == "gpt-5.2"
    assert said["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert azure.probe().url == f"{ENDPOINT}openai/v1/models"


def test_a_token_is_a_bearer_and_renewed_before_it_expires() -> None:
    program = 'print(\'{"accessToken": "entra-token", "expires_on": 4102444800}\')'
    azure = configured(Azure, endpoint=ENDPOINT, token={"command": [sys.executable, "-c", program]})
    with pytest.raises(UpstreamError):
        opened(azure)
    again_s = azure.renew()
    assert again_s is not None and again_s > 3600
    headers = opened(azure).outgoing.headers
    assert headers["Authorization"] == "Bearer entra-token" and "api-key" not in headers


def test_there_is_one_credential(key: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either api_key or token"):
        configured(Azure, endpoint=ENDPOINT, api_key=key, token=key)


def told(raw: bytes) -> UpstreamError:
    head, _, body = raw.partition(b"\r\n\r\n")
    error: UpstreamError = opened(configured(Azure, endpoint=ENDPOINT)).error(int(head.split()[1]), {}, body)
    return error


def test_a_prompt_that_its_filter_blocks_is_told_with_a_type() -> None:
    blocked = told(BLOCKED)
    assert (blocked.status, blocked.type, blocked.code, blocked.param) == (
        400, "invalid_request_error", "content_filter", "prompt"
    )  # fmt: skip
    assert blocked.message.startswith("The response was filtered")


def test_an_unknown_deployment_is_an_unknown_model() -> None:
    missing = told(NO_DEPLOYMENT)
    assert (missing.status, missing.code) == (404, "model_not_found")


def test_a_search_is_refused() -> None:
    with pytest.raises(Reject) as refused:
        opened(configured(Azure, endpoint=ENDPOINT), web_search_options={})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "web_search_options")
