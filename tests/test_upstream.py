"""Connections to upstreams: kept, lost, refused, encrypted, proxied, and given up."""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import json
import logging
import multiprocessing
import os
import random
import socket
import ssl
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import trustme
from click.testing import CliRunner
from gateways import Gateway, free_port
from proxies import Proxy
from upstreams import FIN, RST, Gate, Upstream, chunked, gzipped, head, json_answer, stream_answer, streaming

from proxy import cli, sockets
from proxy.errors import Reject, UpstreamError
from proxy.guardian import Guardian
from proxy.providers.base import Outgoing
from proxy.settings import Connection, Timeouts
from proxy.testing import completion
from proxy.upstreams import adapter, heads, sending
from proxy.upstreams.adapter import Adapter
from proxy.upstreams.bypass import bypasses
from proxy.upstreams.sending import beside
from proxy.upstreams.upstream import Answer
from proxy.upstreams.upstream import Upstream as Way

SECONDS = 20.0
PATIENT = Timeouts(SECONDS, SECONDS, SECONDS, SECONDS)
OK = json_answer({"ok": True})
BODY = b'{"n": 1}'


class Sender:
    """Sends as a worker does, each time with a call of its own."""

    def __init__(self, guardian: Guardian, **connection: Any) -> None:
        self.guardian = guardian
        self.way = Way("up", Connection(**connection))
        self.timeouts = PATIENT

    @contextlib.contextmanager
    def asking(self, url: str, body: bytes = BODY, **headers: str) -> Iterator[Answer]:
        call = self.guardian.watch(None)
        try:
            answer = self.way.send(call, Outgoing(url, body, headers), self.timeouts)
            try:
                yield answer
            finally:
                answer.close()
        finally:
            call.close()

    def ask(self, url: str, body: bytes = BODY, **headers: str) -> tuple[int, bytes]:
        with self.asking(url, body, **headers) as answer:
            return answer.status, answer.read_all()

    def error(self, url: str, body: bytes = BODY) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            self.ask(url, body)
        return caught.value


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    made = Guardian()
    yield made
    made.stop()


@pytest.fixture
def sender(guardian: Guardian) -> Iterator[Callable[..., Sender]]:
    with contextlib.ExitStack() as made:

        def make(**connection: Any) -> Sender:
            new = Sender(guardian, **connection)
            made.callback(new.way.close)
            return new

        yield make


# Reuse


def test_a_connection_is_used_again_after_whole_answers_and_drained_streams(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: OK, lambda _: stream_answer(), lambda _: OK]
    way = sender()
    way.ask(upstream.url)
    with way.asking(upstream.url) as answer:
        while b"[DONE]" not in answer.read():
            pass
        answer.drain()
    way.ask(upstream.url)
    assert len(upstream.connections) == 1


def test_a_stream_that_is_left_is_cut_upstream(sender: Callable[..., Sender], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: [streaming(), chunked(b"x", last=False), Gate()]]
    with sender().asking(upstream.url) as answer:
        answer.read()
    assert upstream.wait_end().ended_by == "client"


def test_a_connection_that_was_closed_while_idle_is_not_used(sender: Callable[..., Sender], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: [OK, FIN], lambda _: OK]
    way = sender()
    way.ask(upstream.url)
    upstream.wait_end()
    assert way.ask(upstream.url)[0] == 200
    assert len(upstream.requests) == 2


def test_a_connection_that_was_idle_for_long_is_not_used(
    sender: Callable[..., Sender], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [lambda _: OK]
    way, now = sender(), [100.0]
    monkeypatch.setattr(adapter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for later in (0.0, 29.9, 30.1):
        now[0] += later
        way.ask(upstream.url)
    assert [request.connection.number for request in upstream.requests] == [1, 1, 2]


def test_no_request_is_sent_twice_when_the_upstream_closes_idle_connections(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: [OK, FIN]]
    way = sender()
    codes = []
    for _ in range(400):
        try:
            codes.append(way.ask(upstream.url)[0])
        except UpstreamError as error:
            assert (error.code, error.same_target) == ("upstream_connection_lost", False)
    assert len(upstream.requests) <= 400
    assert codes.count(200) == len(codes) == len(upstream.requests)


def lost(how: Any) -> list[Any]:
    """An upstream that takes a second request on a connection and is gone."""
    return [lambda _: OK, lambda _: how, lambda _: OK]


@pytest.mark.parametrize("how", [FIN, RST])
def test_a_request_lost_on_a_reused_connection_is_replayed_once_where_that_is_allowed(
    sender: Callable[..., Sender], upstream: Upstream, how: Any
) -> None:
    way = sender(replay_stale=True)
    upstream.scripts = lost(how)
    assert [way.ask(upstream.url)[0] for _ in range(2)] == [200, 200]
    assert [request.connection.number for request in upstream.requests] == [1, 1, 2]


def test_a_replay_goes_over_a_new_connection(sender: Callable[..., Sender], upstream: Upstream) -> None:
    way = sender(replay_stale=True)
    upstream.scripts = [lambda _: OK, lambda _: OK, lambda _: FIN, lambda _: OK]
    with way.asking(upstream.url) as one, way.asking(upstream.url) as two:
        assert one.read_all() == two.read_all()
    assert way.ask(upstream.url)[0] == 200
    assert [request.connection.number for request in upstream.requests][::3] == [1, 3]


def test_a_replay_is_not_replayed(sender: Callable[..., Sender], upstream: Upstream) -> None:
    way = sender(replay_stale=True)
    upstream.scripts = [lambda _: OK, lambda _: FIN]
    way.ask(upstream.url)
    assert way.error(upstream.url).code == "upstream_connection_lost"
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("how", [[b"HT", FIN], [b"HT", RST], [head(103), FIN], [b"HTTP/1.1 100 Go\r\n\r\n", FIN]])
def test_nothing_is_replayed_once_an_answer_has_begun(
    sender: Callable[..., Sender], upstream: Upstream, how: Any
) -> None:
    way = sender(replay_stale=True)
    upstream.scripts = lost(how)
    way.ask(upstream.url)
    assert way.error(upstream.url).code == "upstream_connection_lost"
    assert len(upstream.requests) == 2


def test_nothing_is_replayed_on_a_new_connection_or_without_leave(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: FIN]
    assert sender(replay_stale=True).error(upstream.url).code == "upstream_connection_lost"
    assert len(upstream.requests) == 1
    upstream.scripts = lost(FIN)
    way = sender()
    way.ask(upstream.url)
    assert way.error(upstream.url).code == "upstream_connection_lost"
    assert len(upstream.requests) == 3


# Answers


def test_informational_answers_are_not_the_answer(sender: Callable[..., Sender], upstream: Upstream) -> None:
    early = head(103, link="</x>; rel=preload")
    upstream.scripts = [lambda _: [b"HTTP/1.1 100 Continue\r\n\r\n", early, head(102), OK]]
    way = sender()
    assert [way.ask(upstream.url) for _ in range(2)] == [(200, b'{"ok": true}')] * 2
    assert len(upstream.connections) == 1


BROKEN: dict[str, Any] = {
    "switching protocols": [head(101, upgrade="x", connection="upgrade"), Gate()],
    "too many headers": [head(200, **{f"x_{n}": n for n in range(101)})],
    "a header of 100 KB": [head(200, x="y" * 100_000)],
    "a chunk without a size": [streaming(), b"zz\r\nhello\r\n"],
    "half a chunk": [streaming(), b"ff\r\nhello", FIN],
    "more promised than sent": [head(200, content_length=10), b"hello", FIN],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi", FIN],
    "no HTTP": [b"220 mail.example ESMTP\r\n", FIN],
    "HTTP/2": [b"HTTP/2 200\r\n\r\n", FIN],
    "no status": [b"HTTP/1.1 abc OK\r\n\r\n", FIN],
    "nothing": [FIN],
    "a reset": [RST],
    "no gzip": [head(200, content_encoding="gzip", content_length=5), b"hello"],
    "half a gzip": [gzipped(b"hello" * 1000)[:-9], FIN],
    "too large": [head(200, content_length=3 << 20), bytes(3 << 20)],
    "too large, in chunks": [streaming(), chunked(*[bytes(1 << 16)] * 48)],
    "a bomb": [gzipped(bytes(10**8))],
}


@pytest.mark.parametrize("name", BROKEN)
def test_whatever_is_wrong_with_an_answer_is_an_upstream_error(
    sender: Callable[..., Sender], upstream: Upstream, name: str
) -> None:
    upstream.scripts = [lambda _: BROKEN[name]]
    error = sender(max_answer_bytes=1 << 20).error(upstream.url)
    assert error.status == 502
    expected = {"too large", "too large, in chunks", "a bomb"}
    assert (error.code == "upstream_answer_too_large") == (name in expected)
    assert not error.same_target
    if name != "no gzip":  # whose framing was right
        assert upstream.wait_end().ended_by


def test_redirects_are_answers(sender: Callable[..., Sender], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: head(302, location=f"{upstream.url}/elsewhere", content_length=0)]
    assert sender().ask(upstream.url)[0] == 302
    assert len(upstream.requests) == 1


# Requests


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://API.example.com:443/v1", "api.example.com"),
        ("http://api.example.com:443/v1", "api.example.com:443"),
        ("http://api.example.com.:80", "api.example.com"),
        ("https://api.example.com.:8443/", "api.example.com:8443"),
        ("http://me:pw@[::1]:8080/v1", "[::1]:8080"),
        ("https://b\xfccher.example/", "xn--bcher-kva.example"),
    ],
)
def test_the_host_of_an_upstream(url: str, host: str) -> None:
    assert Adapter(Connection()).origin(url).host == host


def test_where_a_request_ends_is_the_cores_to_say_and_each_header_is_said_once(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: OK]
    own = {"content-length": "3", "Transfer-encoding": "chunked", "USER-AGENT": "me", "X-A": "a", "x-a": "b"}
    assert sender().ask(upstream.url, **own)[0] == 200
    assert [(name.lower(), value) for name, value in upstream.requests[0].fields] == [
        ("host", upstream.address),
        ("user-agent", "me"),
        ("accept-encoding", "identity"),
        ("content-length", "8"),
        ("x-a", "b"),
    ]


def test_no_copy_of_a_request_is_kept_while_its_answer_is_awaited(
    sender: Callable[..., Sender], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, made = threading.Event(), sending.request

    class Sent(bytes):
        def __del__(self) -> None:
            freed.set()

    monkeypatch.setattr(sending, "request", lambda *what: Sent(made(*what)))
    upstream.scripts = [lambda _: OK if freed.wait(SECONDS) else FIN]
    assert sender().ask(upstream.url)[0] == 200


@contextlib.contextmanager
def curt(said: bytes, tls: ssl.SSLContext | None) -> Iterator[str]:
    """An upstream that closes the connection in the middle of the request, when what it says has come."""

    def wrap_socket(client: socket.socket, **kind: Any) -> ssl.SSLSocket:
        with tls.wrap_socket(client, **kind) if tls is not None else client as sock:
            sock.recv(1000)
            sock.sendall(said)
            while any(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))):
                pass
        raise OSError

    how: Any = SimpleNamespace(wrap_socket=wrap_socket)
    with Upstream(tls=how) as up:
        yield up.url if tls is not None else up.url.replace("https:", "http:")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_upstream_may_answer_before_it_has_read_all(sender: Callable[..., Sender], pems: Path, scheme: str) -> None:
    way = sender(ca_file=pems / "ca.pem")
    tls = served() if scheme == "https" else None
    with curt(json_answer({}, 413), tls) as url:
        assert way.ask(url, bytes(8 << 20)) == (413, b"{}")
    with curt(b"", tls) as url:
        assert way.error(url, bytes(8 << 20)).code == "upstream_connection_lost"


# Connecting


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """A listener whose backlog is full."""
    with contextlib.ExitStack() as held, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filling = held.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_each_way_to_miss_the_upstream_has_a_code(sender: Callable[..., Sender]) -> None:
    way = sender()
    way.timeouts = Timeouts(0.2, SECONDS, SECONDS, SECONDS)
    errors = [way.error("http://nowhere.invalid/v1"), way.error(f"http://127.0.0.1:{free_port()}/v1")]
    with deaf() as address:
        errors.append(way.error(f"http://{address}/v1"))
    assert [(error.status, error.code, error.same_target) for error in errors] == [
        (502, "upstream_dns_error", True),
        (502, "upstream_unreachable", True),
        (504, "upstream_connect_timeout", True),
    ]
    assert way.error(f"http://{'x' * 70}.invalid/v1").code == "upstream_dns_error"


def test_after_the_deadline_no_further_address_is_tried(
    sender: Callable[..., Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    way = sender()
    way.timeouts = Timeouts(0.2, SECONDS, SECONDS, SECONDS)
    with deaf() as address:
        found = socket.getaddrinfo("127.0.0.1", int(address.rpartition(":")[2]), 0, socket.SOCK_STREAM)
        monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *_: found * 1000)
        assert way.error("http://many.test/v1").code == "upstream_connect_timeout"


# TLS

AUTHORITY = trustme.CA()


def served(*names: str, authority: trustme.CA = AUTHORITY, clients: bool = False, **kind: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "up.test")), **kind).configure_cert(context)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, `client.pem` and `key.pem`, and of each an expired one in `old`."""
    folder = tmp_path_factory.mktemp("pems")
    (folder / "old").mkdir()
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    for own, until in ((folder, None), (folder / "old", past)):
        mine = AUTHORITY.issue_cert("me@client.test", **({"not_after": until} if until else {}))
        mine.cert_chain_pems[0].write_to_path(own / "client.pem")
        mine.private_key_pem.write_to_path(own / "key.pem")
    return folder


def test_a_private_authority_is_read_once_for_many_connections(
    sender: Callable[..., Sender], pems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = sockets.tls_context
    monkeypatch.setattr(sockets, "tls_context", lambda *args: made.append(args) or real(*args))
    with Upstream(lambda _: [OK, FIN], tls=served()) as up:
        way = sender(ca_file=pems / "ca.pem")
        for number in range(3):
            assert way.ask(up.url)[0] == 200
            up.wait_end(number + 1)
    assert len(made) == 1


def test_an_encrypted_connection_is_used_again(sender: Callable[..., Sender], pems: Path) -> None:
    with Upstream(lambda _: OK, tls=served()) as up:
        way = sender(ca_file=pems / "ca.pem")
        assert [way.ask(up.url)[0] for _ in range(3)] == [200] * 3
        assert len(up.connections) == 1


WRONG: dict[str, Callable[[], ssl.SSLContext]] = {
    "the authority": lambda: served(authority=trustme.CA()),
    "the name": lambda: served("other.test"),
    "the time": lambda: served(not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_certificate_that_does_not_hold_is_a_tls_error(sender: Callable[..., Sender], pems: Path, what: str) -> None:
    with Upstream(tls=WRONG[what]()) as up:
        error = sender(ca_file=pems / "ca.pem").error(up.url)
        assert (error.status, error.code, error.same_target) == (502, "upstream_tls_error", False)
        assert not up.requests


def test_plain_http_where_tls_belongs_is_a_tls_error(sender: Callable[..., Sender], pems: Path) -> None:
    with Upstream(greeting=lambda _: [head(400, content_length=0), FIN]) as up:
        assert sender(ca_file=pems / "ca.pem").error(f"https://{up.address}/v1").code == "upstream_tls_error"


def test_authorities_that_cannot_be_read_are_a_tls_error(sender: Callable[..., Sender], tmp_path: Path) -> None:
    assert sender(ca_file=tmp_path / "gone.pem").error("https://127.0.0.1:1/v1").code == "upstream_tls_error"


def test_a_client_certificate_is_shown_and_missed(sender: Callable[..., Sender], pems: Path) -> None:
    with Upstream(lambda _: OK, tls=served(clients=True)) as up:
        shown = sender(ca_file=pems / "ca.pem", client_cert=pems / "client.pem", client_key=pems / "key.pem")
        assert shown.ask(up.url)[0] == 200
        missed = sender(ca_file=pems / "ca.pem").error(up.url)
        assert missed.code in ("upstream_tls_error", "upstream_connection_lost")
        assert len(up.requests) == 1


def test_the_check_names_certificates_that_have_expired(pems: Path, tmp_path: Path) -> None:
    path = tmp_path / "lockgate.toml"
    path.write_text(
        f"""
        chain = ["keys"]
        [plugins.keys]
        use = "api_keys"
        [providers.up]
        use = "openai"
        ca_file = "{pems}/ca.pem"
        client_cert = "{pems}/old/client.pem"
        client_key = "{pems}/old/key.pem"
        [models.m]
        targets = ["up"]
        """
    )
    result = CliRunner().invoke(cli.main, ["check", "--config", str(path)])
    assert result.exit_code != 0
    assert f"providers.up.client_cert: {pems}/old/client.pem has expired (valid until " in result.output
    assert "ca_file" not in result.output


# Proxies

CREDENTIALS = "Basic " + base64.b64encode(b"me:p@ss word").decode()


def with_password(proxy: Proxy) -> str:
    return proxy.url.replace("//", "//me:p%40ss%20word@")


def test_plain_http_goes_through_the_proxy_in_absolute_form(sender: Callable[..., Sender], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: OK]
    with Proxy(auth=CREDENTIALS) as proxy:
        way = sender(proxy=with_password(proxy))
        assert way.ask(upstream.url + "/x", authorization="Bearer k")[0] == 200
    assert (proxy.asked[0].method, proxy.asked[0].target) == ("POST", upstream.url + "/x")
    assert upstream.requests[0].headers["authorization"] == "Bearer k"
    assert upstream.requests[0].headers["host"] == upstream.address


def test_tls_goes_through_a_tunnel_with_credentials_for_the_proxy_alone(
    sender: Callable[..., Sender], pems: Path
) -> None:
    with Upstream(lambda _: OK, tls=served()) as up, Proxy(auth=CREDENTIALS) as proxy:
        way = sender(proxy=with_password(proxy), ca_file=pems / "ca.pem")
        url = f"https://up.test:{up.port}/v1"
        assert [way.ask(url, authorization="Bearer k")[0] for _ in range(2)] == [200] * 2
        assert [asked.method for asked in proxy.asked] == ["CONNECT"]
        assert proxy.asked[0].target == f"up.test:{up.port}"
        assert "authorization" not in proxy.asked[0].headers
        for request in up.requests:
            assert "proxy-authorization" not in request.headers
            assert request.headers["authorization"] == "Bearer k"
            assert request.path == "/v1"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_other_credentials_is_named_without_them(
    sender: Callable[..., Sender], pems: Path, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with Proxy(auth="Basic other") as proxy:
        error = sender(proxy=with_password(proxy), ca_file=pems / "ca.pem").error(f"{scheme}://up.test/v1")
    assert (error.status, error.code, error.same_target) == (502, "upstream_proxy_error", False)
    assert error.__cause__ is None
    said = caplog.text + repr(error) + json.dumps(error.body())
    assert not any(secret in said for secret in ("p@ss", "p%40ss", CREDENTIALS.split()[1]))
    assert proxy.asked[0].headers["proxy-authorization"] == CREDENTIALS


@pytest.mark.parametrize("then", ["drop", "refuse"])
def test_a_proxy_that_fails_is_a_proxy_error(sender: Callable[..., Sender], pems: Path, then: str) -> None:
    with Proxy(then=then) as proxy:
        way = sender(proxy=proxy.url, ca_file=pems / "ca.pem")
        assert way.error("https://up.test/v1").code == "upstream_proxy_error"


def test_a_proxy_that_is_not_there_is_a_proxy_error(sender: Callable[..., Sender]) -> None:
    for proxy in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid:3128"):
        way = sender(proxy=proxy)
        for url in ("http://up.test/v1", "https://up.test/v1"):
            error = way.error(url)
            assert (error.code, error.same_target) == ("upstream_proxy_error", True)


def test_a_proxy_that_hangs_is_late_to_connect(sender: Callable[..., Sender]) -> None:
    with Proxy(then="hang") as proxy:
        way = sender(proxy=proxy.url)
        way.timeouts = Timeouts(0.2, SECONDS, SECONDS, SECONDS)
        assert way.error("https://up.test/v1").code == "upstream_connect_timeout"


class Encrypted(Proxy):
    """A proxy that is spoken to in TLS."""

    def _serve(self, client: socket.socket) -> None:
        inner, outer = socket.socketpair()
        with contextlib.suppress(OSError), served().wrap_socket(client, server_side=True) as encrypted:
            threading.Thread(target=super()._serve, args=(outer,), daemon=True).start()
            pump = threading.Thread(target=self._pump, args=(inner, encrypted), daemon=True)
            pump.start()
            with inner:
                self._pump(encrypted, inner)
                inner.shutdown(socket.SHUT_RDWR)
                pump.join(SECONDS)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)


def test_a_proxy_may_be_spoken_to_in_tls(sender: Callable[..., Sender], pems: Path) -> None:
    with Upstream(lambda _: OK, tls=served()) as up, Upstream(lambda _: OK) as plain, Encrypted() as proxy:
        way = sender(proxy=proxy.url.replace("http:", "https:"), ca_file=pems / "ca.pem")
        assert [way.ask(f"https://up.test:{up.port}/v1")[0] for _ in range(2)] == [200] * 2
        assert len(up.connections) == 1
        up.scripts = [lambda _: Gate()]
        way.timeouts = Timeouts(SECONDS, 0.1, SECONDS, SECONDS)
        assert way.error(f"https://up.test:{up.port}/v1").code == "upstream_timeout"
        assert len(up.connections) == 1
        way.timeouts = PATIENT
        assert way.ask(plain.url)[0] == 200
        way.way.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_what_tls_has_decrypted_behind_an_answer_is_no_other_answer(
    sender: Callable[..., Sender], pems: Path, monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    # One record, of which the first read takes the answer alone.
    monkeypatch.setattr(heads, "READ_BYTES", len(OK))
    with Upstream(lambda _: OK + json_answer({"ok": 0}), lambda _: OK, tls=served()) as up, Encrypted() as proxy:
        how = {"proxy": proxy.url.replace("http:", "https:")} if proxied else {}
        way = sender(ca_file=pems / "ca.pem", **how)
        assert [way.ask(up.url) for _ in range(2)] == [(200, b'{"ok": true}')] * 2
        assert len(up.connections) == 2
        way.way.close()


RULES = [
    ("api.example.com", "api.example.com", True),
    ("api.example.com", "example.com", True),
    ("api.example.com", ".Example.com", True),
    ("API.example.com.", "api.example.com", True),
    ("api.example.com", "*.example.com", True),
    ("badexample.com", "example.com", False),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.1.2.3", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("10.example.com", "10.0.0.0/8", False),
    ("fd00::1", "fd00::/8", True),
    ("fd00::1", "[fd00::1]", True),
    ("anything", "*", True),
]


@pytest.mark.parametrize(("host", "rule", "expected"), RULES)
def test_hosts_that_need_no_proxy(host: str, rule: str, expected: bool) -> None:
    assert bypasses(host, ["unrelated.test", rule]) is expected


@pytest.mark.parametrize("rule", ["127.0.0.0/8", "127.0.0.1", "*"])
def test_what_needs_no_proxy_is_reached_without_it(
    sender: Callable[..., Sender], upstream: Upstream, rule: str
) -> None:
    upstream.scripts = [lambda _: OK]
    way = sender(proxy=f"http://me:pw@127.0.0.1:{free_port()}", no_proxy=(rule,))
    assert way.ask(upstream.url)[0] == 200
    assert upstream.requests[0].path == "/v1"
    assert "proxy-authorization" not in upstream.requests[0].headers


def test_the_environment_and_netrc_say_nothing(
    sender: Callable[..., Sender], upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
        monkeypatch.setenv(name.lower(), nobody)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    upstream.scripts = [lambda _: OK]
    assert sender().ask(upstream.url, authorization="Bearer k")[0] == 200
    assert upstream.requests[0].headers["authorization"] == "Bearer k"
    with Proxy() as proxy:
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("no_proxy", "*")
        assert sender(proxy=proxy.url).ask(upstream.url)[0] == 200
    assert len(proxy.asked) == 1


# Headers that plugins add


def test_added_headers_replace_nothing_of_the_providers_and_the_cores() -> None:
    added = {
        "traceparent": "00",
        "authorization": "x",
        "content-length": "7",
        "Transfer-Encoding": "chunked",
        "HOST": "h",
    }
    own = {"Authorization": "Bearer k"}
    assert beside(own, added) == {"traceparent": "00", "Authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("a: b", "c"), (" a", "b"), ("", "b"), ("a\r\nb", "c"), ("a", "b\r\n c"), ("a", "\0"), ("a", "ä")],
)
def test_an_added_header_that_is_none_is_the_plugins_error(name: str, value: str) -> None:
    with pytest.raises(Reject) as caught:
        beside({}, {name: value})
    assert (caught.value.status, caught.value.code) == (500, "plugin_error")


# Deadlines and leaving


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_deadlines_cut_whatever_hangs(sender: Callable[..., Sender], pems: Path, scheme: str) -> None:
    tls = served() if scheme == "https" else None
    with Upstream(lambda _: Gate(), lambda _: [streaming(), chunked(b"x", last=False), Gate()], tls=tls) as up:
        way = sender(ca_file=pems / "ca.pem")
        way.timeouts = Timeouts(SECONDS, 0.1, SECONDS, SECONDS)
        assert way.error(up.url).code == "upstream_timeout"
        way.timeouts = Timeouts(SECONDS, SECONDS, 0.1, SECONDS)
        assert way.error(up.url).code == "upstream_timeout"


def test_a_handshake_that_hangs_is_late_to_connect(sender: Callable[..., Sender]) -> None:
    with Upstream(greeting=lambda _: Gate()) as up:
        way = sender()
        way.timeouts = Timeouts(0.2, SECONDS, SECONDS, SECONDS)
        assert way.error(f"https://{up.address}/v1").code == "upstream_connect_timeout"
        assert up.wait_end().ended_by == "client"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxied", [False, True])
def test_an_upstream_that_does_not_read_is_late(
    sender: Callable[..., Sender], pems: Path, scheme: str, proxied: bool
) -> None:
    def deaf(client: socket.socket, **kind: Any) -> ssl.SSLSocket:
        wrapped = context.wrap_socket(client, **kind)
        gone.wait(SECONDS)
        return wrapped

    context, gone, gate = served(), threading.Event(), Gate()
    how: dict[str, Any] = {"tls": SimpleNamespace(wrap_socket=deaf)}
    if scheme == "http":
        how = {"greeting": lambda _: gate}
    with Upstream(**how) as up, Proxy() as proxy:
        way = sender(ca_file=pems / "ca.pem", proxy=proxy.url if proxied else None)
        call = way.guardian.watch(None)
        with pytest.raises(UpstreamError) as caught:
            way.way.send(call, Outgoing(up.url, bytes(32 << 20)), Timeouts(SECONDS, 0.3, SECONDS, SECONDS))
        assert caught.value.code == "upstream_timeout"
        call.close()
        gone.set()
        gate.open()


def test_a_body_may_take_longer_to_send_than_to_connect(
    sender: Callable[..., Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "GRACE_S", 0.0)
    gate = Gate()
    with Upstream(lambda _: OK, greeting=lambda _: gate) as up:
        way = sender()
        call = way.guardian.watch(None)
        threading.Timer(1.3, gate.open).start()
        outgoing = Outgoing(up.url, bytes(32 << 20))
        answer = way.way.send(call, outgoing, Timeouts(1.0, SECONDS, SECONDS, SECONDS))
        assert answer.read_all() == b'{"ok": true}'
        call.close()


def test_who_leaves_after_the_answer_does_not_hurt_who_has_the_connection_now(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    gate = Gate()
    upstream.scripts = [lambda _: OK, lambda _: [streaming(), chunked(b"one", last=False), gate, chunked(b"two")]]
    way = sender()
    call = way.guardian.watch(None)
    whole = way.way.send(call, Outgoing(upstream.url, b"{}"), PATIENT)
    whole.read_all()
    with way.asking(upstream.url) as answer:
        assert answer.read() == b"one"
        call.end("client_gone")
        whole.close()
        gate.open()
        assert answer.read_all() == b"two"
    call.close()
    assert len(upstream.connections) == 1


def test_clients_who_leave_hurt_nobody_else(sender: Callable[..., Sender]) -> None:
    with Upstream(lambda request: OK[:-12] + b'{"ok": %4d}' % request.json["n"]) as up:
        way = sender(pool_size=4)
        wrong: list[Any] = []

        def leave_or_stay(seed: int) -> None:
            dice = random.Random(seed)
            for number in range(150):
                call = way.guardian.watch(None)
                leaves = dice.random() < 0.3
                if leaves:
                    leaving = threading.Timer(dice.random() * 0.003, call.end, ["client_gone"])
                    leaving.start()
                try:
                    answer = way.way.send(call, Outgoing(up.url, b'{"n": %d}' % number), PATIENT)
                    body = answer.read_all()
                    answer.close()
                    if json.loads(body)["ok"] != number:
                        wrong.append((number, body))
                except UpstreamError as error:
                    if not leaves or error.code != "client_gone":
                        wrong.append(error)
                finally:
                    call.close()
                    if leaves:
                        leaving.join()

        threads = [threading.Thread(target=leave_or_stay, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert len(up.connections) < len(up.requests)


# Sessions and forks


@pytest.fixture
def session() -> Iterator[Callable[..., requests.Session]]:
    with contextlib.ExitStack() as made:

        def make(**connection: Any) -> requests.Session:
            new = made.enter_context(requests.Session())
            new.trust_env = False
            new.mount("http://", Adapter(Connection(**connection)))
            new.mount("https://", Adapter(Connection(**connection)))
            return new

        yield make


def test_a_session_goes_the_same_way(session: Callable[..., requests.Session], pems: Path) -> None:
    with Upstream(lambda _: OK, tls=served()) as up, Proxy(auth=CREDENTIALS) as proxy:
        own = session(proxy=with_password(proxy), ca_file=pems / "ca.pem")
        for _ in range(2):
            assert own.get(f"https://up.test:{up.port}/x", timeout=SECONDS).json() == {"ok": True}
        assert len(proxy.asked) == 1
    own = session(ca_file=pems / "ca.pem")
    with Upstream(tls=served("other.test")) as up, pytest.raises(requests.exceptions.SSLError):
        own.get(up.url, timeout=SECONDS)


def test_a_session_has_its_own_time_outs(session: Callable[..., requests.Session], upstream: Upstream) -> None:
    own = session()
    with deaf() as address, pytest.raises(requests.exceptions.ConnectTimeout):
        own.get(f"http://{address}/", timeout=(0.05, SECONDS))
    upstream.scripts = [lambda _: Gate()]
    with pytest.raises(requests.exceptions.ReadTimeout):
        own.get(upstream.url, timeout=(SECONDS, 0.05))
    with Upstream(greeting=lambda _: Gate()) as up, pytest.raises(requests.exceptions.Timeout):
        own.get(f"https://{up.address}/", timeout=0.05)


def test_a_closed_adapter_has_no_connections_and_can_be_used_again(
    sender: Callable[..., Sender], upstream: Upstream
) -> None:
    upstream.scripts = [lambda _: OK]
    way = sender()
    way.ask(upstream.url)
    way.way.close()
    assert upstream.wait_end().ended_by == "client"
    assert way.ask(upstream.url)[0] == 200


def test_a_child_process_opens_connections_of_its_own(sender: Callable[..., Sender], upstream: Upstream) -> None:
    upstream.scripts = [lambda _: OK]
    way = sender()
    way.ask(upstream.url)

    def ask() -> None:
        own = Sender(Guardian())
        own.way = way.way
        os._exit(0 if own.ask(upstream.url)[0] == 200 else 1)

    child = multiprocessing.get_context("fork").Process(target=ask)
    child.start()
    child.join(SECONDS)
    assert child.exitcode == 0
    way.ask(upstream.url)
    assert [request.connection.number for request in upstream.requests] == [1, 2, 1]


# Through a gateway, since gevent's sockets are not Python's

CONFIG = """
chain = ["keys"]

[plugins.keys]
use = "api_keys"
"""

ROUTE = """
[providers.{name}]
use = "openai"
base_url = "{url}"
breaker = {{ failures = 0 }}
{more}

[models.{name}]
targets = ["{name}"]
retry = {{ attempts = 1 }}
"""


def test_both_workers_speak_tls_and_give_up_what_hangs(worker: str, start_gateway: Any, pems: Path) -> None:
    ca = f'ca_file = "{pems}/ca.pem"'
    mine = f'client_cert = "{pems}/client.pem"\nclient_key = "{pems}/key.pem"'
    whole = json_answer(completion())
    with (
        Upstream(lambda _: whole, tls=served()) as up,
        Upstream(lambda _: whole, tls=served(clients=True)) as strict,
        Upstream(tls=served("other.test")) as other,
        Upstream(greeting=lambda _: Gate()) as mute,
        Upstream(lambda _: [streaming(), chunked(b": x\n\n", last=False), Gate()], tls=served()) as silent,
        Proxy(auth=CREDENTIALS) as proxy,
        Proxy(auth="Basic other") as closed,
        deaf() as full,
    ):
        tunnelled = f"https://up.test:{up.port}/v1"
        routes = {
            "good": (up.url, ca),
            "mutual": (strict.url, f"{ca}\n{mine}"),
            "nameless": (other.url, ca),
            "mute": (mute.url.replace("http:", "https:"), "timeouts = { connect = 0.3 }"),
            "silent": (silent.url, f"{ca}\ntimeouts = {{ first_byte = 0.3, idle = 0.3 }}"),
            "full": (f"http://{full}/v1", "timeouts = { connect = 0.3 }"),
            "nowhere": ("http://nowhere.invalid/v1", ""),
            "refused": (f"http://127.0.0.1:{free_port()}/v1", ""),
            "tunnel": (tunnelled, f'{ca}\nproxy = {{ file = "{pems}/egress" }}'),
            "locked": (tunnelled, f'{ca}\nproxy = {{ file = "{pems}/locked" }}'),
        }
        toml = CONFIG + "".join(ROUTE.format(name=n, url=url, more=more) for n, (url, more) in routes.items())
        for name, itself in (("egress", proxy), ("locked", closed)):
            (pems / name).write_text(with_password(itself))
            (pems / name).chmod(0o600)
        gateway: Gateway = start_gateway(toml, worker=worker)
        expected = {
            "good": None,
            "mutual": None,
            "nameless": "upstream_tls_error",
            "mute": "upstream_connect_timeout",
            "silent": "upstream_timeout",
            "full": "upstream_connect_timeout",
            "nowhere": "upstream_dns_error",
            "refused": "upstream_unreachable",
            "tunnel": None,
            "locked": "upstream_proxy_error",
        }
        found = {}
        with gateway.wire() as wire:
            for name in [*routes, *routes]:
                asked = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "stream": name == "silent"}
                answer = wire.post(asked)
                found[name] = None if answer.status == 200 else json.loads(answer.body)["error"]["code"]
        assert found == expected
        assert len(up.connections) == 2
        assert "p@ss" not in gateway.log
        assert "p%40ss" not in gateway.log
