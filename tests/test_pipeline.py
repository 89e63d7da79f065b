"""The life of an exchange, with plugins that write down what they are asked."""

from __future__ import annotations

import gc
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crowds import until
from upstreams import End, Upstream, json_answer, sse, stream_answer
from werkzeug.test import create_environ

from proxy import config
from proxy.app import create_app
from proxy.errors import ConfigError
from proxy.gateway import Gateway
from proxy.metrics.scrape import Scrape
from proxy.testing import completion, stream

PROBES = '''
from proxy import Identity, Reject, Reply, hookimpl
from marshmallow import Schema, fields

SEEN = []

class Probe:
    """Writes down what it is asked, and fails where it is told to."""

    name = "probe"

    class Config(Schema):
        fails = fields.String(load_default="")
        how = fields.String(load_default="")
        key = fields.String(load_default="")
        letter = fields.String(load_default="p")

    def __init__(self, config):
        self.config = config
        self.headers = {}
        self.made = None

    def note(self, hook):
        SEEN.append(f"{self.config['letter']}.{hook}")
        if self.config["fails"] == hook:
            if self.config["how"] == "reject":
                raise Reject(418, "teapot", "I am a teapot.", headers={"x-pot": "1"})
            if self.config["how"] == "reply":
                return Reply(events=iter(REPLY))
            if self.config["how"] == "exit":
                raise SystemExit(3)
            raise RuntimeError("the secret cause")

    @hookimpl
    def authenticate(self, exchange):
        self.note("authenticate")
        if exchange.credential == self.config["key"]:
            return Identity("me", team="mine")

    @hookimpl
    def on_request(self, exchange):
        exchange.response_headers.update(self.headers)
        return self.note("on_request")

    @hookimpl
    def on_response(self, exchange):
        self.note("on_response")
        def events(source):
            self.note("filter")
            if self.made is not None:
                list(source)
                yield from self.made
                return
            for event in source:
                for choice in event["choices"]:
                    if choice["delta"].get("content"):
                        choice["delta"]["content"] += self.config["letter"]
                yield event
                self.note("event")
        return events

    @hookimpl
    def on_start(self, gateway):
        self.note("on_start")
        LAST.append(gateway)

    @hookimpl
    def on_stop(self):
        self.note("on_stop")

    @hookimpl
    def on_complete(self, exchange):
        LAST.append(exchange)
        self.note("on_complete")

LAST = []
REPLY = []
'''


class Rig:
    """A gateway in this process with probes `a` and `b`, and an upstream behind it."""

    def __init__(self, folder: Path, upstream: Upstream, more: str = "", **options: dict[str, str]) -> None:
        (folder / "plugins").mkdir()
        (folder / "plugins" / "probes.py").write_text(PROBES)
        lines = ['chain = ["a", "b"]', "[server]", 'plugins_dir = "plugins"']
        for name in "ab":
            own = {"use": "probe", "letter": name, "key": "k", **options.get(name, {})}
            lines += [f"[plugins.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in own.items())]
        lines += [
            "[providers.up]",
            'use = "openai"',
            f'base_url = "{upstream.url}"',
            "[models.mock]",
            'targets = ["up"]',
        ]
        path = folder / "lockgate.toml"
        path.write_text("\n".join([*lines, more]))
        settings, catalog = config.assemble(path)
        self.catalog = catalog
        self.app = create_app(settings, catalog)
        self.gateway = self.app.extensions["lockgate"]
        self.gateway.teams = SimpleNamespace(get=lambda name: None)  # there is no database
        module = type(self.gateway.plugins["a"]).authenticate.__globals__
        self.seen: list[str] = module["SEEN"]
        self.last: list[Any] = module["LAST"]
        self.reply: list[Any] = module["REPLY"]
        self.client = self.app.test_client()
        self.started = list(self.seen)
        self.seen.clear()

    def post(self, body: Any = None, key: str | None = "k", path: str = "/v1/chat/completions", **more: Any) -> Any:
        body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}], **(body or {}), **more}
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        # Unbuffered, a stream is read piece by piece; its exchange ends when the response is closed.
        return self.client.post(path, json=body, headers=headers, buffered=not body.get("stream"))

    def streamed(self, **more: Any) -> tuple[str, bool]:
        """Return what a streaming client gets, and whether the stream ended as a whole one does."""
        got = []
        try:
            with self.post(stream=True, **more) as response:
                for piece in response.response:
                    got.append(piece)
        except ConnectionResetError:
            return b"".join(got).decode(), False
        return b"".join(got).decode(), True


@pytest.fixture
def rig(tmp_path: Path, upstream: Upstream) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(more: str = "", **options: dict[str, str]) -> Rig:
        made.append(Rig(tmp_path, upstream, more, **options))
        return made[-1]

    yield make
    for each in made:
        each.gateway.stop()


def test_requests_go_left_to_right_and_answers_right_to_left(rig: Callable[..., Rig], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: json_answer(completion("x"))]
    it = rig(a={"key": "other"})
    assert it.post().json["choices"][0]["message"]["content"] == "xba"
    assert [name for name in it.seen if "event" not in name] == [
        "a.authenticate", "b.authenticate", "a.on_request", "b.on_request", "a.on_response", "b.on_response",
        "a.filter", "b.filter", "a.on_complete", "b.on_complete",
    ]  # fmt: skip


def test_plugins_are_started_with_the_gateway_and_all_are_stopped(rig: Callable[..., Rig]) -> None:
    it = rig(a={"fails": "on_stop"})
    assert it.started == ["a.on_start", "b.on_start"]
    assert it.last == [it.gateway, it.gateway]
    it.gateway.stop()
    assert it.seen == ["a.on_stop", "b.on_stop"]
    it.gateway.stop()
    assert it.seen == ["a.on_stop", "b.on_stop"]


def test_a_plugin_that_cannot_start_stops_the_worker(rig: Callable[..., Rig]) -> None:
    with pytest.raises(RuntimeError):
        rig(b={"fails": "on_start"})


def test_a_start_that_failed_is_stopped_as_far_as_it_came(rig: Callable[..., Rig]) -> None:
    it = rig()
    it.gateway.stop()
    settings, catalog = it.gateway.settings, it.catalog
    for missing, what in (("journal", OSError), ("metrics", OSError)):
        shutil.rmtree(settings.server.state / missing)
        (settings.server.state / missing).touch()
        it.seen.clear()
        gateway = Gateway(settings, catalog)
        with pytest.raises(what):
            gateway.start()
        gateway.stop()
        assert it.seen == [], "a plugin that was not started is not stopped"


def test_the_first_identity_wins(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    it.post()
    assert [name for name in it.seen if "authenticate" in name] == ["a.authenticate"]
    assert it.last[-1].identity.team == "mine"


def test_streams_and_whole_answers_go_through_the_same_filters(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    upstream.scripts = [lambda _: stream_answer(stream("x", split=1))]
    text, whole = it.streamed()
    assert whole
    assert '"content":"xba"' in text
    upstream.scripts = [lambda _: json_answer(completion("x"))]
    assert it.post().json["choices"][0]["message"]["content"] == "xba"


def test_nobody_vouches_for_an_unknown_caller(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    wrong, none = it.post(key="wrong"), it.post(key=None)
    assert (wrong.status_code, wrong.json["error"]["code"]) == (401, "invalid_api_key")
    assert (none.status_code, none.json["error"]["code"]) == (401, None)
    assert upstream.requests == []
    assert it.seen.count("a.on_complete") == 2


@pytest.mark.parametrize("how", ["reject", "raise"])
@pytest.mark.parametrize("hook", ["authenticate", "on_request", "on_response", "filter"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_plugin_that_fails_before_the_first_event_ends_the_exchange_closed(
    rig: Callable[..., Rig], upstream: Upstream, hook: str, how: str, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    it = rig(a={"key": "other"}, b={"fails": hook, "how": how})
    with it.post(stream=streamed) as response:
        assert response.status_code == (418 if how == "reject" else 500)
        assert response.headers["content-type"] == "application/json"
        assert response.headers.get("x-pot") == ("1" if how == "reject" else None)
        error = response.json["error"]
    assert error["code"] == ("teapot" if how == "reject" else "plugin_error")
    assert "secret" not in error["message"]
    assert [name for name in it.seen if "complete" in name] == ["a.on_complete", "b.on_complete"]
    assert it.last[-1].outcome.culprit == (None if how == "reject" else "b")
    assert ("plugin b failed" in caplog.text) is (how == "raise")
    if hook in ("authenticate", "on_request"):
        assert upstream.requests == []


@pytest.mark.parametrize("how", ["reject", "raise"])
def test_a_filter_that_fails_within_a_stream_ends_it_with_an_error(
    rig: Callable[..., Rig], upstream: Upstream, how: str
) -> None:
    upstream.scripts = [lambda _: stream_answer(stream("x y z", split=1))]
    it = rig(b={"fails": "event", "how": how})
    text, whole = it.streamed()
    events = [json.loads(event[6:]) for event in text.split("\n\n")[:-1]]
    assert not whole
    assert "[DONE]" not in text
    assert events[-1]["error"]["code"] == ("teapot" if how == "reject" else "plugin_error")
    assert it.last[-1].outcome.complete is False
    assert it.seen.count("b.on_complete") == 1


def test_a_plugin_that_fails_in_on_complete_stops_no_other(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig(a={"fails": "on_complete"})
    assert it.post().status_code == 200
    assert it.seen[-2:] == ["a.on_complete", "b.on_complete"]
    totals, _ = Scrape(it.gateway.state / "metrics").totals()
    assert totals["lockgate_plugin_failures"].rows == {("a",): [1.0]}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_answers_through_the_filters_of_those_before_it(
    rig: Callable[..., Rig], upstream: Upstream, streamed: bool
) -> None:
    it = rig(b={"fails": "on_request", "how": "reply"})
    it.reply.extend(stream("x", split=1))
    if streamed:
        text, whole = it.streamed()
        assert whole
        assert '"content":"xa"' in text
        assert text.endswith("data: [DONE]\n\n")
    else:
        answer = it.post().json
        assert answer["choices"][0]["message"]["content"] == "xa"
        assert answer["usage"]["prompt_tokens"] == 5
    assert upstream.requests == []
    assert it.last[-1].usage.completion_tokens == 2


def test_a_reply_without_an_end_is_no_answer(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig(b={"fails": "on_request", "how": "reply"})
    it.reply.extend(stream("x", split=1)[:2])
    assert it.post().status_code == 500
    text, whole = it.streamed()
    assert not whole
    assert "[DONE]" not in text


def test_a_model_has_a_chain_of_its_own_from_on_request_on(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig('[models.other]\ntargets = ["up"]\nchain = ["b"]')
    assert it.post(model="other").status_code == 200
    assert it.seen[0] == "a.authenticate"
    assert {name[0] for name in it.seen[1:]} == {"b"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"model": "mock", "messages": []}',
        b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}',
    ],
)
def test_an_exchange_that_reaches_no_model_completes_on_the_top_level_chain(
    rig: Callable[..., Rig], upstream: Upstream, body: bytes
) -> None:
    it = rig()
    response = it.client.post(
        "/v1/chat/completions",
        data=body,
        headers={"authorization": "Bearer k", "content-type": "application/json"},
        buffered=True,
    )
    assert response.status_code in (400, 404)
    assert it.seen == ["a.authenticate", "a.on_complete", "b.on_complete"]


def test_an_unknown_model_is_not_found(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    response = it.post(model="gpt-nonsense")
    assert response.status_code == 404
    assert response.json["error"]["code"] == "model_not_found"
    assert (
        response.json["error"]["message"] == "The model `gpt-nonsense` does not exist or you do not have access to it."
    )


def test_the_longest_pattern_wins_and_the_exact_name_before_it(rig: Callable[..., Rig], upstream: Upstream) -> None:
    more = "".join(
        f'[models."{name}"]\ntargets = ["up/{i}"]\n' for i, name in enumerate(["*", "gpt-*", "gpt-5*", "gpt-5-mini"])
    )
    it = rig(more)
    for model, target in [("x", "0"), ("gpt-4", "1"), ("gpt-5-pro", "2"), ("gpt-5-mini", "3")]:
        it.post(model=model)
        assert upstream.requests[-1].json["model"] == target
    assert it.post(model="gpt-*").status_code == 404


def test_a_pattern_asks_the_upstream_for_the_model_that_was_named(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig('[models."m-*"]\ntargets = ["up"]')
    it.post(model="m-1")
    assert upstream.requests[-1].json["model"] == "m-1"


def test_unknown_parameters_are_refused_unless_the_model_or_the_provider_knows_them(
    rig: Callable[..., Rig], upstream: Upstream
) -> None:
    it = rig(
        '[models.free]\ntargets = ["up"]\nparameters = ["top_k"]\n[models.any]\ntargets = ["up"]\nparameters = ["*"]'
    )
    refused = it.post(top_k=3)
    assert (refused.status_code, refused.json["error"]["code"], refused.json["error"]["param"]) == (
        400,
        "unknown_parameter",
        "top_k",
    )
    assert it.post(model="free", top_k=3).status_code == 200
    assert it.post(model="free", min_p=3).status_code == 400
    assert it.post(model="any", min_p=3).status_code == 200
    assert upstream.requests[-1].json["min_p"] == 3


@pytest.mark.parametrize("asked", [{"web_search_options": {}}, {"tools": [{"type": "web_search_preview"}]}])
def test_searching_the_web_is_a_grant_of_the_model(rig: Callable[..., Rig], upstream: Upstream, asked: dict) -> None:
    it = rig('[models.search]\ntargets = ["up"]\nweb_search = true')
    refused = it.post(**asked)
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "capability_not_allowed")
    assert upstream.requests == []
    assert it.post(model="search", **asked).status_code == 200


def test_an_absent_search_is_no_search(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    assert it.post(web_search_options=None).status_code == 200
    assert "web_search_options" not in upstream.requests[-1].json


def test_a_public_model_needs_no_credential_and_others_stay_hidden(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig('[models.open]\ntargets = ["up"]\npublic = true')
    assert it.post(key=None, model="open").status_code == 200
    assert it.post(key=None, model="mock").status_code == 401
    assert it.post(key=None, model="none").status_code == 401
    assert [m["id"] for m in it.client.get("/v1/models").json["data"]] == ["open"]
    assert it.post(key=None, model="open", user="x" * 70_000).status_code == 413


def test_models_are_listed_to_those_who_may_call(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig('[models."m-*"]\ntargets = ["up"]')
    known = {"authorization": "Bearer k"}
    assert [m["id"] for m in it.client.get("/v1/models", headers=known).json["data"]] == ["mock"]
    assert it.client.get("/v1/models/m-7", headers=known).json["id"] == "m-7"
    assert it.client.get("/v1/models/none", headers=known).json["error"]["code"] == "model_not_found"
    assert it.client.get("/v1/models").status_code == 401
    assert it.client.get("/v1/models/mock").status_code == 401


def test_the_next_target_answers_where_the_first_fails_before_its_first_event(
    rig: Callable[..., Rig], upstream: Upstream
) -> None:
    fails = [
        json_answer({}, status=500),
        [End("fin")],
        stream_answer(b""),
        stream_answer(sse([{"error": {"message": "x"}}], done=False)),
    ]
    it = rig('[models.two]\ntargets = ["up/first", "up/second"]')
    for fail in fails:
        upstream.scripts = [lambda _, fail=fail: fail, lambda _: stream_answer(stream("x", split=1))]
        text, whole = it.streamed(model="two")
        assert whole
        assert '"content":"xba"' in text
        assert [a.target for a in it.last[-1].attempts] == ["up/first", "up/second"]
        assert it.last[-1].attempts[0].code is not None
        assert it.last[-1].target == "up/second"


def test_a_request_that_is_wrong_is_not_tried_elsewhere(rig: Callable[..., Rig], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: json_answer({"error": {"message": "bad"}}, status=400)]
    it = rig('[models.two]\ntargets = ["up/first", "up/second"]')
    assert it.post(model="two").status_code == 400
    assert len(upstream.requests) == 1


def test_a_context_overflow_has_the_wording_that_clients_look_for(rig: Callable[..., Rig], upstream: Upstream) -> None:
    upstream.scripts = [
        lambda _: json_answer(
            {"error": {"message": "n_ctx", "code": 400, "type": "exceed_context_size_error"}}, status=400
        )
    ]
    it = rig()
    upstream.scripts = [
        lambda _: json_answer({"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, status=400)
    ]
    error = it.post().json["error"]
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is" in error["message"]
    assert "context_length_exceeded" in error["message"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("7", "7"),
        ("0", "1"),
        ("121", "120"),
        ("1e9", "120"),
        ("soon", "1"),
        (None, "1"),
        ("0.2", "1"),
        ("Mon, 01 Jan 2001 00:00:00 GMT", "1"),
        ("nan", "1"),
        ("-5", "1"),
    ],
)
def test_retry_after_is_a_whole_number_of_seconds(
    rig: Callable[..., Rig], upstream: Upstream, said: str | None, told: str
) -> None:
    headers = {} if said is None else {"retry_after": said}
    upstream.scripts = [lambda _: json_answer({"error": {"message": "slow down"}}, status=429, **headers)]
    response = rig().post()
    assert response.status_code == 429
    assert response.headers["retry-after"] == told
    assert response.headers["x-should-retry"] == "true"


def test_a_spent_quota_is_not_worth_a_retry(rig: Callable[..., Rig], upstream: Upstream) -> None:
    error = {"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}
    upstream.scripts = [lambda _: json_answer(error, status=429)]
    response = rig().post()
    assert (response.status_code, response.json["error"]["code"]) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"


def test_a_journal_that_cannot_be_written_refuses_the_exchange(
    rig: Callable[..., Rig], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = rig()
    it.gateway.journal.close()
    response = it.post()
    assert (response.status_code, response.json["error"]["code"]) == (503, "journal_unavailable")
    assert upstream.requests == []


def test_bodies_in_flight_have_a_budget_that_comes_back(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    assert it.gateway.bodies.take(it.gateway.settings.server.max_bodies_bytes - 10)
    full = it.post()
    assert (full.status_code, full.json["error"]["code"]) == (503, "server_is_overloaded")
    assert full.headers["retry-after"] == "1"
    it.gateway.bodies.give(it.gateway.settings.server.max_bodies_bytes - 10)
    it.post()
    assert it.gateway.bodies.take(it.gateway.settings.server.max_bodies_bytes)


def test_a_chain_that_breaks_the_contract_is_refused() -> None:
    bad = {
        "@hookimpl(tryfirst=True)\n    def on_request(self, exchange): pass": "chain decides the order",
        "@hookimpl(wrapper=True)\n    def on_request(self, exchange): yield": "chain decides the order",
        "@hookimpl\n    def on_request(self, exchange): yield": "must return, not yield",
        "@hookimpl\n    def on_reqest(self, exchange): pass": "on_reqest",
        "@hookimpl\n    def on_request(self, exchang): pass": "exchang",
    }
    for code, problem in bad.items():
        with pytest.raises(ConfigError) as caught:
            _broken(code)
        assert problem in str(caught.value)


def _broken(code: str) -> None:
    from proxy.chain import Chain

    space: dict[str, Any] = {}
    exec(f"from proxy import hookimpl\nclass Bad:\n    name = 'bad'\n    {code}\n", space)
    Chain({"bad": space["Bad"]()})


def test_a_slash_too_many_is_no_redirect(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    assert it.post(path="/v1//chat/completions").status_code == 200
    assert it.post(path="/v1/chat/completions/").status_code == 200
    headers = {"authorization": "Bearer k"}
    assert it.client.get("/v1//models", headers=headers).json["data"][0]["id"] == "mock"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"choices": 5},
        {"choices": [{"message": {"tool_calls": ["x"]}}]},
        {"choices": [{"message": {}, "finish_reason": {"a": 1}}]},
        {"choices": [3]},
    ],
)
def test_a_completion_that_is_none_is_the_upstreams_fault(
    rig: Callable[..., Rig], upstream: Upstream, body: Any, streamed: bool
) -> None:
    upstream.scripts = [lambda _: json_answer(body), lambda _: json_answer(completion("x"))]
    it = rig('[models.two]\ntargets = ["up/one", "up/two"]')
    with it.post(model="two", stream=streamed) as response:
        assert response.status_code == 200
    assert it.last[-1].attempts[-1].code is None
    assert it.last[-1].outcome.culprit is None


def test_an_error_is_told_whatever_is_in_its_text(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig()
    error = {"error": {"message": "half a pair: \ud83d", "type": "x", "code": "y"}}
    upstream.scripts = [lambda _: json_answer(json.dumps(error).encode(), status=400)]
    assert it.post().status_code == 400
    assert it.seen.count("a.on_complete") == 1


def test_headers_that_cannot_be_sent_are_left_out_and_the_answer_is_not(
    rig: Callable[..., Rig], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    it = rig('[models.odd]\ntargets = ["up/通义"]')
    it.gateway.plugins["a"].headers = {"x-good": "1", "x-bad": "a\r\nb: c", "b d": "1", "content-length": "3"}
    response = it.post(model="odd")
    assert response.status_code == 200
    assert response.headers["x-good"] == "1"
    assert response.headers["x-lockgate-target"] == "up/\\u901a\\u4e49"
    assert response.headers.getlist("content-length") == [str(len(response.data))]
    assert "b" not in response.headers
    assert caplog.text.count("cannot be sent") == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_a_filter_that_leaves_nothing_or_something_else_has_failed(
    rig: Callable[..., Rig], upstream: Upstream, streamed: bool
) -> None:
    it = rig()
    upstream.scripts = [lambda _: stream_answer() if streamed else json_answer(completion())]
    for made in ([], [None], [{"x": object()}], [3]):
        it.gateway.plugins["b"].made = made
        with it.post(stream=streamed) as response:
            got = b""
            try:
                for piece in response.response:
                    got += piece
            except ConnectionResetError:
                pass
        assert b"plugin_error" in got
        assert b"[DONE]" not in got
        assert it.last[-1].outcome.complete is False


def test_a_plugin_that_ends_the_process_ends_its_exchange_too(rig: Callable[..., Rig], upstream: Upstream) -> None:
    it = rig(b={"fails": "on_request", "how": "exit"})
    with pytest.raises(SystemExit):
        it.post()
    assert it.seen.count("a.on_complete") == 1
    assert it.gateway.bodies.take(it.gateway.settings.server.max_bodies_bytes)


@pytest.mark.parametrize("cut", [False, True])
def test_an_exchange_ends_also_where_its_cost_cannot_be_told(
    rig: Callable[..., Rig], upstream: Upstream, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    def unknown(*_: object) -> None:
        raise ArithmeticError

    # Of a cut stream it is told at the end; of others before their last event, which then is not sent.
    events = sse(stream()[:2], done=False) if cut else sse(stream())
    upstream.scripts = [lambda _: [stream_answer(events, last=not cut), End("fin")]]
    it = rig()
    monkeypatch.setattr(it.gateway.prices, "cost", unknown)
    text, whole = it.streamed()
    assert not whole and "[DONE]" not in text
    assert it.seen[-2:] == ["a.on_complete", "b.on_complete"]
    assert it.last[-1].cost is None
    assert it.gateway.bodies.take(it.gateway.settings.server.max_bodies_bytes)
    totals, _ = Scrape(it.gateway.state / "metrics").totals()
    assert totals["lockgate_requests_in_flight"].rows == {(): [0.0]}
    it.gateway.stop()
    [file] = (it.gateway.state / "journal").glob("2*.jsonl")
    [end] = [line for line in map(json.loads, file.read_text().splitlines()) if line["kind"] == "end"]
    assert end["code"] == ("upstream_connection_lost" if cut else "internal_error")


@pytest.mark.parametrize("stream", [False, True])
def test_what_an_exchange_held_goes_with_its_end_and_not_when_a_collection_comes_by(
    rig: Callable[..., Rig], upstream: Upstream, stream: bool
) -> None:
    upstream.scripts = [lambda _: stream_answer() if stream else json_answer(completion())]
    it = rig()
    body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}

    def ask() -> None:
        environ = create_environ(
            "/v1/chat/completions", method="POST", json=body, headers={"authorization": "Bearer k"}
        )
        pieces = it.app(environ, lambda *_: print)
        assert b"".join(pieces)
        pieces.close()
        it.last.clear()  # the probes keep what they have seen last

    ask()
    gc.collect()
    gc.disable()
    try:
        ask()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = {type(thing).__name__ for thing in gc.garbage if type(thing).__module__.startswith("proxy.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == set()


def test_a_client_that_closes_after_an_error_it_was_told_to_the_end_has_not_gone_from_it(
    rig: Callable[..., Rig], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: json_answer({"error": {"message": "no"}}, 400)]
    it = rig()
    body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
    environ = create_environ("/v1/chat/completions", method="POST", json=body, headers={"authorization": "Bearer k"})
    client, environ["gunicorn.socket"] = socket.socketpair()
    with client, environ["gunicorn.socket"] as server:
        parts = it.app(environ, lambda *_: print)
        pieces = iter(parts)
        assert b"error" in next(pieces)
        [call] = [known.call for known in it.gateway.guardian._clients.values() if known.socket is server]
        assert next(pieces, None) is None
        client.close()
        assert until(lambda: call.why == "client_gone")
        parts.close()
    assert (it.last[-1].outcome.status, it.last[-1].outcome.client_gone) == (400, False)
