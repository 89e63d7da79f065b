"""Both worker classes inside a real gunicorn, seen through sockets."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

THREADS = "proxy.worker.ThreadWorker"
GEVENT = "proxy.worker_gevent.GeventWorker"
HASTY = "hasty.HastyWorker"

STEP = b"x" * 1024
PATIENCE_S = 30.0
"""Fails a test that would hang; no assertion depends on it."""

HASTY_SOURCE = """
from proxy.worker import ThreadWorker

class HastyWorker(ThreadWorker):
    head_s = receive_s = send_s = 0.2
"""

# `/steps` answers each 1024 bytes of its request's body with as many: the client decides how long it is in flight.
APP_SOURCE = """
import hashlib, json, os

LEFT = []

def answer(start_response, value, status="200 OK"):
    body = json.dumps(value).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

def steps(read):
    while step := read(1024):
        yield step

class LateClose:
    def __init__(self, read):
        self.read = read
    def __iter__(self):
        return iter([b"whole"])
    def close(self):
        self.read(1024)

def fail_after(*parts):
    yield from parts[:-1]
    raise parts[-1]

def app(environ, start_response):
    path, read = environ["PATH_INFO"], environ["wsgi.input"].read
    headers = [("X-Pid", str(os.getpid()))]
    if path == "/echo":
        body = read()
        return answer(start_response, {"length": len(body), "digest": hashlib.sha256(body).hexdigest()})
    if path == "/read":
        try:
            read()
        except OSError as error:
            LEFT.append(type(error).__name__)
            return answer(start_response, LEFT)
    if path == "/left":
        return answer(start_response, LEFT)
    if path == "/refuse":
        return answer(start_response, {}, "401 Unauthorized")
    if path == "/raise":
        raise ValueError("a secret")
    if path == "/bad-header":
        start_response("200 OK", [("X-Bad", "a\\r\\nb")])
        return [b""]
    if path == "/steps":
        start_response("200 OK", headers)
        return steps(read)
    if path == "/late-close":
        start_response("200 OK", headers)
        return LateClose(read)
    if path == "/raise-late":
        start_response("200 OK", headers)
        return fail_after(b"some", ValueError("late"))
    if path == "/cut":
        start_response("200 OK", headers)
        return fail_after(b"some", ConnectionResetError(104, "cut"))
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"some"]
    if path == "/forever":
        start_response("200 OK", headers)
        return iter(lambda: b"y" * 65536, None)
    return answer(start_response, {
        "pid": os.getpid(),
        "multithread": environ["wsgi.multithread"],
        "peer": environ["gunicorn.socket"].getpeername()[1],
    })
"""


class Unclosed(io.BufferedReader):
    """Survives HTTPResponse, which closes its file, so that what was read ahead is there for the next answer."""

    def close(self) -> None:
        pass


class Client:
    """One raw connection."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.file = Unclosed(socket.SocketIO(self.sock, "rb"))

    def makefile(self, mode: str) -> io.BufferedReader:
        return self.file

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, path: str, *headers: str, body: bytes = b"", length: int | None = None, version: str = "1.1") -> None:
        method, length = ("POST", len(body) if length is None else length) if body or length else ("GET", 0)
        lines = [f"{method} {path} HTTP/{version}", "Host: gateway", f"Content-Length: {length}", *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def answer(self, method: str = "GET") -> http.client.HTTPResponse:
        answer = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        answer.begin()
        return answer

    def get(self, path: str = "/", *headers: str, body: bytes = b"") -> Any:
        self.ask(path, *headers, body=body)
        answer = self.answer()
        assert answer.status == 200
        return json.loads(answer.read())

    def hold(self) -> http.client.HTTPResponse:
        """Start an answer that stays in flight until `release`."""
        self.ask("/steps", length=3 * len(STEP))
        self.send(STEP)
        answer = self.answer()
        assert answer.status == 200 and answer.read(len(STEP)) == STEP
        return answer

    def release(self, answer: http.client.HTTPResponse) -> None:
        """Finish what `hold` began, and see that it is whole."""
        self.send(2 * STEP)
        assert answer.read() == 2 * STEP

    def ended(self) -> bool:
        return self.file.read(1) == b""

    def close(self) -> None:
        self.file.detach().close()
        self.sock.close()


class Server:
    """A gunicorn with its workers."""

    def __init__(self, folder: Path, worker: str, settings: dict[str, Any]) -> None:
        (folder / "app.py").write_text(APP_SOURCE)
        (folder / "hasty.py").write_text(HASTY_SOURCE)
        self.log = folder / "log"
        self.mark = 0
        self.clients: list[Client] = []
        settings = {"workers": 1, "keep_alive": 60, "worker_tmp_dir": folder, "error_logfile": self.log} | settings
        if worker == GEVENT:
            settings["worker_connections"] = settings.pop("threads", 10)
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "output").open("wb") as output:
            self.port = listener.getsockname()[1]
            arguments += [f"--bind=fd://{listener.fileno()}", f"--worker-class={worker}"]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "app:app", "--no-control-socket", *arguments],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{folder}"},
                stdout=output,
                stderr=output,
                pass_fds=[listener.fileno()],
            )

    def client(self) -> Client:
        client = Client(self.port)
        self.clients.append(client)
        return client

    def get(self, path: str = "/", body: bytes = b"") -> Any:
        """Ask on a new connection, and again while the answer is that the gateway is full."""
        while True:
            client = Client(self.port)
            client.ask(path, body=body)
            answer = client.answer()
            content = answer.read()
            client.close()
            if answer.status != 503:
                assert answer.status == 200
                return json.loads(content)

    def said(self) -> str:
        """Return what was logged since this test began."""
        return self.log.read_text()[self.mark :]

    def hang_up(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def stop(self) -> None:
        self.hang_up()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()


Start = Callable[..., Server]


@pytest.fixture
def worker() -> str:
    """The class that tests run in unless they are marked with `both`."""
    return THREADS


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture
def server(worker: str, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests share which need no settings of their own."""
    if worker not in servers:
        servers[worker] = Server(tmp_path_factory.mktemp("server"), worker, {"threads": 10})
    shared = servers[worker]
    shared.mark = len(shared.log.read_text()) if shared.log.exists() else 0
    yield shared
    shared.hang_up()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start(worker: str = THREADS, **settings: Any) -> Server:
        servers.append(Server(tmp_path, worker, settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


both = pytest.mark.parametrize("worker", [THREADS, GEVENT], ids=["threads", "gevent"])


def error_of(answer: http.client.HTTPResponse) -> dict[str, Any]:
    assert answer.getheader("Content-Type") == "application/json"
    assert answer.getheader("Connection") == "close"
    content = answer.read()
    assert b"<" not in content
    error: dict[str, Any] = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["param"] is None
    return error


def wait_for_exit(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(PATIENCE_S * 1000), "the process goes on"
    os.close(fd)


@both
def test_a_connection_carries_one_request_after_another(server: Server) -> None:
    client = server.client()
    answers = [client.get() for _ in range(3)]
    assert len({answer["pid"] for answer in answers}) == 1
    assert answers[0]["multithread"] is True
    assert answers[0]["peer"] == client.sock.getsockname()[1]


def test_idle_silent_and_slow_clients_hold_no_thread(start: Start) -> None:
    server = start(threads=2)
    idle = [server.client() for _ in range(100)]
    for client in idle:
        client.get()
    silent = [server.client() for _ in range(100)]
    slow = [server.client() for _ in range(100)]
    for client in slow:
        client.send(b"GET / HTTP/1.1\r\nHost: gate")
    for _ in range(10):
        server.get()
    for client in slow:
        client.send(b"way\r\n\r\n")
        assert client.answer().read()
    for client in idle + silent:
        assert client.get()


@both
def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    client = server.client()
    for size in (1, 2000, 3):
        client.ask("/echo", body=b"z" * size)
    assert [json.loads(client.answer().read())["length"] for _ in range(3)] == [1, 2000, 3]


def test_a_head_may_come_byte_by_byte(start: Start) -> None:
    client = start(threads=1).client()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n":
        client.send(bytes([byte]))
    assert client.answer().status == 200


@both
def test_a_full_gateway_says_503_to_a_client_that_is_still_sending(start: Start, worker: str) -> None:
    server = start(worker, threads=1)
    holder = server.client()
    held = holder.hold()
    refused = server.client()
    refused.ask("/echo", body=b"b" * 8_000_000)
    answer = refused.answer()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("service_unavailable_error", "server_is_overloaded")
    assert "full" in error["message"]
    assert refused.ended()
    holder.release(held)
    assert server.get("/echo", body=b"b" * 10)["length"] == 10


@both
def test_a_full_gateway_says_503_on_a_connection_that_was_kept(start: Start, worker: str) -> None:
    server = start(worker, threads=1)
    kept, holder = server.client(), server.client()
    kept.get()
    held = holder.hold()
    kept.ask("/echo", body=b"b" * 100)
    answer = kept.answer()
    assert answer.status == 503
    assert error_of(answer)["code"] == "server_is_overloaded"
    assert kept.ended()
    holder.release(held)


def test_many_refused_clients_all_read_why(start: Start) -> None:
    server = start(threads=2)
    holders = [server.client(), server.client()]
    held = [holder.hold() for holder in holders]
    crowd = [server.client() for _ in range(100)]
    for client in crowd:
        client.ask("/echo", body=b"b" * 5000)
    assert [client.answer().status for client in crowd] == [503] * 100
    for holder, answer in zip(holders, held, strict=True):
        holder.release(answer)
    server.get()


def test_requests_go_to_the_worker_that_has_room(start: Start) -> None:
    server = start(workers=2, threads=1)
    holder = server.client()
    held = holder.hold()
    full = int(held.getheader("X-Pid") or 0)
    for _ in range(20):
        assert server.get()["pid"] != full
    holder.release(held)


def test_a_full_worker_sends_its_kept_connections_to_the_others(start: Start) -> None:
    client = start(workers=2, threads=1).client()
    client.ask("/")
    assert client.answer().getheader("Connection") == "close"


def test_a_client_that_never_reads_stalls_nobody_else(start: Start) -> None:
    server = start(threads=2)
    server.client().ask("/forever")
    other = server.client()
    for _ in range(10):
        other.get()


def test_a_client_that_never_reads_loses_its_thread(start: Start) -> None:
    server = start(HASTY, threads=1)
    server.client().ask("/forever")
    server.get()


def test_the_connection_that_rests_longest_makes_room(start: Start) -> None:
    server = start(threads=1, worker_connections=3)
    clients = [server.client() for _ in range(4)]
    for client in clients:
        client.get()
    assert clients[0].ended()
    for client in clients[1:]:
        client.get()


def test_an_idle_connection_is_closed_in_silence(start: Start) -> None:
    client = start(keep_alive=1).client()
    client.get()
    assert client.ended()


REFUSED = {
    "garbage": (b"\x16\x03\x01 hello\n", 400, "bad_request"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    "version": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "header name": (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400, "bad_request"),
    "nul": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400, "bad_request"),
    "folding": (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400, "bad_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
    "length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
    "chunk size": (
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
        "bad_request",
    ),
    "long target": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
    "large header": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        431,
        "request_header_fields_too_large",
    ),
    "many headers": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
        431,
        "request_header_fields_too_large",
    ),
    "transfer coding": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        501,
        "unsupported_transfer_coding",
    ),
    "expectation": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417, "expectation_failed"),
}


@both
def test_requests_that_are_not_http_are_refused_as_openai_errors(server: Server) -> None:
    for name, (request, status, code) in REFUSED.items():
        client = server.client()
        client.send(request)
        answer = client.answer()
        assert (name, answer.status) == (name, status)
        error = error_of(answer)
        assert (name, error["type"], error["code"]) == (name, "invalid_request_error", code)
        server.hang_up()


@pytest.mark.parametrize(("start_of_head", "status"), [(b"GET /", 414), (b"GET / HTTP/1.1\r\nX: ", 431)])
def test_a_head_without_end_is_refused(server: Server, start_of_head: bytes, status: int) -> None:
    client = server.client()
    client.send(start_of_head + b"a" * 200_000)
    answer = client.answer()
    assert answer.status == status
    assert error_of(answer)["type"] == "invalid_request_error"


def test_a_head_that_stops_coming_is_answered_408(start: Start) -> None:
    client = start(HASTY).client()
    client.send(b"GET / HTTP/1.1\r\nHost: ga")
    answer = client.answer()
    assert (answer.status, error_of(answer)["code"]) == (408, "request_timeout")
    assert client.ended()


def test_a_body_that_stops_coming_is_an_error_to_the_application(start: Start) -> None:
    client = start(HASTY).client()
    client.ask("/read", length=10)
    assert json.loads(client.answer().read()) == ["Stalled"]


def test_a_body_that_is_left_unfinished_is_an_error_to_the_application(server: Server) -> None:
    client = server.client()
    client.ask("/read", body=b"only this", length=1000)
    client.sock.shutdown(socket.SHUT_WR)
    assert json.loads(client.answer().read()) == ["ConnectionResetError"]


def test_a_stalled_body_that_the_application_does_not_handle_is_answered_408(start: Start) -> None:
    client = start(HASTY).client()
    client.ask("/echo", length=10)
    answer = client.answer()
    assert (answer.status, error_of(answer)["code"]) == (408, "request_timeout")


@both
@pytest.mark.parametrize("path", ["/raise", "/bad-header"])
def test_an_application_that_fails_before_its_answer_gives_500(server: Server, path: str) -> None:
    client = server.client()
    client.ask(path, body=b"some")
    answer = client.answer()
    assert answer.status == 500
    assert error_of(answer)["type"] == "server_error"
    assert f"POST {path}" in server.said()


@both
@pytest.mark.parametrize("path", ["/raise-late", "/cut"])
def test_an_answer_that_fails_on_its_way_has_no_end(server: Server, path: str) -> None:
    client = server.client()
    client.ask(path)
    with pytest.raises(http.client.IncompleteRead) as cut:
        client.answer().read()
    assert cut.value.partial == b"some"
    server.get()
    assert ("Traceback" in server.said()) == (path == "/raise-late")


@both
def test_a_cut_answer_that_would_end_by_closing_is_reset(server: Server) -> None:
    client = server.client()
    client.ask("/cut", version="1.0")
    with pytest.raises(ConnectionResetError):
        client.answer().read()


def test_an_answer_shorter_than_its_length_is_cut(server: Server) -> None:
    client = server.client()
    client.ask("/short")
    with pytest.raises(http.client.IncompleteRead):
        client.answer().read()


def test_the_client_has_its_end_before_the_application_closes(server: Server) -> None:
    client = server.client()
    client.ask("/late-close", length=len(STEP))
    assert client.answer().read() == b"whole"
    client.send(STEP)
    client.get()


@both
def test_head_has_no_body(server: Server) -> None:
    client = server.client()
    client.send(b"HEAD / HTTP/1.1\r\nHost: gateway\r\n\r\n")
    answer = client.answer("HEAD")
    assert int(answer.getheader("Content-Length") or 0) > 0
    assert answer.read() == b""
    client.get()


@both
def test_a_large_upload_arrives(server: Server) -> None:
    body = bytes(range(256)) * 80_000
    answer = server.client().get("/echo", body=body)
    assert answer == {"length": len(body), "digest": hashlib.sha256(body).hexdigest()}


@both
def test_a_chunked_body_arrives_and_the_connection_is_kept(server: Server) -> None:
    client = server.client()
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
    client.send(b"3;x=y\r\nefg\r\n0\r\n\r\n")
    assert json.loads(client.answer().read())["length"] == 7
    client.get()


@both
def test_an_answer_to_a_body_that_nobody_read_is_not_lost(server: Server) -> None:
    client = server.client()
    client.ask("/refuse", "Connection: close", body=b"b" * 8_000_000)
    answer = client.answer()
    assert (answer.status, answer.read()) == (401, b"{}")
    assert client.ended()


def test_a_short_body_that_nobody_read_does_not_cost_the_connection(server: Server) -> None:
    client = server.client()
    client.ask("/refuse", body=b"b" * 100)
    assert client.answer().read() == b"{}"
    client.get()


@both
def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server: Server) -> None:
    client = server.client()
    client.ask("/echo", "Expect: 100-continue", length=5)
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.file.readline() == b"\r\n"
    client.send(b"12345")
    assert json.loads(client.answer().read())["length"] == 5


def test_a_client_that_asks_before_it_sends_may_be_refused_at_once(server: Server) -> None:
    client = server.client()
    client.ask("/refuse", "Expect: 100-continue", length=5)
    assert client.file.readline() == b"HTTP/1.1 401 Unauthorized\r\n"


@both
def test_term_lets_an_answer_in_flight_come_to_its_end(start: Start, worker: str) -> None:
    server = start(worker, graceful_timeout=60)
    idle, holder = server.client(), server.client()
    idle.get()
    held = holder.hold()
    server.process.send_signal(signal.SIGTERM)
    assert idle.ended()
    with pytest.raises(ConnectionRefusedError):
        server.client()
    holder.release(held)
    assert server.process.wait(PATIENCE_S) == 0


def test_a_worker_that_leaves_ends_the_connections_it_still_answers_on(start: Start) -> None:
    server = start(graceful_timeout=60)
    idle, client = server.client(), server.client()
    idle.get()
    client.ask("/echo", "Expect: 100-continue", length=10)
    assert client.file.readline() + client.file.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.process.send_signal(signal.SIGTERM)
    assert idle.ended()
    client.send(b"1234567890")
    answer = client.answer()
    assert json.loads(answer.read())["length"] == 10
    assert answer.getheader("Connection") == "close"


@both
def test_hup_completes_answers_in_flight_while_new_workers_serve(start: Start, worker: str) -> None:
    server = start(worker, workers=2, threads=10, graceful_timeout=60)
    old: set[int] = set()
    while len(old) < 2:  # a worker that is still starting would lose gunicorn's signal
        old.add(server.get()["pid"])
    holders = [server.client() for _ in range(6)]
    held = [holder.hold() for holder in holders]
    server.process.send_signal(signal.SIGHUP)
    while server.get()["pid"] in old:
        pass
    for holder, answer in zip(holders, held, strict=True):
        holder.release(answer)
    for pid in old:
        wait_for_exit(pid)
    server.get()


@both
def test_the_client_of_a_killed_worker_sees_a_cut_and_the_worker_is_replaced(start: Start, worker: str) -> None:
    server = start(worker)
    client = server.client()
    held = client.hold()
    pid = int(held.getheader("X-Pid") or 0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        held.read()
    assert server.get()["pid"] != pid


def test_quit_does_not_wait_for_answers_in_flight(start: Start) -> None:
    server = start(graceful_timeout=600)
    client = server.client()
    held = client.hold()
    server.process.send_signal(signal.SIGQUIT)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        held.read()
    assert server.process.wait(PATIENCE_S) == 0


def test_usr1_disturbs_no_answer_and_reopens_the_log(start: Start) -> None:
    server = start()
    client = server.client()
    held = client.hold()
    server.log.rename(server.log.with_suffix(".old"))
    os.kill(int(held.getheader("X-Pid") or 0), signal.SIGUSR1)
    client.release(held)
    while not server.log.exists():
        server.get()


def test_a_worker_that_has_served_its_number_is_replaced(start: Start) -> None:
    server = start(max_requests=3)
    client = server.client()
    pids = set()
    closed = False
    for _ in range(3):  # the last of them at the latest: asking whether it serves has counted as well
        client.ask("/")
        answer = client.answer()
        pids.add(json.loads(answer.read())["pid"])
        closed = answer.getheader("Connection") == "close"
        if closed:
            break
    assert closed and client.ended()
    [pid] = pids
    assert server.get()["pid"] != pid


def test_tls_is_refused_with_a_reason(start: Start, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    server = start(certfile=tmp_path / "cert.pem")
    assert server.process.wait(PATIENCE_S) == 1
    assert "does not speak TLS" in (tmp_path / "output").read_text()
