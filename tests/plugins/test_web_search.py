"""Searching the web for models that cannot: a SearXNG, an engine of one's own, and citations by characters."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gateways import Gateway
from marshmallow import ValidationError
from upstreams import Gate, Upstream, json_answer, stream_answer

from plugins.redact import Redact
from plugins.web_search import WebSearch, cited
from proxy import SearchResult, SearXNG, hookimpl, take_search
from proxy.testing import Rig, assert_split_invariant, completion, configured, stream

FOUND = [
    SearchResult("Ulm – weather", "https://a.example/ulm", "Rain 🌧 until noon."),
    SearchResult("Bonn", "https://b.example/"),
    SearchResult("Jena", "https://c.example/"),
]
ANSWER = "Grüße 🌍: es regnet [1], später [2, 3] nicht [9] [x] [1]."


class Engine:
    """An engine of one's own: a plugin with a method `search`."""

    name = "engine"

    def __init__(self, found: list[SearchResult] | Exception) -> None:
        self.found = found
        self.asked: list[tuple[str, int, dict[str, str]]] = []

    @hookimpl
    def on_start(self, gateway: Any) -> None:
        self.ready = True

    def search(self, query: str, count: int, location: Any) -> list[SearchResult]:
        self.asked.append((query, count, dict(location)))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def rigged(engine: Engine, **options: Any) -> Rig:
    return Rig(engine, configured(WebSearch, engine="engine", **options))


def request(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [{"role": "user", "content": "Weather in Ulm?"}], **more}


def places(annotations: list[dict[str, Any]], content: str) -> list[tuple[str, str]]:
    """The URL of each annotation and what it marks."""
    said = [each["url_citation"] for each in annotations]
    return [(each["url"], content[each["start_index"] : each["end_index"]]) for each in said]


CITED = [
    ("https://a.example/ulm", "[1]"),
    ("https://b.example/", "[2, 3]"),
    ("https://c.example/", "[2, 3]"),
    ("https://a.example/ulm", "[1]"),
]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_found_is_put_before_the_message_and_what_is_cited_is_annotated(streamed: bool) -> None:
    engine = Engine(FOUND)
    place = {"type": "approximate", "approximate": {"city": "Ulm", "country": "DE"}}
    options = {"search_context_size": "low", "user_location": place}
    with rigged(engine) as rig:
        result = rig.run(request(web_search_options=options), answer=ANSWER, stream=streamed, split=2)
    assert engine.asked == [("Weather in Ulm?", 3, {"city": "Ulm", "country": "DE"})]
    sent = result.upstream_body
    assert sent is not None and "web_search_options" not in sent
    content = sent["messages"][0]["content"]
    assert content.endswith("\n\nWeather in Ulm?") and "The user is in: Ulm, DE." in content
    assert "[1] Ulm – weather\nhttps://a.example/ulm\nRain 🌧 until noon." in content
    assert result.complete and result.text == ANSWER
    annotations = [each for event in result.events for each in event["choices"][0]["delta"].get("annotations") or ()]
    assert places(annotations, ANSWER) == CITED
    assert result.exchange is not None
    assert result.exchange.findings == {"web_search.queries": 1, "web_search.results": 3}


def test_annotations_are_the_same_however_an_answer_is_cut() -> None:
    engine = Engine(FOUND)
    plugin = configured(WebSearch, engine="engine")
    assert_split_invariant([engine, plugin], ANSWER, request=request(web_search_options={}), cuts=2)


def test_each_choice_has_annotations_of_its_own() -> None:
    events = stream("A [1].", n=2, split=1) + stream("B", n=1)
    ends = [event["choices"][0] for event in cited(events, FOUND) if event["choices"]]
    found = [(end["index"], len(end["delta"].get("annotations", ()))) for end in ends if end["finish_reason"]]
    assert found == [(0, 1), (1, 1), (0, 0)]


def test_what_the_upstream_has_annotated_itself_stays() -> None:
    own = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    said = completion("A [1].")
    said["choices"][0]["message"]["annotations"] = [own]
    with rigged(Engine(FOUND)) as rig:
        annotations = rig.run(request(web_search_options={}), answer=lambda _: said).json["choices"][0]["message"][
            "annotations"
        ]
    assert annotations[0] == own and places(annotations[1:], "A [1].") == [("https://a.example/ulm", "[1]")]


def test_nothing_is_searched_where_nobody_asks() -> None:
    engine = Engine(FOUND)
    with rigged(engine) as rig:
        result = rig.run(request(), answer=ANSWER)
        assert result.upstream_body is not None and result.upstream_body["messages"] == request()["messages"]
        assert not result.json["choices"][0]["message"].get("annotations")
        system = {"role": "system", "content": "Hi"}
        assert rig.run(request(system, web_search_options={}), answer="Hi").upstream_body["messages"] == [system]  # type: ignore[index]
    assert engine.asked == []


def test_the_last_message_of_the_user_is_the_query_and_only_so_much_of_it() -> None:
    engine = Engine([])
    parts = [{"type": "text", "text": "And\n\nin"}, {"type": "text", "text": "Bonn" + "!" * 100}]
    messages = [{"role": "user", "content": "Ulm?"}, {"role": "assistant", "content": "Rain."}]
    with rigged(engine, query_characters=20) as rig:
        result = rig.run(request(*messages, {"role": "user", "content": parts}, web_search_options={}), answer="[1]")
    assert engine.asked == [("And in Bonn!!!!!!!!!", 6, {})]
    assert result.upstream_body is not None
    assert result.upstream_body["messages"][:2] == messages
    first, *others = result.upstream_body["messages"][2]["content"]
    assert "The search has found nothing." in first["text"] and others == parts


@pytest.mark.parametrize("required", [True, False])
def test_an_engine_that_fails_refuses_the_request_unless_it_may_be_missing(
    required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with rigged(Engine(OSError("at 10.0.0.1")), required=required) as rig:
        result = rig.run(request(web_search_options={}), answer="Hi")
    assert result.status == (503 if required else 200)
    assert "10.0.0.1" not in caplog.text + result.body.decode()
    assert result.exchange is not None and result.exchange.findings["web_search.failures"] == 1
    if required:
        assert result.json["error"]["code"] == "web_search_unavailable"


FUNCTION = {"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}


def test_tools_that_search_are_wishes_too_and_others_stay() -> None:
    for tools, kept, options in [
        ([{"type": "web_search"}], None, {}),
        ([{"type": "google_search"}, FUNCTION], [FUNCTION], {}),
        ([{"type": "web_search_20250305", "name": "web_search"}], None, {}),
        ([FUNCTION], [FUNCTION], None),
        ([{"type": "url_context"}], [{"type": "url_context"}], None),
    ]:
        body = {"tools": tools, "tool_choice": "auto"}
        assert take_search(body) == options
        assert body.get("tools") == kept and ("tool_choice" in body) is (kept is not None)
    body = {"tools": [FUNCTION, {"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    assert take_search(body) == {} and body == {"tools": [FUNCTION]}


def test_the_guides_engine_asks_the_companys_own_pages(upstream: Upstream) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "web-search.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(example.replace("https://search.corp.example", f"http://{upstream.address}"), space)
    page = {"title": "Canteen", "link": "https://pages.corp.example/canteen", "extract": "Soup."}
    upstream.scripts = [lambda _: json_answer({"pages": [page]})]
    with Rig(space["Intranet"], configured(WebSearch, engine="intranet")) as rig:
        result = rig.run(request(web_search_options={}), answer="Soup [1].")
    assert upstream.wait_request().path == "/api?q=Weather+in+Ulm%3F&size=6"
    assert places(result.json["choices"][0]["message"]["annotations"], "Soup [1].") == [(page["link"], "[1]")]


@pytest.mark.parametrize("streamed", [False, True])
def test_behind_redaction_the_engine_sees_placeholders_and_the_offsets_are_right(streamed: bool) -> None:
    engine = Engine(FOUND)
    plugins = [configured(Redact), engine, configured(WebSearch, engine="engine")]
    asked = request({"role": "user", "content": "Who is ada@corp.example?"}, web_search_options={})

    def answer(sent: dict[str, Any]) -> str:
        [token] = set(re.findall(r"Who is (.+)\?", sent["messages"][0]["content"]))
        return f"It is {token} [1], yes, {token} [2]."

    with Rig(*plugins) as rig:
        result = rig.run(asked, answer=answer, stream=streamed, split=2)
    assert "ada@" not in engine.asked[0][0] + str(result.upstream_body)
    assert result.text == "It is ada@corp.example [1], yes, ada@corp.example [2]."
    annotations = [each for event in result.events for each in event["choices"][0]["delta"].get("annotations") or ()]
    assert [mark for _, mark in places(annotations, result.text)] == ["[1]", "[2]"]


def test_it_is_configured_with_one_engine() -> None:
    for options in ({}, {"searxng": "http://search.corp", "engine": "engine"}):
        with pytest.raises(ValidationError, match="either searxng or engine"):
            configured(WebSearch, **options)
    with pytest.raises(ValueError, match="'nobody' is no plugin"):
        configured(WebSearch, engine="nobody").on_start(SimpleNamespace(plugins={}))


@pytest.fixture
def session(upstream: Upstream, tmp_path: Path) -> Iterator[Any]:
    with rigged(Engine([])) as rig, rig.gateway.http() as made:
        yield made


PAGES = {
    "query": "x",
    "results": [
        {"url": "https://a.example/ulm", "title": " Ulm –\n weather ", "content": "Rain 🌧  until noon."},
        {"url": "https://a.example/ulm", "title": "Again", "content": "the same"},
        {"url": "javascript:alert(1)", "title": "No"},
        {"url": None, "title": "No"},
        {"url": "https://b.example/", "title": None, "content": None},
        {"url": "https://c.example/", "title": "C"},
    ],
}


def test_a_searxng_is_asked_for_json(session: Any, upstream: Upstream) -> None:
    upstream.scripts = [lambda _: json_answer(PAGES)]
    engine = SearXNG(session, f"http://{upstream.address}/", 5.0, {"language": "de"})
    assert engine.search("größer & kleiner", 2, {}) == [
        FOUND[0],
        SearchResult("https://b.example/", "https://b.example/", ""),
    ]
    asked = upstream.wait_request()
    assert (asked.method, asked.path) == ("POST", "/search")
    form = dict(urllib.parse.parse_qsl(asked.body.decode()))
    assert form == {"q": "größer & kleiner", "format": "json", "language": "de"}


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({}, 403),
        json_answer({"results": None}),
        json_answer(b"<html>"),
        json_answer([]),
        json_answer({"results": [], "more": "x" * (3 << 20)}),
        json_answer(b"", 302, location="http://127.0.0.1:1/"),
    ],
)
def test_a_searxng_that_gives_no_results_fails(session: Any, upstream: Upstream, answer: bytes) -> None:
    upstream.scripts = [lambda _: answer]
    with pytest.raises((OSError, ValueError, TypeError, KeyError)):
        SearXNG(session, f"http://{upstream.address}", 5.0).search("x", 3, {})


def test_a_searxng_that_takes_too_long_is_not_waited_for(session: Any, upstream: Upstream) -> None:
    gate = Gate()
    upstream.scripts = [lambda _: gate]
    with pytest.raises(OSError, match="timed out"):
        SearXNG(session, f"http://{upstream.address}", 0.2).search("x", 3, {})
    gate.open()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_model_without_search_answers_from_the_web(
    start_gateway: Callable[..., Gateway], upstream: Upstream, streamed: bool
) -> None:
    def script(asked: Any) -> bytes:
        if asked.path == "/search":
            return json_answer(PAGES)
        return stream_answer(stream(ANSWER)) if streamed else json_answer(completion(ANSWER))

    upstream.scripts = [script]
    gateway = start_gateway(f"""
        chain = ["keys", "search"]
        plugins.keys = {{ use = "api_keys" }}
        plugins.search = {{ use = "web_search", searxng = "http://{upstream.address}" }}
        providers.local = {{ use = "openai", base_url = "{upstream.url}" }}
        models.open = {{ targets = ["local"], web_search = true }}
        models.closed = {{ targets = ["local"] }}
    """)
    with gateway.client() as client:
        ask = {"messages": request()["messages"], "web_search_options": {}}
        got = client.chat.completions.create(model="open", stream=streamed, **ask)
        if streamed:
            chunks = [chunk.choices[0] for chunk in got if chunk.choices]
            annotations = getattr(chunks[-1].delta, "annotations", None)
            assert chunks[-1].finish_reason == "stop" and annotations is not None
        else:
            annotations = [each.model_dump() for each in got.choices[0].message.annotations]
        assert places(annotations, ANSWER)[0] == ("https://a.example/ulm", "[1]")
        asked = json.loads(upstream.requests[-1].body)
        assert re.search(r"\[2\] https://b.example/\n", asked["messages"][0]["content"])
        before = len(upstream.requests)
        with pytest.raises(Exception, match="You may not use 'web_search'"):
            client.chat.completions.create(model="closed", **ask)
        assert len(upstream.requests) == before
