"""The OpenAPI document of the gateway's API, put together from schemas, refusals and examples."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from proxy.errors import error_body, type_of
from proxy.openapi import examples
from proxy.openapi.answers import SCHEMAS
from proxy.openapi.components import Components
from proxy.openapi.refusals import REFUSALS, Refusal
from proxy.request.schemas import TOGETHER, ChatRequest

DESCRIPTION = (
    "Lockgate takes requests as OpenAI's API does, so that its SDKs need another base URL and nothing else. It decides "
    "who may ask what, and passes the request on to the provider that serves the model."
)
CHAT = (
    "Answers a conversation. The answer comes as a whole, or in events while it is made, where `stream` is true; "
    "`Accept` does not decide that. Parameters that are not described here are refused, unless the model takes them."
)
STREAM = (
    "Server-sent events. Each has one line `data: `, which holds a JSON object: a chunk, or at last an error. After a "
    "complete answer comes `data: [DONE]`, and only then: a stream that ends without it, with an error or with none, "
    "is cut, and what came of it must not be taken for the whole. Lines that begin with a colon are comments, sent "
    "while the provider is silent."
)
HEADERS = {
    "x-request-id": "The request's id, under which the gateway knows it.",
    "x-lockgate-target": "Which provider answered, unless the gateway keeps that to itself.",
    "x-lockgate-attempts": "How many providers were asked until one answered.",
    "retry-after": "How many seconds to wait before another try.",
    "x-should-retry": "Whether another try may help; official SDKs go by it.",
    "x-lockgate-limit": "Which of the gateway's own limits is reached, and whose.",
    "www-authenticate": "That a bearer token is wanted.",
    "allow": "The methods that are allowed.",
}
EVERYWHERE = (401, 405, 414, 429, 431, 500, 503)
MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The model's name; it may have slashes in it.",
    "schema": {"type": "string"},
}
PAGE_PARAMETERS = [
    {
        "name": "limit",
        "in": "query",
        "description": "How many requests are told.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "after",
        "in": "query",
        "description": "The `next_cursor` of the page before.",
        "schema": {"type": "string"},
    },
]


@cache
def document() -> dict[str, Any]:
    """Return the document; it is made once, and must not be changed."""
    parts = Components("Lockgate", _version(), description=DESCRIPTION)
    parts.add("ChatRequest", ChatRequest, "What is asked, of which model, and how it is answered.", allOf=TOGETHER)
    for name, schema in SCHEMAS.items():
        parts.add(name, schema, (schema.__doc__ or "").partition("\n")[0])
    spec = parts.spec
    spec.components.security_scheme(
        "bearer",
        {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of the gateway (`lg_…`), or a token (JWT) of an issuer that the gateway trusts.",
        },
    )
    for name, meaning in HEADERS.items():
        form = {"type": "integer"} if name in ("retry-after", "x-lockgate-attempts") else {"type": "string"}
        spec.components.header(name, {"description": meaning, "schema": form})
    for status, refusal in REFUSALS.items():
        spec.components.response(f"Refused{status}", _refused(status, refusal))
    answers = {"200": _answered("The models.", "Models", examples.MODELS)}
    spec.path("/v1/chat/completions", operations={"post": _chat()})
    spec.path("/v1/models", operations={"get": _get("listModels", "List the models", answers)})
    one = {"200": _answered("The model.", "Model", examples.MODELS["data"][0])}
    spec.path(
        "/v1/models/{model}", operations={"get": _get("getModel", "Describe a model", one, [MODEL_PARAMETER], 404)}
    )
    page = {"200": _answered("A page of requests.", "Requests", examples.REQUEST_PAGE)}
    listing = _get("listRequests", "List your own recent requests", page, PAGE_PARAMETERS, 400)
    spec.path("/v1/requests", operations={"get": listing})
    health = {"200": _answered("It answers.", "Health", {"status": "ok"})}
    spec.path(
        "/healthz",
        operations={
            "get": {"operationId": "health", "summary": "Say that it answers", "security": [], "responses": health}
        },
    )
    made: dict[str, Any] = spec.to_dict()
    return {"openapi": made.pop("openapi"), **made, "servers": [{"url": "/"}], "security": [{"bearer": []}]}


def encoded() -> bytes:
    """Return the document as JSON."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2)


def events(chunks: list[dict[str, Any]]) -> str:
    """Return chunks as a complete stream of events."""
    return "".join(f"data: {data}\n\n" for data in [*(orjson.dumps(chunk).decode() for chunk in chunks), "[DONE]"])


def _version() -> str:
    try:
        return version("lockgate")
    except PackageNotFoundError:
        return "0"


def _chat() -> dict[str, Any]:
    told = ("x-request-id", "x-lockgate-target", "x-lockgate-attempts")
    chunk = {"anyOf": [_reference("schemas", "ChatCompletionChunk"), _reference("schemas", "Error")]}
    stream = {
        "type": "string",
        "description": STREAM,
        "contentMediaType": "text/event-stream",
        "contentSchema": chunk,
    }
    whole = {"schema": _reference("schemas", "ChatCompletion"), "examples": {"whole": {"value": examples.COMPLETION}}}
    streamed = {"schema": stream, "examples": {"streamed": {"value": events(examples.CHUNKS)}}}
    return {
        "operationId": "createChatCompletion",
        "summary": "Create a chat completion",
        "description": CHAT,
        "parameters": [
            {
                "name": "Accept",
                "in": "header",
                "description": "Not looked at: `stream` alone decides what comes.",
                "schema": {"type": "string", "default": "*/*"},
            }
        ],
        "requestBody": {
            "required": True,
            "description": "At most 32 MiB of JSON in UTF-8, unless the gateway is configured otherwise.",
            "content": {
                "application/json": {"schema": _reference("schemas", "ChatRequest"), "examples": examples.REQUESTS}
            },
        },
        "responses": {
            "200": {
                "description": "The answer, whole or streamed as `stream` says.",
                "headers": {name: _reference("headers", name) for name in told},
                "content": {"application/json": whole, "text/event-stream": streamed},
            },
            **{str(status): _reference("responses", f"Refused{status}") for status in REFUSALS},
        },
    }


def _get(
    name: str, summary: str, answers: dict[str, Any], parameters: list[dict[str, Any]] | None = None, *statuses: int
) -> dict[str, Any]:
    refused = {str(status): _reference("responses", f"Refused{status}") for status in sorted({*EVERYWHERE, *statuses})}
    return {"operationId": name, "summary": summary, "parameters": parameters or [], "responses": answers | refused}


def _answered(meaning: str, schema: str, example: Any) -> dict[str, Any]:
    return {
        "description": meaning,
        "headers": {"x-request-id": _reference("headers", "x-request-id")},
        "content": {"application/json": {"schema": _reference("schemas", schema), "example": example}},
    }


def _refused(status: int, refusal: Refusal) -> dict[str, Any]:
    code = next(iter(refusal.codes))
    type = "requests" if code == "rate_limit_exceeded" else type_of(status)
    return {
        "description": refusal.meaning,
        "headers": {name: _reference("headers", name) for name in ("x-request-id", *refusal.headers)},
        "content": {
            "application/json": {
                "schema": _reference("schemas", "Error"),
                "example": error_body(refusal.message, type, refusal.param, code),
            }
        },
        # By code, what its receiver should do.
        "x-codes": refusal.codes,
    }


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
