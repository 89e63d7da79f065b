"""Fixtures for providers behind a gateway of the module's own, `behind`: the gateway and its scripted upstream."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from gateways import Gateway
from upstreams import Upstream


@pytest.fixture
def client(behind: tuple[Gateway, Upstream]) -> Iterator[openai.OpenAI]:
    """The official client of the module's gateway."""
    with behind[0].client() as made:
        yield made


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Each of the two ways to be answered."""
    return bool(request.param)
