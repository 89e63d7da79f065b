"""Fixtures: gateways with either worker class, and upstreams for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import ECHO, Gateway
from upstreams import Upstream
from wire import Wire

WORKERS = ("threads", "gevent")


@pytest.fixture(params=WORKERS, scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """Each of the worker classes in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def gateway(worker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the embedded provider, shared by all tests that leave it as it is."""
    shared = Gateway(tmp_path_factory.mktemp("gateway"), ECHO, worker=worker)
    yield shared
    shared.stop()


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with configurations of their own: `start_gateway(toml, worker=…, server={…}, env={…})`."""
    with contextlib.ExitStack() as running:

        def start(toml: str = ECHO, **options: Any) -> Gateway:
            folder = tmp_path / f"gateway{len(list(tmp_path.glob('gateway*')))}"
            folder.mkdir()
            started = Gateway(folder, toml, **options)
            running.callback(started.stop)
            return started

        yield start


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A scriptable upstream: set its `scripts`."""
    with Upstream() as made:
        yield made


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The official client of the shared gateway."""
    with gateway.client() as made:
        yield made


@pytest.fixture
def wire(gateway: Gateway) -> Iterator[Wire]:
    """A connection of bare bytes to the shared gateway."""
    with gateway.wire() as made:
        yield made


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let no test be skipped unseen where `CI=true`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI=true: skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
