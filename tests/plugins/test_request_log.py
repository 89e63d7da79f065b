"""The request log: one line for each exchange, for whoever reads the standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from plugins.request_log import RequestLog
from proxy import Exchange, Identity
from proxy.exchange import Attempt, Outcome, Usage


def exchange(id="req_1", **fields):
    given = {"headers": {}, "client_address": "10.1.2.3", "received": 1.5, **fields}
    return Exchange(id, "POST", "/v1/chat/completions", **given)


@pytest.fixture
def printed(capfdbinary):
    """Return what the plugin prints for some exchanges."""

    def lines(*exchanges):
        plugin = RequestLog()
        for over in exchanges:
            plugin.on_complete(over)
        return capfdbinary.readouterr().out.splitlines(keepends=True)

    return lines


def test_an_exchange_is_one_line(printed):
    [line] = printed(
        exchange(
            identity=Identity("k1", "app", "search"),
            headers={"user-agent": "OpenAI/Python 3.54.0"},
            model="gpt-5.2",
            stream=True,
            target="openai/gpt-5.2",
            attempts=[Attempt("a/x", 1.0, 503, "overloaded", 0.1), Attempt("openai/gpt-5.2", 1.1, 200, None, 1.0)],
            usage=Usage(10, 20),
            outcome=Outcome(200, None, True, False, {0: "stop"}, 1234, 0.5, 1.75),
        )
    )
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "id": "req_1",
        "subject": "k1",
        "team": "search",
        "path": "/v1/chat/completions",
        "model": "gpt-5.2",
        "target": "openai/gpt-5.2",
        "attempts": 2,
        "stream": True,
        "status": 200,
        "code": None,
        "complete": True,
        "client_gone": False,
        "finish": ["stop"],
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "first_event_s": 0.5,
        "duration_s": 1.75,
        "bytes_out": 1234,
        "agent": "OpenAI/Python 3.54.0",
        "client": "10.1.2.3",
    }


def test_a_refused_stranger_is_one_line_too(printed):
    [line] = printed(exchange(outcome=Outcome(401, "invalid_api_key")))
    said = json.loads(line)
    assert (said["subject"], said["model"], said["status"], said["code"]) == (None, None, 401, "invalid_api_key")
    assert (said["prompt_tokens"], said["attempts"], said["agent"]) == (None, 0, "")


@pytest.mark.parametrize("hostile", ["a\r\n{}", "\x1b[2J\0", "\x7f\x9b31m", "\u2028\u202e", "\ud800", "x" * 100_000])
def test_nothing_that_a_caller_sends_breaks_a_line_or_a_terminal(printed, hostile):
    lines = printed(
        exchange(
            hostile,
            headers={"user-agent": hostile},
            client_address=hostile,
            model=hostile,
            identity=Identity(hostile, hostile, hostile),
            outcome=Outcome(200, hostile, finish_reasons={0: hostile}),
        ),
        exchange("next"),
    )
    assert [json.loads(line)["bytes_out"] for line in lines] == [0, 0]
    assert all(len(line) <= 4096 and line.decode()[:-1].isprintable() for line in lines)


def test_nothing_that_was_said_and_no_credential_is_printed(printed):
    [line] = printed(
        exchange(
            headers={"authorization": "Bearer canary", "cookie": "canary"},
            body={"messages": [{"role": "user", "content": "canary"}], "user": "canary"},
            response_headers={"x-canary": "canary"},
            identity=Identity("k1", grants={"canary": "canary"}),
        )
    )
    assert b"canary" not in line


def test_processes_with_one_standard_output_do_not_mix_their_lines():
    code = """
import sys
import threading
from plugins.request_log import RequestLog
from proxy import Exchange
log = RequestLog()
for number in range(300):
    id = f"{sys.argv[1]}-{number}"
    log.on_complete(Exchange(id, "POST", "/", {"user-agent": "u" * 256}, "10.1.2.3", model="m" * 256))
"""
    reader, writer = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", code, name], stdout=writer) for name in "abc"]
    os.close(writer)
    with open(reader, "rb") as file:
        ids = [json.loads(line)["id"] for line in file]
    assert [process.wait() for process in processes] == [0] * 3
    assert sorted(ids) == sorted(f"{name}-{number}" for name in "abc" for number in range(300))


def test_threads_do_not_mix_their_lines_where_a_write_stops_halfway(printed, monkeypatch):
    put = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: put(descriptor, line[: len(line) // 2 or 1]))
    plugin = RequestLog()

    def write(thread):
        for number in range(50):
            plugin.on_complete(exchange(f"{thread}-{number}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(line)["id"] for line in printed()}) == 200
