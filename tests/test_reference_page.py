"""The page in a real browser: filled in, streamed, stopped, read aloud, and given all that is bad."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browsers
import nodes
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import Visit
from gateways import ECHO, Gateway, new_key
from playwright.sync_api import Browser, expect
from upstreams import Gate, Upstream, chunked, json_answer, sse, stream_answer, streaming

from proxy.testing import completion, stream

pytestmark = pytest.mark.skipif(browsers.EXECUTABLE is None, reason=browsers.REASON)

ROOT = Path(__file__).resolve().parent.parent
CONFIG = (
    ECHO
    + """
[providers.up]
use = "openai"
base_url = "{url}"
breaker = {{ failures = 0 }}

[models.scripted]
targets = ["up"]
retry = {{ attempts = 1 }}
"""
)
MARKUP = '<img src=x onerror="document.title=\'ran\'"><script>document.title="ran"</script><b>bold</b>'
#: What is special to one language or another.
TRICKY = 'It\'s "quoted" with $HOME `ticks` \\n #{ruby} {$php} <b>é</b> \U0001f600 EOF'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.running() as made:
        yield made


@pytest.fixture(scope="module")
def up() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def served(up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    made = Gateway(tmp_path_factory.mktemp("served"), CONFIG.format(url=up.url))
    yield made
    made.stop()


@pytest.fixture
def visit(browser: Browser, served: Gateway) -> Iterator[Callable[..., Visit]]:
    """Open the page: `visit()` with the gateway's key, `visit(None)` without one. Complaints fail at the end."""
    made: list[Visit] = []

    def open(key: str | None = served.key, url: str = served.url, **context: Any) -> Visit:
        made.append(Visit(browser, url, **context))
        if key is not None:
            made[-1].use(key)
        return made[-1]

    yield open
    for one in made:
        one.close()


def test_the_form_is_filled_in_and_the_answer_is_seen_as_it_arrives(visit: Callable[..., Visit], up: Upstream) -> None:
    gate = Gate()
    head, tail = sse(stream("Hello there")[:3], done=False), sse(stream("Hello there")[3:])
    up.scripts = [lambda request: [streaming(), chunked(head, last=False), gate, chunked(tail)]]
    seen = visit()
    expect(seen.page.locator("#key-state")).to_have_text("This key may use 2 models: echo, scripted")
    assert seen.page.locator("datalist option").evaluate_all("all => all.map(one => one.value)") == ["echo", "scripted"]
    seen.ask("Good morning", "scripted")
    expect(seen.said).to_have_text(re.compile("^Hel"))
    expect(seen.state).to_have_text("Waiting for the answer…")
    gate.open()
    expect(seen.state).to_have_text("The answer is complete.")
    expect(seen.said).to_have_text("Hello there")
    figures = seen.page.locator("#figures").inner_text()
    assert all(word in figures for word in ("Time to first token", "Total", "5 + 2 = 7 tokens", "req_", "up"))
    seen.page.get_by_role("tab", name="Raw events").click()
    raw = seen.page.get_by_role("tabpanel", name="Raw events").inner_text()
    assert raw.startswith("data: {") and raw.rstrip().endswith("data: [DONE]")
    sent = up.requests[-1].json
    assert sent["messages"] == [{"role": "user", "content": "Good morning"}]
    assert sent["stream_options"] == {"include_usage": True}


def test_stop_cancels_the_upstream_too(visit: Callable[..., Visit], up: Upstream) -> None:
    head = sse(stream("Hello there")[:3], done=False)
    up.scripts = [lambda request: [streaming(), chunked(head, last=False), Gate()]]
    seen = visit()
    seen.ask("Hi", "scripted")
    expect(seen.said).to_have_text(re.compile("^Hel"))
    seen.page.get_by_role("button", name="Stop").click()
    expect(seen.state).to_have_text("Stopped. What had come by then is not the whole answer.")
    assert up.wait_end(len(up.connections)).ended_by == "client"
    expect(seen.page.get_by_role("button", name="Send")).to_be_enabled()


def test_an_answer_that_is_not_streamed_is_shown_with_its_calls(visit: Callable[..., Visit], up: Upstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    up.scripts = [lambda request: json_answer(completion({"content": "Let me see.", "tool_calls": [call]}))]
    seen = visit()
    seen.page.get_by_label("stream", exact=True).select_option("false")
    seen.ask("How is the weather?", "scripted")
    expect(seen.state).to_have_text("The answer is complete.")
    expect(seen.said).to_contain_text("Let me see.")
    expect(seen.said).to_contain_text("get_weather")
    expect(seen.said).to_contain_text('{"city": "Oslo"}')


def test_form_and_json_view_stay_in_step_and_mistakes_are_told_beside_the_field(visit: Callable[..., Visit]) -> None:
    seen = visit()
    page = seen.page
    page.get_by_text("More parameters").click()
    temperature = page.get_by_label("temperature", exact=True)
    temperature.fill("2.5")
    problem = page.locator("[data-parameter=temperature] .problem")
    expect(problem).to_have_text("must be at most 2")
    expect(temperature).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#draft-state")).to_have_text("Not right yet: temperature must be at most 2")
    temperature.fill("0.5")
    expect(problem).to_be_hidden()
    page.get_by_label("service_tier").select_option(label="flex")
    page.get_by_label("stop", exact=True).fill("END")
    page.get_by_label("web_search_options").check()
    page.get_by_label("search_context_size").select_option(label="low")
    page.locator("[data-parameter=response_format]").get_by_role("button", name="Use json_object").click()
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("Text of turn 2").fill("I am")
    page.get_by_label("Role of turn 2").select_option("system")
    page.get_by_role("button", name="Move turn 2 up").click()
    body = json.loads(seen.body())
    assert body == {
        "model": "echo",
        "messages": [{"role": "system", "content": "I am"}, {"role": "user", "content": "Say hello."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "service_tier": "flex",
        "stop": "END",
        "web_search_options": {"search_context_size": "low"},
        "response_format": {"type": "json_object"},
    }
    body |= {"temperature": 1.5, "n": 500, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    del body["service_tier"]
    page.get_by_label("The body as JSON").fill(json.dumps(body))
    expect(temperature).to_have_value("1.5")
    expect(page.get_by_label("service_tier")).to_have_value("")
    expect(page.locator("[data-parameter=n] .problem")).to_have_text("must be at most 128")
    page.get_by_label("Turn 1 as JSON").fill('{"role": "user", "content": [{"type": "video"}]}')
    expect(page.locator(".turn .problem")).to_contain_text("content[0].type must be one of text, image_url")


def test_nonsense_in_the_json_view_is_not_sent_and_spoils_nothing(visit: Callable[..., Visit]) -> None:
    seen = visit()
    area = seen.page.get_by_label("The body as JSON")
    for nonsense, told in (("{nonsense", "No JSON: "), ("[1, 2]", "The body must be an object."), ("", "No JSON: ")):
        area.fill(nonsense)
        expect(seen.page.locator(".json .problem")).to_contain_text(told)
        seen.page.get_by_role("button", name="Send").click()
        expect(seen.state).to_contain_text("Nothing was sent.")
    expect(seen.page.get_by_label("Text of turn 1")).to_have_value("Say hello.")
    seen.ask("Again")
    expect(seen.said).to_have_text("You said: Again")
    # JSON, but no request: it is sent, and the gateway's own refusal is shown with its place.
    seen.expected.add("400")
    area.fill('{"model": "echo", "messages": 7, "what": "ever"}')
    seen.page.get_by_role("button", name="Send").click()
    expect(seen.failure).to_contain_text("Invalid type for 'messages'")
    expect(seen.failure).to_contain_text("Correct the parameter")


def test_a_parameter_that_the_gateway_refuses_is_marked(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.expected.add("403")
    seen.page.get_by_text("More parameters").click()
    seen.page.get_by_label("web_search_options").check()
    seen.ask("Hi")
    expect(seen.failure).to_be_visible()
    expect(seen.failure).to_contain_text("web_search_options")
    expect(seen.page.locator("[data-parameter=web_search_options] > .problem")).to_be_visible()


@pytest.mark.parametrize("stream", [True, False])
def test_the_samples_run_as_they_stand(
    visit: Callable[..., Visit], served: Gateway, tmp_path: Path, stream: bool
) -> None:
    if nodes.missing() is not None:
        pytest.skip(str(nodes.missing()))
    seen = visit()
    seen.page.get_by_label("stream", exact=True).select_option("true" if stream else "false")
    seen.page.get_by_label("Text of turn 1").fill(TRICKY)
    (tmp_path / "node_modules").symlink_to(nodes.FOLDER / "node_modules")
    said = set()
    tabs = seen.page.get_by_role("tablist", name="Language").get_by_role("tab")
    names = tabs.all_inner_texts()
    assert names == [*RUN, "Ruby", "PHP", "Go", "Java", "C#"]
    for name in names:
        tabs.get_by_text(name, exact=True).click()
        sample = seen.page.get_by_label("Sample").inner_text()
        assert f"{served.url}/v1" in sample and "LOCKGATE_KEY" in sample and served.key not in sample
        said.add(sample)
        if name in RUN:
            file, command = RUN[name]
            (tmp_path / file).write_text(sample + "\n")
            done = subprocess.run(
                [*command, file],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "LOCKGATE_KEY": served.key},
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
            out = told(done.stdout.decode()) if name == "curl" else done.stdout.decode().rstrip("\n")
            assert out == f"You said: {TRICKY}", name
    assert len(said) == len(names)


RUN = {
    "curl": ("sample.sh", ["sh"]),
    "Python openai": ("sample_openai.py", [sys.executable]),
    "Python requests": ("sample_requests.py", [sys.executable]),
    "Node openai": ("sample_openai.mjs", ["node"]),
    "Node fetch": ("sample_fetch.mjs", ["node"]),
}


def told(answer: str) -> str:
    """Return the text of an answer as curl prints it."""
    if answer.startswith("{"):
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def test_a_copied_sample_is_the_one_that_is_shown(visit: Callable[..., Visit]) -> None:
    seen = visit(permissions=["clipboard-read", "clipboard-write"])
    seen.page.get_by_role("tab", name="Go").click()
    seen.page.get_by_role("button", name="Copy").click()
    expect(seen.page.locator("#copied")).to_have_text("Copied.")
    copied = seen.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("package main") and '"model": "echo"' in copied


def test_recent_requests_are_the_keys_own_page_by_page(visit: Callable[..., Visit], served: Gateway) -> None:
    mine, other = new_key(served.config, "mine"), new_key(served.config, "other")
    seen = visit(None)
    expect(seen.page.locator("#recent-state")).to_have_text("Enter a key to see its history.")
    for key, count, agent in ((mine, 12, "mine/1"), (other, 1, "other/1")):
        for _ in range(count):
            post(served, key, agent)
    seen.use(mine)
    newer, older = (seen.page.get_by_role("button", name=name) for name in ("Newer", "Older"))
    rows = seen.page.locator("#recent tbody tr")
    deadline = time.monotonic() + 20
    while rows.count() < 10 or older.is_disabled():
        assert time.monotonic() < deadline, seen.page.locator("#recent").inner_text()
        seen.page.get_by_role("button", name="Refresh").click()
        seen.page.wait_for_timeout(200)
    first = rows.all_inner_texts()
    older.click()
    expect(seen.page.locator("#recent-state")).to_contain_text("Page 2")
    second = rows.all_inner_texts()
    everything = " ".join(first + second)
    assert everything.count("mine/1") >= 10 and "other/1" not in everything
    assert all(word in everything for word in ("echo", "200", "whole", "2 + 4"))
    newer.click()
    expect(seen.page.locator("#recent-state")).to_contain_text("Page 1")
    expect(newer).to_be_disabled()
    seen.use(other)
    expect(rows.first).to_be_visible()
    assert "mine/1" not in seen.page.locator("#recent").inner_text()


def post(gateway: Gateway, key: str, agent: str) -> None:
    """Ask for something with a key, as a certain user agent."""
    with gateway.wire() as wire:
        wire.key = key
        body = {"model": "echo", "messages": [{"role": "user", "content": "Good morning"}]}
        deadline = time.monotonic() + 20
        # A new key is known within two seconds.
        while (answer := wire.post(body, user_agent=agent)).status == 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answer.status == 200


def test_wrong_and_expired_keys_are_told_plainly(visit: Callable[..., Visit], served: Gateway) -> None:
    expired = new_key(served.config, "expired", expires=time.time() - 60)
    seen = visit(None)
    seen.expected.add("401")
    for key in ("lg_wrong_key", expired):
        seen.use(key)
        expect(seen.page.locator("#key-state")).to_contain_text("Incorrect API key provided.")
        expect(seen.page.locator("#recent-state")).to_contain_text("Incorrect API key provided.")
        seen.ask("Hi")
        expect(seen.failure).to_contain_text("invalid_api_key")
        expect(seen.failure).to_contain_text("get a new one")
    seen.use("lg_schlüssel mit Leerzeichen")
    expect(seen.page.locator("#key-state")).to_contain_text("something else was copied with it")
    seen.use(served.key)
    seen.ask("Hi")
    expect(seen.said).to_have_text("You said: Hi")


def test_an_error_in_the_middle_of_a_stream_is_shown_with_what_came(visit: Callable[..., Visit], up: Upstream) -> None:
    failed = {"error": {"message": "Overloaded", "type": "server_error", "param": None, "code": None}}
    gate = Gate()
    begun, rest = sse(stream("Hello there")[:3], done=False), sse([failed], done=False)
    up.scripts = [lambda request: [streaming(), chunked(begun, last=False), gate, chunked(rest)]]
    seen = visit()
    seen.expected.add("broken")
    seen.ask("Hi", "scripted")
    expect(seen.said).to_have_text(re.compile("^Hel"))
    gate.open()
    # At once from the event, or a moment later from the record of the request.
    expect(seen.failure).to_contain_text("upstream_error")
    expect(seen.failure).to_contain_text("What to do: Try again")
    expect(seen.failure).to_contain_text("It is not the whole answer.")
    expect(seen.said).to_have_text(re.compile("^Hel"))
    up.scripts = [lambda request: stream_answer()]
    seen.page.get_by_role("button", name="Send").click()
    expect(seen.state).to_have_text("The answer is complete.")
    expect(seen.failure).to_have_count(0)


def test_a_gateway_that_is_restarted_and_a_model_that_vanished_are_told(
    visit: Callable[..., Visit], up: Upstream, start_gateway: Callable[..., Gateway]
) -> None:
    up.scripts = [lambda request: [streaming(), chunked(sse(stream()[:3], done=False), last=False), Gate()]]
    gateway = start_gateway(CONFIG.format(url=up.url) + '\n[models.doomed]\ntargets = ["echo"]\n')
    seen = visit(gateway.key, gateway.url)
    seen.expected |= {"404", "broken"}
    expect(seen.page.locator("#key-state")).to_contain_text("doomed")
    seen.ask("Hi", "scripted")
    expect(seen.said).to_have_text(re.compile("^Hel"))
    for pid in gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)
    expect(seen.failure).to_contain_text("before the answer was complete")
    expect(seen.failure).to_contain_text("Send the request again.")
    # The master makes a new worker, which reads the new configuration once it is told to.
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("[models.doomed]", "[models.another]"))
    before = len(gateway.log)
    os.kill(gateway.pid, signal.SIGHUP)
    gateway.wait_log(rf"(?s)\A.{{{before}}}.*Hang up: Master")
    deadline = time.monotonic() + 20
    while True:
        seen.ask("Hi", "doomed")
        expect(seen.state).not_to_have_text("Waiting for the answer…")
        if "model_not_found" in seen.page.locator("#failure").inner_text():
            break
        assert time.monotonic() < deadline
    expect(seen.failure).to_contain_text("Choose a model that GET /v1/models lists for this key.")
    expect(seen.page.locator("#form > div > [data-parameter=model] .problem")).to_be_visible()
    seen.ask("Hi")
    expect(seen.said).to_have_text("You said: Hi")
    gateway.stop()
    seen.page.get_by_role("button", name="Send").click()
    expect(seen.failure).to_contain_text("The gateway cannot be reached.")


def test_markup_in_prompts_and_answers_stays_text(visit: Callable[..., Visit], served: Gateway) -> None:
    seen = visit()
    seen.ask(MARKUP)
    expect(seen.said).to_have_text(f"You said: {MARKUP}")
    seen.page.get_by_role("tab", name="Raw events").click()
    page = seen.page
    page.get_by_label("The body as JSON").fill(json.dumps({"model": MARKUP, "messages": MARKUP, MARKUP: MARKUP}))
    seen.expected |= {"400", "404"}
    page.get_by_role("button", name="Send").click()
    expect(seen.failure).to_be_visible()
    assert page.locator("main img, main script, main b").count() == 0
    assert page.title() != "ran"


def test_the_key_is_kept_nowhere(visit: Callable[..., Visit], served: Gateway) -> None:
    seen = visit()
    seen.ask("Hi")
    expect(seen.state).to_have_text("The answer is complete.")
    kept = seen.page.evaluate(
        "[document.documentElement.outerHTML, location.href, document.cookie,"
        " JSON.stringify({...localStorage}), JSON.stringify({...sessionStorage})].join()"
    )
    assert served.key not in kept and served.key.split("_")[-1] not in kept
    seen.page.reload()
    expect(seen.page.get_by_label("Bearer key or token")).to_have_value("")


def test_everything_is_done_with_the_keyboard_alone(visit: Callable[..., Visit], served: Gateway) -> None:
    seen = visit(None)
    keys = seen.page.keyboard
    keys.press("Tab")
    assert focus(seen) == "Skip to Try It"
    while focus(seen) != "key":
        keys.press("Tab")
    keys.type(served.key)
    keys.press("Enter")
    expect(seen.page.locator("#key-state")).to_contain_text("may use")
    reached = []
    while not reached or reached[-1] != "send":
        keys.press("Tab")
        reached.append(focus(seen))
        assert len(reached) < 60, reached
        if reached[-1] == "Text of turn 1":
            keys.press("Control+a")
            keys.type("By hand")
    keys.press("Enter")
    expect(seen.said).to_have_text("You said: By hand")
    while seen.page.evaluate("document.activeElement.textContent") != "Answer":
        keys.press("Tab")
    keys.press("ArrowRight")
    expect(seen.page.get_by_role("tabpanel", name="Raw events")).to_be_visible()
    keys.press("Control+Enter")
    expect(seen.state).to_have_text("The answer is complete.")


def focus(seen: Visit) -> str:
    """Return what has the focus: its label, id or text."""
    found: str = seen.page.evaluate(
        "(one => one.getAttribute('aria-label') || one.id || one.textContent)(document.activeElement)"
    )
    return found


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (820, "dark"), (1440, "light")])
def test_every_width_in_light_and_dark_fits_and_has_no_barrier(
    visit: Callable[..., Visit], width: int, scheme: str, tmp_path: Path
) -> None:
    seen = visit(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page = seen.page
    seen.ask("What does a lock gate do?")
    expect(seen.state).to_have_text("The answer is complete.")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    if width == 1440:
        folder = ROOT / "docs" if os.environ.get("LOCKGATE_SCREENSHOT") else tmp_path
        page.evaluate("document.getElementById('try').scrollIntoView({behavior: 'instant'})")
        page.screenshot(path=folder / "reference.png")
    unfold(page, "details")
    page.get_by_label("temperature", exact=True).fill("5")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    # One of each kind: axe-core takes a quarter of a minute for all of them.
    unfold(page, ".more, .row:nth-child(2) > details:first-of-type, #response-200, #response-400, #others details")
    barriers(page)
    seen.expected.add("400")
    page.get_by_role("button", name="Send").click()
    expect(seen.failure).to_be_visible()
    barriers(page, ".side")


def unfold(page: Any, selector: str) -> None:
    """Open the details that a selector matches, and close all others."""
    script = "chosen => document.querySelectorAll('details').forEach(one => { one.open = one.matches(chosen); })"
    page.evaluate(script, selector)


def barriers(page: Any, within: str = "html") -> None:
    """Fail where axe-core finds anything that is more than minor."""
    found = Axe().run(page, within).response["violations"]
    serious = [
        (one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found if one["impact"] != "minor"
    ]
    assert serious == []


def test_the_page_is_told_to_take_nothing_from_elsewhere(visit: Callable[..., Visit]) -> None:
    seen = visit(None)
    assert seen.answer is not None
    policy = seen.answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    text = seen.answer.text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>|https?://", text)
