"""The routes of the page, of its parts, and of the OpenAPI document: open to all, and without anybody's data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from flask import Blueprint, Response, abort, render_template, request

blueprint = Blueprint("reference", __name__, template_folder="templates")

#: Nothing from elsewhere, nothing inline: text that came from a model or a user could not run even as markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    # Asked for anew each time, and seldom sent: a gateway may have been upgraded.
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes as they are served, with their type."""

    body: bytes
    type: str

    def response(self) -> Response:
        """Return a response, or 304 where the client has it."""
        response = Response(self.body, mimetype=self.type, headers=HEADERS)
        response.set_etag(hashlib.sha256(self.body).hexdigest()[:32])
        return response.make_conditional(request.environ)  # type: ignore[return-value]


@blueprint.get("/", provide_automatic_options=False)
def root() -> Response:
    """Lead to the page."""
    return Response(status=302, headers={**HEADERS, "location": "/docs"})


@blueprint.get("/docs", provide_automatic_options=False)
def page() -> Response:
    """Serve the page."""
    return _page().response()


@blueprint.get("/docs/assets/<path:name>", provide_automatic_options=False)
def asset(name: str) -> Response:
    """Serve a part of the page by its name."""
    found = _assets().get(name)
    if found is None:
        abort(404)
    return found.response()


@blueprint.get("/openapi.json", provide_automatic_options=False)
def openapi() -> Response:
    """Serve the OpenAPI document."""
    return _openapi().response()


# What follows is the same for all gateways of a process, and made when it is first asked for: apispec and the document
# would take a third of the time in which a worker has to start.


@cache
def _openapi() -> Content:
    from proxy.openapi.document import encoded

    return Content(encoded(), "application/json")


@cache
def _assets() -> dict[str, Content]:
    folder = Path(__file__).with_name("static")
    files = [path for path in folder.rglob("*") if path.suffix in TYPES]
    return {path.relative_to(folder).as_posix(): Content(path.read_bytes(), TYPES[path.suffix]) for path in files}


@cache
def _page() -> Content:
    from proxy.openapi.document import document
    from proxy.reference import outline

    made = document()
    chat = made["paths"]["/v1/chat/completions"]["post"]

    def resolved(part: dict[str, Any]) -> dict[str, Any]:
        return outline.resolved(made, part)

    text = render_template(
        "reference.html",
        info=made["info"],
        chat=chat,
        parameters=outline.rows(made, {"$ref": "#/components/schemas/ChatRequest"}),
        others=[
            (method.upper(), path, operation)
            for path, operations in made["paths"].items()
            for method, operation in operations.items()
            if operation is not chat
        ],
        bearer=made["components"]["securitySchemes"]["bearer"],
        resolved=resolved,
        shown=_shown,
    )
    return Content(text.encode(), "text/html")


def _shown(example: Any) -> str:
    return example if isinstance(example, str) else orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
