"""The blueprint: HTTP in, HTTP out, no decisions."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException

from proxy.access.credentials import unauthorized
from proxy.client import Headers, HttpClient, Sent
from proxy.errors import Reject
from proxy.exchange import Exchange
from proxy.gateway import Gateway
from proxy.pipeline import JSON, Run, not_found
from proxy.records import history

blueprint = Blueprint("api", __name__)
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


def _id(gateway: Gateway) -> str:
    """Return the request's id: nginx's, where it sets one, else one of our own."""
    id: str = request.environ.get("HTTP_X_REQUEST_ID", "") if gateway.settings.server.proxied else ""
    return id if REQUEST_ID.fullmatch(id) else f"req_{random.getrandbits(128):032x}"


def _run() -> Run:
    gateway: Gateway = current_app.extensions["lockgate"]
    environ = request.environ
    exchange = Exchange(
        id=_id(gateway),
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        headers=Headers(environ),
        client_address=environ.get("REMOTE_ADDR", ""),
    )
    return Run(gateway, exchange, HttpClient(environ, exchange))


@blueprint.post("/v1/chat/completions", provide_automatic_options=False)
@blueprint.post("/chat/completions", provide_automatic_options=False)
def chat_completions() -> Response:
    """Answer a chat completion, streamed or whole as the body's `stream` says."""
    run = _run()
    return Sent(run, run.answer())


@blueprint.get("/v1/models", provide_automatic_options=False)
@blueprint.get("/models", provide_automatic_options=False)
def models() -> Response:
    """List the models that the caller may name."""
    run = _run()
    return _told(run, lambda: {"object": "list", "data": [_model(name) for name in _visible(run)]})


@blueprint.get("/v1/models/<path:name>", provide_automatic_options=False)
@blueprint.get("/models/<path:name>", provide_automatic_options=False)
def model(name: str) -> Response:
    """Describe one model; one that the caller may not use does not exist."""
    run = _run()

    def describe() -> dict[str, Any]:
        found = run.gateway.model(name)
        if found is None or not run.may_use(found, name):
            raise not_found(name)
        return _model(name)

    return _told(run, describe)


@blueprint.get("/v1/requests", provide_automatic_options=False)
@blueprint.get("/requests", provide_automatic_options=False)
def requests() -> Response:
    """List the caller's own requests, newest first: `limit` of them, behind the cursor `after`."""
    run = _run()
    asked = request.args.to_dict()

    def describe() -> dict[str, Any]:
        identity = run.exchange.identity
        if identity is None:
            raise unauthorized(run.exchange)
        limit = asked.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= 100):
            raise Reject(400, "invalid_limit", "`limit` must be a whole number from 1 to 100.", param="limit")
        search = history.Search({"subject": identity.subject}, own_paths=False)
        page = run.gateway.history.page(search, int(limit), asked.get("after"))
        data = [history.told(one) for one in page.rows]
        more = page.cursor is not None
        return {"object": "list", "data": data, "has_more": more, "next_cursor": page.cursor, "source": page.source}

    return _told(run, describe)


@blueprint.get("/healthz", provide_automatic_options=False)
def healthz() -> Response:
    """Say that this worker answers."""
    return Response('{"status":"ok"}', mimetype=JSON)


def _visible(run: Run) -> list[str]:
    return [name for name, model in run.gateway.models.items() if "*" not in name and run.may_use(model, name)]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "lockgate"}


_STARTED = int(time.time())


def _told(run: Run, describe: Any) -> Response:
    """Answer a route without a body as an exchange of its own: authenticated, completed, logged."""
    try:
        run.identify()
        out = orjson.dumps(describe())
        run.exchange.outcome.status = 200
        chunks = run.hand_over(out, complete=True)
    except Exception as error:
        chunks = run.refuse(error)
    return Sent(run, chunks)


def unknown_url(error: HTTPException) -> Response:
    """Answer what no route matches: 404 and 405 as OpenAI does, anything else by its status."""
    status = error.code or 500
    url = f"{request.method} {request.path[:200]}"
    if status == 404:
        hint = " Is the base URL right? It ends in /v1." if request.path.count("completions") > 1 else ""
        reject = Reject(404, "unknown_url", f"Unknown request URL: {url}.{hint}")
    elif status == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        reject = Reject(405, "method_not_allowed", f"Not allowed: {url}.", headers={"allow": allowed})
    else:
        reject = Reject(status, "bad_request" if status < 500 else "internal_error", f"The request failed: {url}.")
    headers = {**reject.headers, "x-request-id": _id(current_app.extensions["lockgate"])}
    return Response(reject.encoded(), status, headers, mimetype=JSON)
