"""The admin application's blueprint: health, readiness, metrics, usage and requests."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, current_app, request

from proxy.access.insecure import FORWARDED, LOOPBACK
from proxy.admin import ledger
from proxy.errors import Reject
from proxy.serving import address

blueprint = Blueprint("admin", __name__)
JSON = "application/json"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@blueprint.get("/healthz", provide_automatic_options=False)
def healthz() -> Response:
    """Say that the admin application answers."""
    return _json({"status": "ok"})


@blueprint.get("/readyz", provide_automatic_options=False)
def readyz() -> Response:
    """Say whether the gateway can serve, check by check; 503 where it can't."""
    checks = current_app.extensions["lockgate"].readiness.check()
    ready = not any(checks.values())
    said = {name: problem or "ok" for name, problem in checks.items()}
    return _json({"status": "ok" if ready else "not ready", "checks": said}, 200 if ready else 503)


@blueprint.get("/metrics", provide_automatic_options=False)
def metrics() -> Response:
    """Return all workers' metrics for Prometheus."""
    admin = current_app.extensions["lockgate"]
    access = admin.settings.admin.metrics
    if not (access == "open" or (access == "local" and _from_here())):
        authorize()
    return Response(admin.metrics(), content_type=TEXT)


@blueprint.get("/api/usage", provide_automatic_options=False)
def usage() -> Response:
    """Return what was used and what it cost, for who has an admin key."""
    authorize()
    admin = current_app.extensions["lockgate"]
    return _json(ledger.usage(admin.database, admin.settings.ledger.keep_days, request.args.to_dict()))


@blueprint.get("/api/requests", provide_automatic_options=False)
def requests() -> Response:
    """Return requests, newest first, for who has an admin key."""
    authorize()
    return _json(ledger.requests(current_app.extensions["lockgate"].history, request.args.to_dict()))


def authorize() -> None:
    """Raise `Reject` (401) unless the request holds an admin key."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and current_app.extensions["lockgate"].keys.opens(token.strip()):
        return
    message = "An admin key is needed: `lockgate admin key create` makes one, `Authorization: Bearer <key>` sends it."
    raise Reject(401, "invalid_admin_key", message, headers={"www-authenticate": "Bearer"})


def _from_here() -> bool:
    """Say whether the request was made on this machine: not through a proxy, and not by a page from elsewhere."""
    headers = request.headers
    if any(name.lower() in FORWARDED or name.lower().startswith("x-forwarded") for name in headers.keys()):
        return False
    asked = [headers[name] for name in ("host", "origin") if name in headers]
    return address.is_loopback((request.remote_addr or "unix", 0)) and all(LOOPBACK.fullmatch(text) for text in asked)


def _json(said: object, status: int = 200) -> Response:
    return Response(orjson.dumps(said), status, mimetype=JSON)
