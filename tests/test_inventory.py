"""Every route of every application, with the rule of who may call it; a route without one fails here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from flask import Flask
from states import settings_in

from proxy.admin import app as admin
from proxy.records.database import migrate
from proxy.testing import Rig

#: "key": a caller whom a plugin of the chain knows. "admin": an admin key. "local": that, or a caller on this machine.
#: "open": everybody, as nothing is told there but whether the process answers, and what the API is like.
GATEWAY = {
    "POST /v1/chat/completions": "key",
    "POST /chat/completions": "key",
    "GET /v1/models": "key",
    "GET /models": "key",
    "GET /v1/models/<path:name>": "key",
    "GET /models/<path:name>": "key",
    "GET /v1/requests": "key",
    "GET /requests": "key",
    "GET /healthz": "open",
    "GET /": "open",
    "GET /docs": "open",
    "GET /docs/assets/<path:name>": "open",
    "GET /openapi.json": "open",
}
ADMIN = {
    "GET /healthz": "open",
    "GET /readyz": "open",
    "GET /metrics": "local",
    "GET /api/usage": "admin",
    "GET /api/requests": "admin",
}
#: From elsewhere, and from one place only once: many wrong credentials from one address get another answer.
ADDRESSES = (f"192.0.{number >> 8}.{number & 255}" for number in itertools.count(512))


def routes(app: Flask) -> Iterator[str]:
    """Yield the methods and paths of an application."""
    for rule in app.url_map.iter_rules():
        yield from (f"{method} {rule.rule}" for method in sorted((rule.methods or set()) - {"HEAD"}))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Flask]:
    with Rig(identity=None) as rig:
        yield rig._app


@pytest.fixture(scope="module")
def administration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = settings_in(tmp_path_factory.mktemp("admin"))
    migrate(settings)
    app = admin.create_app(settings)
    yield app
    app.extensions["lockgate"].database.close()


def status(app: Flask, route: str, **headers: str) -> int:
    """Ask from elsewhere; return the status."""
    method, path = route.split(" ", 1)
    path = path.replace("<path:name>", "test-model")
    environ = {"REMOTE_ADDR": next(ADDRESSES)}
    return app.test_client().open(path, method=method, headers=headers, json={}, environ_base=environ).status_code


def test_the_gateways_routes_are_those_with_a_rule(gateway: Flask) -> None:
    assert sorted(routes(gateway)) == sorted(GATEWAY)


def test_the_admin_applications_routes_are_those_with_a_rule(administration: Flask) -> None:
    assert sorted(routes(administration)) == sorted(ADMIN)


@pytest.mark.parametrize("route", GATEWAY)
def test_the_gateway_lets_nobody_in_where_a_key_is_needed(gateway: Flask, route: str) -> None:
    refused = GATEWAY[route] != "open"
    for headers in ({}, {"Authorization": "Bearer lg_abc_def"}, {"Authorization": "Basic eDp5"}, {"Cookie": "key=x"}):
        assert (status(gateway, route, **headers) == 401) is refused
        # A path that is only spelt like the route is under the same rule, or none.
        for spelt in (route + "/", route.replace(" /", " //"), route.replace("/models", "/%6dodels")):
            # 302: the root, as which this client takes a path of two slashes and one word.
            assert status(gateway, spelt, **headers) in ((302, 401, 404) if refused else (200, 302, 404))


@pytest.mark.parametrize("route", ADMIN)
def test_the_admin_application_lets_nobody_in_where_a_key_is_needed(administration: Flask, route: str) -> None:
    refused = ADMIN[route] != "open"
    for headers in ({}, {"Authorization": "Bearer lg_abc_def"}, {"X-Forwarded-For": "127.0.0.1"}):
        assert (status(administration, route, **headers) == 401) is refused


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
@pytest.mark.parametrize("route", GATEWAY)
def test_no_other_method_gets_past_the_rule(gateway: Flask, route: str, method: str) -> None:
    allowed = {"key": (401, 404, 405), "open": (200, 302, 404, 405)}[GATEWAY[route]]
    assert status(gateway, f"{method} {route.split(' ', 1)[1]}") in allowed
