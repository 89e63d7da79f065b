"""The request log: one line for each exchange, to wherever it is wanted, and no exchange waits for it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
from marshmallow import ValidationError

from plugins.request_log import RequestLog
from proxy import Exchange, Identity
from proxy.exchange import Attempt, Outcome, Usage
from proxy.records.outlets import File, Stream
from proxy.records.sinks import Sink
from proxy.testing import configured

PATIENCE_S = 20.0


def exchange(id="req_1", **fields):
    given = {"headers": {}, "client_address": "10.1.2.3", "received": 1.5, **fields}
    return Exchange(id, "POST", "/v1/chat/completions", **given)


@contextmanager
def started(**options):
    plugin = configured(RequestLog, **options)
    plugin.on_start(Mock())
    try:
        yield plugin
    finally:
        plugin.on_stop()


def wait_for(predicate):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := predicate()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return value


@pytest.fixture
def written(tmp_path):
    """Return what the plugin writes for some exchanges."""

    def lines(*exchanges):
        path = tmp_path / "requests.log"
        with started(to={"file": str(path)}) as plugin:
            for over in exchanges:
                plugin.on_complete(over)
        return path.read_bytes().splitlines(keepends=True)

    return lines


def test_an_exchange_is_one_line(written):
    [line] = written(
        exchange(
            identity=Identity("k1", "app", "search"),
            headers={"user-agent": "OpenAI/Python 3.54.0"},
            model="gpt-5.2",
            stream=True,
            target="openai/gpt-5.2",
            attempts=[Attempt("a/x", 1.0, 503, "overloaded", 0.1), Attempt("openai/gpt-5.2", 1.1, 200, None, 0.25)],
            usage=Usage(10, 20, cached_tokens=4, estimated=True),
            cost=1234,
            findings={"email.request": 2},
            trace=[("keys", "identified", 12), ("limits", "passed", 30)],
            outcome=Outcome(200, None, True, False, {0: "stop"}, 1234, 0.5, 1.75),
        )
    )
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "id": "req_1",
        "subject": "k1",
        "name": "app",
        "team": "search",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "gpt-5.2",
        "target": "openai/gpt-5.2",
        "attempts": [["a/x", 503, "overloaded", 0.1], ["openai/gpt-5.2", 200, None, 0.25]],
        "stream": True,
        "status": 200,
        "code": None,
        "culprit": None,
        "complete": True,
        "client_gone": False,
        "finish": ["stop"],
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 4,
        "estimated": True,
        "cost": 1234,
        "first_event_s": 0.5,
        "duration_s": 1.75,
        "own_s": 0.15,
        "upstream_s": 1.6,
        "bytes_in": 0,
        "bytes_out": 1234,
        "trace": [["keys", "identified", 12], ["limits", "passed", 30]],
        "findings": {"email.request": 2},
        "agent": "OpenAI/Python 3.54.0",
        "client": "10.1.2.3",
    }


def test_a_refused_stranger_is_one_line_too(written):
    [line] = written(exchange(outcome=Outcome(401, "invalid_api_key")))
    said = json.loads(line)
    assert (said["subject"], said["model"], said["status"], said["code"]) == (None, None, 401, "invalid_api_key")
    assert (said["prompt_tokens"], said["attempts"], said["agent"], said["cost"]) == (None, [], "", None)


@pytest.mark.parametrize("hostile", ["a\r\n{}", "\x1b[2J\0", "\x7f\x9b31m", "\u2028\u202e", "\ud800", "x" * 1_000_000])
def test_nothing_that_a_caller_sends_breaks_a_line_or_a_terminal(written, hostile):
    lines = written(
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


def test_nothing_that_was_said_and_no_credential_is_written(written):
    [line] = written(
        exchange(
            headers={"authorization": "Bearer canary", "cookie": "canary"},
            body={"messages": [{"role": "user", "content": "canary"}], "user": "canary"},
            response_headers={"x-canary": "canary"},
            identity=Identity("k1", grants={"canary": "canary"}),
        )
    )
    assert b"canary" not in line


def test_the_standard_output_is_the_default(capfdbinary):
    with started() as plugin:
        plugin.on_complete(exchange())
    assert json.loads(capfdbinary.readouterr().out)["id"] == "req_1"


def test_processes_with_one_standard_output_do_not_mix_their_lines():
    code = """
import sys
from unittest.mock import Mock
from plugins.request_log import RequestLog
from proxy import Exchange
log = RequestLog(RequestLog.Config().load({}))
log.on_start(Mock())
for number in range(300):
    id = f"{sys.argv[1]}-{number}"
    log.on_complete(Exchange(id, "POST", "/", {"user-agent": "u" * 256}, "10.1.2.3", model="m" * 256))
log.on_stop()
"""
    reader, writer = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", code, name], stdout=writer) for name in "abc"]
    os.close(writer)
    with open(reader, "rb") as file:
        ids = [json.loads(line)["id"] for line in file]
    assert [process.wait() for process in processes] == [0] * 3
    assert sorted(ids) == sorted(f"{name}-{number}" for name in "abc" for number in range(300))


def test_lines_come_in_the_order_of_the_threads_that_put_them(tmp_path):
    path = tmp_path / "log"
    sink = Sink(File(path))

    def put(thread):
        for number in range(500):
            sink.put(b"%d %d\n" % (thread, number))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    lines = [tuple(map(int, line.split())) for line in path.read_bytes().splitlines()]
    assert [[n for t, n in lines if t == thread] for thread in range(4)] == [list(range(500))] * 4


def test_a_reader_that_stalls_holds_nobody_up_and_what_is_dropped_is_told(caplog):
    reader, writer = os.pipe()
    sink = Sink(Stream(writer), most=100)
    line = b"x" * 999 + b"\n"
    for _ in range(2000):
        sink.put(line)  # would never return if it waited: the pipe takes 64 of them
    wait_for(lambda: sink.dropped)
    # Whatever was not dropped comes out whole when the reader goes on.
    received = bytearray()
    thread = threading.Thread(target=lambda: _drain(reader, received))
    thread.start()
    sink.close()
    os.close(writer)
    thread.join(PATIENCE_S)
    os.close(reader)
    assert len(received) == (2000 - sink.dropped) * len(line)
    assert bytes(received) == line * (2000 - sink.dropped)
    assert f"log lines were dropped, as they were not taken: {sink.dropped}" in caplog.text


def _drain(reader, received):
    while data := os.read(reader, 65536):
        received += data


def test_the_pipe_of_others_is_left_as_it_is():
    reader, writer = os.pipe()
    stream = Stream(writer)
    stream.write(b"one\n")
    assert os.get_blocking(writer)
    stream.close()
    os.write(writer, b"two\n")
    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)
    os.close(writer)


def test_a_standard_output_that_is_a_socket_is_written_to():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(theirs.fileno())
        stream.write(b"one\n")
        stream.close()
        assert ours.recv(100) == b"one\n"
        assert os.get_blocking(theirs.fileno())


def test_a_file_that_was_rotated_is_made_anew(tmp_path):
    path = tmp_path / "requests.log"
    with started(to={"file": str(path)}) as plugin:
        plugin.on_complete(exchange("before"))
        wait_for(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
        path.rename(tmp_path / "requests.log.1")
        plugin.on_complete(exchange("after"))
    assert json.loads((tmp_path / "requests.log.1").read_text())["id"] == "before"
    assert json.loads(path.read_text())["id"] == "after"
    assert path.stat().st_mode & 0o777 == 0o640


def test_lines_wait_for_a_disk_that_is_full_and_none_is_torn(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("proxy.records.sinks.AGAIN_S", 0.01)
    path, put, full = tmp_path / "log", os.write, threading.Event()

    def write(descriptor, data):
        if not full.is_set():
            return put(descriptor, data)
        if len(data) < 5:
            raise OSError(28, "No space left on device")
        return put(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("proxy.records.outlets.os.write", write)
    sink = Sink(File(path))
    full.set()
    for number in range(10):
        sink.put(b"line number %d\n" % number)
    wait_for(lambda: "log lines cannot be written: No space left on device" in caplog.text)
    full.clear()
    sink.close()
    assert path.read_bytes() == b"".join(b"line number %d\n" % number for number in range(10))
    assert sink.dropped == 0


def test_what_another_process_has_written_behind_a_torn_line_is_left_alone(tmp_path, monkeypatch):
    path, put, torn = tmp_path / "log", os.write, []

    def write(descriptor, data):
        if torn:
            with path.open("ab", buffering=0) as theirs:
                theirs.write(b"theirs\n")
            raise OSError(28, "No space left on device")
        torn.append(put(descriptor, data[:3]))
        return 3

    monkeypatch.setattr("proxy.records.outlets.os.write", write)
    file = File(path)
    with pytest.raises(OSError, match="No space"):
        file.write(b"ours\n")
    file.close()
    assert path.read_bytes() == b"ourtheirs\n"


SYSLOG = re.compile(rb"<134>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ lockgate (\d+) - - (\{.*\})")


def test_syslog_gets_each_line_as_a_message_of_rfc_5424(tmp_path):
    path = str(tmp_path / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix, socket.socket(type=socket.SOCK_DGRAM) as udp:
        unix.bind(path)
        udp.bind(("127.0.0.1", 0))
        for server, url in ((unix, f"unix:{path}"), (udp, f"udp://127.0.0.1:{udp.getsockname()[1]}")):
            server.settimeout(PATIENCE_S)
            with started(to={"syslog": url}) as plugin:
                plugin.on_complete(exchange())
                message = SYSLOG.fullmatch(server.recv(8192))
            assert message and int(message[1]) == os.getpid()
            assert json.loads(message[2])["id"] == "req_1"


def test_a_syslog_over_tcp_is_connected_to_again(monkeypatch):
    monkeypatch.setattr("proxy.records.sinks.AGAIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        with started(to={"syslog": f"tcp://127.0.0.1:{server.getsockname()[1]}"}) as plugin:
            plugin.on_complete(exchange("one"))
            first, _ = server.accept()
            with first, first.makefile("rb") as lines:
                length = int(lines.read(4))
                assert SYSLOG.fullmatch(lines.read(length))
            # The first message after the other side's end may still be taken by the system.
            second = None
            server.settimeout(0.05)
            deadline = time.monotonic() + PATIENCE_S
            while second is None and time.monotonic() < deadline:
                plugin.on_complete(exchange("two"))
                try:
                    second, _ = server.accept()
                except TimeoutError:
                    continue
            assert second is not None
            with second:
                second.settimeout(PATIENCE_S)
                assert b'"two"' in second.recv(65536)


def test_a_syslog_of_several_addresses_is_reached_at_the_one_that_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dead, alive = (("127.0.0.2", port), ("127.0.0.1", port))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, alive)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with started(to={"syslog": f"tcp://logs.test:{port}"}) as plugin:
            plugin.on_complete(exchange())
            server.settimeout(PATIENCE_S)
            first, _ = server.accept()
            with first:
                first.settimeout(PATIENCE_S)
                assert b"req_1" in first.recv(65536)


@pytest.mark.parametrize(
    "to",
    [
        "standard",
        {},
        {"file": ""},
        {"file": "/nowhere/at/all/log"},
        {"file": "/"},
        {"file": 1},
        {"syslog": "http://x"},
        {"syslog": "udp://"},
        {"syslog": "udp://x:99999"},
        {"syslog": "unix:log"},
        {"file": "x", "syslog": "udp://x"},
        7,
    ],
)
def test_a_place_that_is_none_is_refused(to):
    with pytest.raises(ValidationError):
        configured(RequestLog, to=to)


CONFIG = """
chain = ["keys", "log"]

[plugins.keys]
use = "api_keys"

[plugins.log]
use = "request_log"

[providers.echo]
use = "echo"

[models.echo]
targets = ["echo"]
"""


def test_a_gateway_logs_what_each_exchange_was(start_gateway, worker):
    gateway = start_gateway(CONFIG, worker=worker)
    with gateway.client() as client:
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "Hi"}])
    line = json.loads(gateway.wait_log(r'\{"time".*"/v1/chat/completions".*')[0])
    assert (line["name"], line["model"], line["target"], line["status"]) == ("test", "echo", "echo", 200)
    assert (line["cost"], line["estimated"], line["trace"][0][:2]) == (0, False, ["keys", "identified"])
    assert 0 <= line["own_s"] <= line["duration_s"]
    with gateway.wire() as wire:
        assert wire.post({"model": "nothing", "messages": []}).status in (400, 404)
    gateway.stop()  # the last line is written at the end
    assert '"/v1/chat/completions","model":null' in gateway.log or '"model":"nothing"' in gateway.log
