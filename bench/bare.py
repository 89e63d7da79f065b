"""The smallest honest relay: what Flask, gunicorn and requests cost before Lockgate does a thing.

It forwards the body as it came and the answer as it arrives: no keys, no checks, no journal, no deadlines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from flask import Blueprint, Flask, Response, current_app, request
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

relay = Blueprint("relay", __name__)


@relay.get("/healthz")
def healthz() -> str:
    """Say that the worker serves."""
    return "ok"


@relay.post("/v1/chat/completions")
def chat_completions() -> Response:
    """Forward one request and hand its answer on, whole or streamed."""
    outgoing = PreparedRequest()
    outgoing.method = "POST"
    outgoing.url = current_app.config["UPSTREAM"]
    outgoing.body = request.get_data()
    outgoing.hooks = default_hooks()
    outgoing.headers = CaseInsensitiveDict(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(outgoing.body)),
            "Authorization": current_app.config["AUTHORIZATION"],
        }
    )
    answer = current_app.config["ADAPTER"].send(outgoing, stream=True, timeout=(5, 120))

    def parts() -> Iterator[bytes]:
        try:
            # read1: the only reader that returns what has arrived, however the body is delimited.
            while part := answer.raw.read1(65536, decode_content=True):
                yield part
        finally:
            answer.close()

    headers = {name: answer.headers[name] for name in ("Content-Type", "Content-Length") if name in answer.headers}
    return Response(parts(), answer.status_code, headers)


def create_app() -> Flask:
    """Build the relay; its upstream's URL and key and the size of its pool come from the environment."""
    app = Flask(__name__)
    app.config["UPSTREAM"] = os.environ["BENCH_UPSTREAM"] + "/chat/completions"
    app.config["AUTHORIZATION"] = "Bearer " + os.environ["BENCH_KEY"]
    app.config["ADAPTER"] = HTTPAdapter(pool_connections=1, pool_maxsize=int(os.environ["BENCH_POOL"]))
    app.register_blueprint(relay)
    return app
