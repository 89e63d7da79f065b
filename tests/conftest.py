"""Fixtures: gateways with either worker class, and upstreams for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import openai
import pytest
import redises
from gateways import ECHO, Gateway
from postgresqls import Postgresql, programs, running
from upstreams import Upstream
from wire import Wire

WORKERS = ("threads", "gevent")

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("lockgate", deadline=None)
hypothesis.settings.load_profile("lockgate")


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL server; a test that stops it starts it again."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with running() as server:
        yield server


@pytest.fixture
def postgres(postgresql: Postgresql) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgresql.create()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redises.Redis]:
    """A Redis server, for tests that leave it running; they find it empty."""
    if redises.program() is None:
        pytest.skip("redis-server is not installed")
    with redises.running() as server:
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What `[database] url` says: nothing for SQLite; `states.both_databases` has a test run on PostgreSQL too."""
    return str(request.getfixturevalue("postgres")) if getattr(request, "param", "") == "postgresql" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let no test be skipped unseen where `CI=true`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI=true: skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
