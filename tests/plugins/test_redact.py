"""Redaction as callers and upstreams see it: nothing raw goes up, a caller's own values come back down."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.redact import Redact
from proxy import Identity, hookimpl
from proxy.testing import Rig, assert_split_invariant, completion, configured, hammer, run, stream, tool_call

EMAIL = "jo.doe@example.com"
CARD = "4111 1111 1111 1111"
TOKEN = "ghp_" + "Pxbp4aM79ag0f9AUrL47HlxKFgMW1H1OYfbb"
IBAN = "DE89 3704 0044 0532 0130 00"
VALUES = (EMAIL, CARD, TOKEN, IBAN, "192.0.2.77", "+44 20 7946 0958", "https://bob:Sw0rdf1sh@example.com/x")
RAW = (EMAIL, CARD, TOKEN, IBAN, "192.0.2.77", "+44 20 7946 0958", "bob:Sw0rdf1sh")


def echo(body):
    """What the upstream was told last, said back."""
    return {"content": body["messages"][-1]["content"]}


@pytest.fixture(scope="module")
def rig():
    with Rig(configured(Redact)) as made:
        yield made


def sent(result) -> str:
    return orjson.dumps(result.upstream_body).decode()


@pytest.mark.parametrize("streamed", [False, True])
def test_values_go_up_as_placeholders_and_come_back_down(rig, streamed):
    result = rig.run(f"Write to {EMAIL}, charge {CARD}.", echo, stream=streamed)
    assert EMAIL not in sent(result) and CARD not in sent(result) and "[EMAIL_" in sent(result)
    assert result.text == f"Write to {EMAIL}, charge {CARD}." and result.complete
    assert result.exchange.findings == {"email.request": 1, "card.request": 1}


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.text(max_size=12), st.sampled_from(VALUES)), max_size=6),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_an_echo_comes_back_as_it_was_said_whatever_it_was(rig, parts, split, choices):
    said = "\n".join(parts)
    result = rig.run({"messages": [{"role": "user", "content": said}], "n": choices}, echo, stream=True, split=split)
    for index in range(choices):
        assert (result.messages[index]["content"] or "") == said
    up = orjson.loads(sent(result))["messages"][0]["content"]
    for part in parts:
        if part in VALUES:
            assert RAW[VALUES.index(part)] not in up


def test_a_conversation_of_three_turns_is_the_one_without_redaction(rig):
    turns = [f"I am {EMAIL}.", f"My card is {CARD}, my mail {EMAIL}", f"Deploy with {TOKEN} to 192.0.2.77"]
    answers = [
        lambda body: f"Noted: {body['messages'][-1]['content']}",
        lambda body: f"First you said {body['messages'][0]['content']!r}, now {body['messages'][-1]['content']}",
        lambda body: " / ".join(str(message["content"]) for message in body["messages"]),
    ]

    def talk(rig):
        messages, bodies = [], []
        for said, answer in zip(turns, answers, strict=True):
            messages.append({"role": "user", "content": said})
            result = rig.run({"messages": messages}, answer, stream=True, split=5)
            messages.append({"role": "assistant", "content": result.text})
            bodies.append(sent(result))
        return messages, bodies

    with Rig() as plain:
        expected, _ = talk(plain)
    messages, bodies = talk(rig)
    assert messages == expected
    assert not any(raw in body for raw in RAW for body in bodies)
    first = [orjson.loads(body)["messages"][0]["content"] for body in bodies]
    assert len(set(first)) == 1, "the same value has the same placeholder on every turn"


def test_everything_that_carries_text_is_redacted(rig):
    body = {
        "messages": [
            {"role": "system", "content": f"Serve {EMAIL}", "name": "a@example.com"},
            {"role": "developer", "content": [{"type": "text", "text": f"and {CARD}"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": TOKEN},
                    {"type": "image_url", "image_url": {"url": "https://bob:Sw0rdf1sh@example.com/i.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": f"no {IBAN}",
                "tool_calls": [tool_call("f", json.dumps({"mail": EMAIL, "ip": ["192.0.2.77"], CARD: 1}), "c1")],
            },
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": json.dumps({"card": 4111111111111111, "note": f'say "{EMAIL}"\n'}),
            },
            {"role": "user", "content": "ok"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": f"asks {EMAIL}",
                    "parameters": {
                        "type": "object",
                        "properties": {"x": {"type": "string", "default": IBAN}},
                        "required": ["x"],
                    },
                },
            }
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "n",
                "schema": {"type": "object", "description": EMAIL, "properties": {"card": {"const": 4111111111111111}}},
            },
        },
        "user": EMAIL,
        "metadata": {"owner": EMAIL, "ssn": "514948703"},
        "stop": [EMAIL, "END"],
        "prediction": {"type": "content", "content": f"Dear {EMAIL}"},
        "house_parameter": {"deep": [{"mail": EMAIL}], "count": 3},
    }
    before = json.loads(json.dumps(body))
    up = rig.run(body).upstream_body
    raw = orjson.dumps(up).decode()
    for value in (
        EMAIL,
        CARD,
        TOKEN,
        IBAN,
        "Sw0rdf1sh",
        "192.0.2.77",
        "4111111111111111",
        "a@example.com",
        "514948703",
    ):
        assert value not in raw, value
    arguments = json.loads(up["messages"][3]["tool_calls"][0]["function"]["arguments"])
    assert len(arguments) == 3 and list(arguments.values())[2] == 1
    assert json.loads(up["messages"][4]["content"])["card"].startswith("[CARD_")
    assert up["house_parameter"]["count"] == 3 and up["stop"][1] == "END"
    assert "[" not in up["messages"][0]["name"], "names go up without brackets, which upstreams refuse"
    assert set(up) >= set(before) and up["tools"][0]["function"]["parameters"]["required"] == ["x"]


def test_json_within_json_is_looked_into_and_stays_json(rig):
    inner = json.dumps({"password": "Tr0ub4dor&3", "mail": EMAIL})
    said = json.dumps({"body": inner, "escaped": "jo.doe\\u0040example.com"}).replace("\\\\u0040", "\\u0040")
    result = rig.run(said, echo)
    up = result.upstream_body["messages"][0]["content"]
    assert json.loads(json.loads(up)["body"]) and EMAIL not in up and "Tr0ub4dor" not in up and "u0040" not in up
    assert json.loads(result.text) == json.loads(said)


@pytest.mark.parametrize("streamed", [False, True])
def test_values_come_back_into_every_field_of_every_choice(rig, streamed):
    secret = 'password: "Zq8!kk-7vX"'

    def answer(body):
        mail = body["messages"][0]["content"].split()[0]
        arguments = json.dumps({"to": mail, "text": f"hello {mail}"})
        said = {"content": mail, "reasoning_content": f"so {mail}", "refusal": f"not {mail}"}
        return {**said, "tool_calls": [tool_call("send", arguments)]}

    result = rig.run({"messages": [{"role": "user", "content": f"{EMAIL} {secret}"}], "n": 2}, answer, stream=streamed)
    for message in result.messages.values():
        assert message["content"] == EMAIL
        assert message["reasoning_content"] == f"so {EMAIL}" and message["refusal"] == f"not {EMAIL}"
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"to": EMAIL, "text": f"hello {EMAIL}"}


def test_a_value_with_quotes_and_line_ends_is_escaped_in_the_arguments_of_a_call(rig):
    key = "-----BEGIN PRIVATE KEY-----\nECMRUYj/etwXAdjRBoO3GFv9\nVmXA+031\n-----END PRIVATE KEY-----"

    def answer(body):
        token = body["messages"][0]["content"].split("\n")[1]
        return {"tool_calls": [tool_call("store", f'{{"key": "{token}"}}')]}

    for streamed in (False, True):
        result = rig.run(f"store this:\n{key}\nplease", answer, stream=streamed, split=2)
        arguments = result.messages[0]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(arguments) == {"key": key}


def test_content_that_has_to_be_json_gets_its_values_as_json(rig):
    body = {
        "messages": [{"role": "user", "content": 'store password: "a\\"b7-Xq"'}],
        "response_format": {"type": "json_object"},
    }
    result = rig.run(body, lambda body: json.dumps({"said": body["messages"][0]["content"]}), stream=True)
    assert json.loads(result.text) == {"said": 'store password: "a\\"b7-Xq"'}


def test_a_placeholder_that_a_caller_writes_itself_restores_to_nothing(rig):
    up = rig.run(f"I am {EMAIL}", echo).upstream_body["messages"][0]["content"]
    placeholder = up.removeprefix("I am ")
    assert rig.run(f"Who is {placeholder}?", echo).text == f"Who is {placeholder}?"
    both = rig.run(f"Is {placeholder} the same as {EMAIL}?", echo)
    assert both.text == f"Is {placeholder} the same as {EMAIL}?"
    assert "[LITERAL_" in sent(both), "beside its value the caller's text has a placeholder of its own"
    spoken = f"{placeholder.lower()} or {placeholder[1:-1]} is {EMAIL}"
    assert rig.run(spoken, echo).text == spoken


def test_tenants_have_placeholders_of_their_own():
    def placeholder(identity):
        with Rig(plugin, identity=identity) as rig:
            return rig.run(EMAIL, echo).upstream_body["messages"][0]["content"]

    class Key:
        def reveal(self):
            return "k" * 32

    plugin = Redact({**Redact.Config().load({}), "key": Key()})
    search = placeholder(Identity("a", team="search"))
    assert placeholder(Identity("b", team="search")) == search
    assert (
        len(
            {
                search,
                placeholder(Identity("a", team="sales")),
                placeholder(Identity("a")),
                placeholder(Identity("search")),
            }
        )
        == 4
    )


def test_a_masked_value_stays_a_placeholder(rig):
    with Rig(configured(Redact, request={"default": "observe", "card": "mask"})) as masking:
        result = masking.run(f"{CARD} for {EMAIL}", echo, stream=True)
    assert CARD not in sent(result) and EMAIL in sent(result)
    assert result.text.startswith("[CARD_") and result.text.endswith(EMAIL)
    assert result.exchange.findings == {"card.request": 1, "email.request": 1}


def test_a_blocked_value_is_refused_by_its_kind_and_never_by_itself():
    plugin = configured(Redact, request={"national_id": "block", "secret": "block"})
    result = run(plugin, f"{TOKEN} of 514-94-8703 and {EMAIL}")
    assert result.status == 400 and result.sent == []
    assert result.error["code"] == "sensitive_data"
    assert result.error["message"] == "The request holds what must not be passed on: national_id_us, secret."
    assert result.exchange.findings == {"secret.request": 1, "national_id_us.request": 1, "email.request": 1}


def test_a_value_blocked_in_an_answer_ends_it_with_an_error_and_without_a_byte_of_the_value():
    plugin = configured(Redact, response={"card": "block"})
    text = f"The number that you asked for, as far as I know, is {CARD} and nothing else."
    with Rig(plugin) as rig:
        for split in (1, 3, 7, [55, 60]):
            result = rig.run("Which card?", text, stream=True, split=split)
            assert result.error["code"] == "sensitive_data" and not result.complete
            assert "4111" not in result.body.decode() and result.text.startswith("The number that you asked")
        whole = rig.run("Which card?", text)
        assert whole.status == 400 and b"4111" not in whole.body
        assert whole.exchange.findings == {"card.response": 1}


def test_an_answer_is_masked_in_every_field_and_stays_json_in_calls():
    plugin = configured(Redact, response={"default": "mask"})
    message = {
        "content": f"Call {EMAIL} today or not",
        "reasoning_content": f"it is {CARD} here",
        "tool_calls": [tool_call("pay", json.dumps({"card": 4111111111111111, "mail": EMAIL}))],
    }
    for streamed in (False, True):
        result = run(plugin, "Hello", message, stream=streamed, split=2)
        said = result.messages[0]
        assert said["content"].startswith("Call [EMAIL_") and said["content"].endswith("] today or not")
        assert "[CARD_" in said["reasoning_content"]
        arguments = json.loads(said["tool_calls"][0]["function"]["arguments"])
        assert arguments["card"].startswith("[CARD_") and arguments["mail"].startswith("[EMAIL_")
        assert EMAIL.encode() not in result.body and b"4111" not in result.body
        assert result.exchange.findings == {"email.response": 2, "card.response": 2}


def test_every_cut_of_an_answer_gives_the_same():
    plugin = configured(Redact, response={"default": "mask", "iban": "off"})

    def said(body):
        return f"Ask {body['messages'][0]['content']} on 192.0.2.77, or pay {CARD} by 1 May."

    whole = assert_split_invariant(plugin, said, request=IBAN, forbidden=[CARD, "192.0.2.77"], cuts=1)
    assert whole.text.startswith(f"Ask {IBAN} on [IP_")


def test_nothing_of_one_exchange_gets_into_another():
    hammer(configured(Redact, response={"card": "mask"}))


def test_the_operators_words_and_patterns_and_exceptions(tmp_path):
    (tmp_path / "terms.txt").write_text("Blue Bird\nProject Ümläut\n" + "\n".join(f"code{n}word" for n in range(1000)))
    plugin = configured(
        Redact,
        words=[{"kind": "project_name", "file": str(tmp_path / "terms.txt")}],
        patterns=[{"kind": "ticket", "pattern": r"case (?P<value>T-[0-9]{4})", "longest": 20}],
        allow=["info@example.com"],
        allow_pattern=r".*@status\.example\.com",
        response={"project_name": "mask", "ticket": "mask"},
    )
    with Rig(plugin) as rig:
        result = rig.run(
            "blue bird, project ümläut, CODE7WORD: case T-1234, info@example.com, a@status.example.com", echo
        )
        up = result.upstream_body["messages"][0]["content"]
        assert up.count("[PROJECTNAME_") == 3 and "case [TICKET_" in up
        assert up.endswith("info@example.com, a@status.example.com")
        assert result.text.startswith("blue bird, project ümläut, CODE7WORD: case T-1234")
        answered = rig.run("Hello", "Blue Bird is case T-9999, isn't it", stream=True, split=1)
        assert answered.text.startswith("[PROJECTNAME_") and "T-9999" not in answered.text


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"request": {"emial": "mask"}}, "request"),
        ({"request": {"email": "hide"}}, "request"),
        ({"response": {"email": "restore"}}, "response"),
        ({"response": {"person": "mask"}}, "response"),
        ({"patterns": [{"kind": "x1", "pattern": "(a)\\1"}]}, "patterns"),
        ({"patterns": [{"kind": "x1", "pattern": "(?=a)b"}]}, "patterns"),
        ({"patterns": [{"kind": "x1", "pattern": "a*"}]}, "patterns"),
        ({"patterns": [{"kind": "email", "pattern": "abc"}]}, "words"),
        ({"allow_pattern": "(?<=a)b"}, "allow_pattern"),
        ({"words": [{"kind": "x1", "file": "/nowhere/at/all"}]}, "words"),
    ],
)
def test_what_cannot_work_is_refused_at_start(options, where):
    assert where in Redact.Config().validate(options)


def test_citations_follow_their_text_and_log_probabilities_are_taken_off(rig):
    def answer(body):
        mail = body["messages"][0]["content"]
        events = stream(f"See {mail} in [1] here", split=4)
        at = f"See {mail} in [1] here".index("[1]")
        note = {
            "type": "url_citation",
            "url_citation": {"start_index": at, "end_index": at + 3, "url": "https://x.example", "title": f"of {mail}"},
        }
        events[-2]["choices"][0]["delta"] = {"annotations": [note]}
        for event in events[:-1]:
            event["choices"][0]["logprobs"] = {"content": [{"token": mail, "logprob": -1.0}]}
        return events

    result = rig.run(EMAIL, answer, stream=True)
    assert result.text == f"See {EMAIL} in [1] here"
    [note] = result.messages[0]["annotations"]
    cited = note["url_citation"]
    assert result.text[cited["start_index"] : cited["end_index"]] == "[1]" and cited["title"] == f"of {EMAIL}"
    assert all(choice.get("logprobs") is None for event in result.events for choice in event["choices"])


def test_plugins_listed_after_it_see_placeholders_and_the_log_sees_nothing(caplog):
    seen = []

    class After:
        name = "after"

        @hookimpl
        def on_request(self, exchange):
            seen.append(repr(exchange) + str(exchange.body))

        @hookimpl
        def on_response(self, exchange):
            def keep(events):
                for event in events:
                    seen.append(str(event))
                    yield event

            return keep

        @hookimpl
        def on_complete(self, exchange):
            seen.append(repr(exchange))

    with caplog.at_level(logging.DEBUG):
        result = run(
            [configured(Redact, log_hashes=True, response={"email": "observe"}), After()],
            f"I am {EMAIL}",
            echo,
            stream=True,
        )
    assert result.text == f"I am {EMAIL}" and len(seen) > 3
    assert not any(EMAIL in text for text in seen)
    assert EMAIL not in caplog.text and "email in the request: EMAIL_" in caplog.text


@pytest.mark.parametrize("broken", ["take", "filter"])
def test_a_failure_inside_ends_closed_and_tells_no_value(monkeypatch, caplog, broken):
    def fail(*_):
        raise ValueError(f"could not handle {EMAIL}")

    where = {"take": "proxy.redaction.request.replace", "filter": "proxy.redaction.restoring.Restoring.take"}[broken]
    monkeypatch.setattr(where, fail)
    with caplog.at_level(logging.DEBUG):
        result = run(configured(Redact), f"I am {EMAIL}", echo)
    assert result.status == 500 and EMAIL not in result.body.decode() and EMAIL not in caplog.text


def test_an_answer_to_a_request_without_values_is_passed_as_it_came(rig):
    result = rig.run("Hello", completion("Plain [EMAIL_7K2Q9DHT]"))
    assert result.text == "Plain [EMAIL_7K2Q9DHT]" and result.exchange.findings == {}


GATEWAY = """
chain = ["keys", "redact"]
[plugins.keys]
use = "api_keys"
[plugins.redact]
use = "redact"
[plugins.redact.request]
card = "block"
[providers.echo]
use = "echo"
[models.echo]
targets = ["echo"]
"""


def test_a_running_gateway_redacts(start_gateway, worker):
    gateway = start_gateway(GATEWAY, worker=worker)
    with contextlib.closing(http.client.HTTPConnection(*gateway.address, timeout=30)) as connection:
        for stream in (False, True):
            body = {"model": "echo", "stream": stream, "messages": [{"role": "user", "content": f"I am {EMAIL}"}]}
            answered = asked(connection, gateway, body)
            assert answered[0] == 200 and (stream or f"You said: I am {EMAIL}" in answered[1])
            assert "[EMAIL_" not in answered[1]
        body["messages"][0]["content"] = f"charge {CARD}"
        status, text = asked(connection, gateway, body)
        assert status == 400 and "4111" not in text and json.loads(text)["error"]["code"] == "sensitive_data"


def asked(connection, gateway, body):
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, response.read().decode()
