"""The OpenAPI document: valid, whole, in agreement with what the gateway checks, and true of what it answers."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodes
import pytest
import test_messages
from click.testing import CliRunner
from flask import Flask
from gateways import ECHO, Gateway
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_inventory import routes
from test_schemas import BAD, GOOD, NULLABLE, request

from proxy.cli import main
from proxy.errors import Reject
from proxy.openapi import examples
from proxy.openapi.components import Components
from proxy.openapi.document import document, encoded
from proxy.openapi.refusals import REFUSALS
from proxy.request.body import parse
from proxy.request.parameters import Text
from proxy.request.schemas import CHAT_PARAMETERS, check_chat
from proxy.request.structures import Object
from proxy.testing import Rig

ROOT = Path(__file__).resolve().parent.parent
CHAT = document()["paths"]["/v1/chat/completions"]["post"]
OTHER_NAMES = re.compile(r"GET /(models|requests)\b.*|POST /chat/completions")
PAGE = {"GET /", "GET /docs", "GET /docs/assets/<path:name>", "GET /openapi.json"}


def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """Match as ECMA does, which JSON Schema goes by: Python's `$` also matches before a line break at the end."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", wanted), value):
        yield ValidationError(f"{value!r} does not match {wanted}")


Validator = extend(Draft202012Validator, {"pattern": pattern})


def validator(name: str) -> Any:
    """Return what checks values against one of the document's schemas."""
    return Validator({**document(), "$ref": f"#/components/schemas/{name}"})


def told(**parameters: Any) -> dict[str, Any]:
    """Return a whole body with these parameters."""
    return request(**copy.deepcopy(parameters))


def verdict(body: dict[str, Any]) -> str:
    """Return what the gateway makes of a body: "taken", "refused", or "calls", which no schema can tell."""
    try:
        check_chat(copy.deepcopy(body))
    except Reject as error:
        return "calls" if (error.param or "").startswith("messages.[") else "refused"
    return "taken"


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with Rig(identity=None) as rig:
        yield rig._app


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    toml = ECHO + '[models."*"]\ntargets = ["echo"]\nweb_search = true\n'
    started = Gateway(tmp_path_factory.mktemp("openapi"), toml)
    yield started
    started.stop()


def test_the_document_is_valid() -> None:
    assert list(OpenAPIV31SpecValidator(document()).iter_errors()) == []
    assert document()["openapi"].startswith("3.1.")


def test_every_schema_is_one_of_json_schema() -> None:
    for name in document()["components"]["schemas"]:
        Draft202012Validator.check_schema(document()["components"]["schemas"][name])


def test_every_route_of_the_api_is_described(app: Flask) -> None:
    described = {f"{method.upper()} {path}" for path, ways in document()["paths"].items() for method in ways}
    there = {route for route in routes(app) if not OTHER_NAMES.fullmatch(route)} - PAGE
    assert described == {route.replace("<path:name>", "{model}") for route in there}


def test_every_parameter_is_there_with_a_type_and_a_sentence() -> None:
    schemas = document()["components"]["schemas"]
    assert set(schemas["ChatRequest"]["properties"]) == CHAT_PARAMETERS
    for path, member in members(schemas):
        assert member.keys() & {"type", "anyOf", "$ref"}, path
        resolved = {**schemas[member["$ref"].rpartition("/")[2]], **member} if "$ref" in member else member
        if "ToolCall" not in path.split(".")[0] or path.count(".") < 2:
            assert resolved.get("description", "").endswith("."), path
            assert resolved["description"].count(". ") == 0, path


def members(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every member of every object in the schemas, with its path."""
    waiting = list(schemas.items())
    for path, schema in waiting:
        for name, member in schema.get("properties", {}).items():
            yield f"{path}.{name}", member
            waiting.append((f"{path}.{name}", member))
        waiting += [(path, form) for form in schema.get("anyOf", []) if "type" in form]
        waiting += [(path, schema[inner]) for inner in ("items",) if inner in schema]


def test_nulls_defaults_bounds_and_age_are_told() -> None:
    properties = document()["components"]["schemas"]["ChatRequest"]["properties"]
    nullable = {
        name
        for name, member in properties.items()
        if "null" in member.get("type", ()) or {"type": "null"} in member.get("anyOf", ())
    }
    assert nullable == NULLABLE
    bounds = {"type": ["number", "null"], "minimum": 0, "maximum": 2, "default": 1}
    assert bounds.items() <= properties["temperature"].items()
    assert properties["max_tokens"]["deprecated"] and properties["response_format"]["default"] == {"type": "text"}
    assert properties["messages"]["items"] == {"$ref": "#/components/schemas/Message"}
    for name in ("ResponseFormat", "StreamOptions", "WebSearchOptions", "ToolChoice", "Tool"):
        assert f'"#/components/schemas/{name}"' in json.dumps(properties)


def test_two_forms_of_one_name_are_refused() -> None:
    parts = Components("t", "1")
    parts.hoisted(Object({"a": Text("A.")}, title="Thing").metadata)
    with pytest.raises(ValueError, match="Thing"):
        parts.hoisted(Object({"b": Text("B.")}, title="Thing").metadata)


def table(test: Any) -> list[Any]:
    """Return the cases that another test is run with."""
    cases: list[Any] = test.pytestmark[0].args[1]
    return cases


SAMPLES = [
    told(**{name: value, "stream": True}) for name, values in GOOD.items() for value in values if name != "stream"
]
SAMPLES += [told(messages=[test_messages.USER, one]) for one in table(test_messages.test_legal_messages_pass)]
SAMPLES += [one["value"] for one in examples.REQUESTS.values()]


def test_what_the_gateway_takes_is_legal_by_the_document() -> None:
    check = validator("ChatRequest")
    for body in SAMPLES:
        assert verdict(body) == "taken", body
        assert [error.message for error in check.iter_errors(body)] == [], body


def test_what_the_gateway_refuses_is_illegal_by_the_document() -> None:
    check = validator("ChatRequest")
    messages = [one for one, *_ in table(test_messages.test_illegal_messages_are_refused_with_their_path)]
    bodies = [told(messages=[test_messages.USER, one]) for one in messages]
    for body in [*(told(**{name: value}) for name, value, _, _ in BAD), *bodies]:
        assert verdict(body) == "refused" and not check.is_valid(body), body


LEAVES = st.none() | st.booleans() | st.integers(-200, 200) | st.floats(-3, 3) | st.text("ab-é\n", max_size=3)
WORDS = st.sampled_from(
    ["user", "assistant", "tool", "type", "text", "function", "refusal", "auto", "audio", "web_search", "image_url"]
)
REQUESTS = validator("ChatRequest")
VALUES = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=250)
def test_the_document_and_the_gateway_agree_on_any_change(data: st.DataObject) -> None:
    body = copy.deepcopy(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 3))):
        holder, at = data.draw(st.sampled_from(list(places(body)) or [(body, "model")]))
        if data.draw(st.booleans()) and isinstance(holder, dict):
            holder.pop(at, None)
        else:
            holder[at] = data.draw(VALUES)
    # As it would arrive: the floats that are whole among the integers, and the like.
    body = parse(json.dumps(body).encode())
    told = verdict(body)
    # Where results do not match calls nothing behind the messages has been looked at.
    assume(told != "calls")
    assert REQUESTS.is_valid(body) is (told == "taken")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where something can be changed: a container, and a key or an index in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(inner):
        yield value, key
        yield from places(one)


@pytest.mark.skipif(nodes.missing() is not None, reason=str(nodes.missing()))
def test_the_page_checks_what_the_gateway_checks() -> None:
    wrong = [(told(**{name: value}), param or name) for name, value, _, param in BAD]
    source = str(ROOT / "proxy" / "reference" / "static" / "schemas.js")
    bodies = [*SAMPLES, *(body for body, _ in wrong)]
    found = nodes.run("agree.mjs", {"source": source, "document": document(), "bodies": bodies})
    # JavaScript's numbers would not keep larger ones.
    assert found[: len(SAMPLES)] == [["seed"] if abs(body.get("seed") or 0) > 2**53 else [] for body in SAMPLES]
    for (body, param), places in zip(wrong, found[len(SAMPLES) :], strict=True):
        assert places, body
        # Of two parameters that do not go together each may name the other; of a path one may know more than the other.
        named = ("logprobs", "top_logprobs") if param in ("logprobs", "top_logprobs") else (param,)
        near = [place for place in places for one in named if one.startswith(place) or place.startswith(one)]
        assert near, (param, places)


def test_every_error_of_the_source_is_described() -> None:
    described = {code for refusal in REFUSALS.values() for code in refusal.codes}
    unknown = set()
    for path in [*(ROOT / "proxy").rglob("*.py"), *(ROOT / "plugins").glob("*.py")]:
        if "admin" not in path.parts:
            unknown |= {f"{path.name}: {code}" for code in codes(path) - described}
    assert unknown == set()
    assert set(CHAT["responses"]) == {"200", *map(str, REFUSALS)}


def codes(path: Path) -> set[str]:
    """Return the codes with which a file refuses, as far as they are written where it does."""
    makers = ("Reject", "UpstreamError", "violation", "refusal", "_told")
    return {
        node.args[1].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) in makers
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    }


def test_the_examples_of_answers_are_legal() -> None:
    checked = 0
    for path in document()["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                while "$ref" in response:
                    response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
                checked += check_answers(response["content"]["application/json"])
    assert checked > 20
    chunk = validator("ChatCompletionChunk")
    stream = CHAT["responses"]["200"]["content"]["text/event-stream"]["examples"]["streamed"]["value"]
    *events, done, rest = stream.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "") and len(events) == len(examples.CHUNKS)
    for event in events:
        chunk.validate(json.loads(event.removeprefix("data: ")))


def check_answers(content: dict[str, Any]) -> int:
    """Check the examples of an answer; return how many there are."""
    values = [content["example"]] if "example" in content else [one["value"] for one in content["examples"].values()]
    for value in values:
        Draft202012Validator({**document(), **content["schema"]}).validate(value)
    return len(values)


@pytest.mark.parametrize("name", examples.REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_examples_of_requests_are_answered_as_the_document_says(gateway: Gateway, name: str, stream: bool) -> None:
    body = examples.REQUESTS[name]["value"] | {"stream": stream}
    with gateway.wire() as wire:
        answer = wire.post(body)
    assert answer.status == 200, answer.body
    headers = CHAT["responses"]["200"]["headers"]
    assert headers.keys() <= answer.headers.keys()
    if not stream:
        return validator("ChatCompletion").validate(json.loads(answer.body))
    *events, done, _ = answer.body.decode().split("\n\n")
    assert done == "data: [DONE]" and events
    for event in events:
        validator("ChatCompletionChunk").validate(json.loads(event.removeprefix("data: ")))


def test_what_the_other_routes_answer_is_as_the_document_says(gateway: Gateway) -> None:
    with gateway.wire() as wire:
        listed = {name: json.loads(wire.get(path).body) for name, path in LISTS.items()}
        refused = wire.get("/v1/requests?limit=0")
    for name, answer in listed.items():
        validator(name).validate(answer)
    assert refused.status == 400
    validator("Error").validate(json.loads(refused.body))


LISTS = {"Models": "/v1/models", "Model": "/v1/models/echo", "Requests": "/v1/requests?limit=5", "Health": "/healthz"}


def test_the_document_is_served_once_and_then_known(gateway: Gateway) -> None:
    with gateway.wire() as wire:
        first = wire.get("/openapi.json", authorization="")
        again = wire.get("/openapi.json", authorization="", if_none_match=first.headers["etag"])
    assert (first.status, first.body, first.headers["content-type"]) == (200, encoded(), "application/json")
    assert (again.status, again.body) == (304, b"")


def test_the_command_prints_what_is_served() -> None:
    printed = CliRunner().invoke(main, ["openapi"])
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == document()


def test_a_worker_does_not_pay_for_the_document_before_it_is_asked_for() -> None:
    code = "import sys, proxy.app; print([name for name in sys.modules if name.startswith('apispec')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_docs_that_are_off_are_not_there(start_gateway: Any) -> None:
    gateway = start_gateway(server={"docs": False})
    with gateway.wire() as wire:
        for path in ("/", "/docs", "/docs/assets/page.js", "/openapi.json"):
            answer = wire.get(path)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "unknown_url")


def test_no_other_origin_is_let_in(gateway: Gateway) -> None:
    with gateway.wire() as wire:
        read = wire.get("/v1/models", origin="https://evil.example")
        page = wire.get("/docs", origin="https://evil.example")
    for answer in (read, page):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
