"""SIGHUP: a good configuration is live for the next request, a bad one changes nothing, and nothing ends the master."""

from __future__ import annotations

import os
import select
import signal

import pytest
from gateways import ECHO, free_port
from wire import PATIENCE_S, Wire

from proxy import serving

BODY = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
SIGNED = ECHO.replace('["keys"]', '["keys", "sign"]') + '[plugins.sign]\nuse = "sign"\n'
PLUGIN = """
from proxy import hookimpl

class Sign:
    name = "sign"

    @hookimpl
    def on_request(self, exchange):
        exchange.response_headers["x-sign"] = "{sign}"
"""


def hang_up(gateway):
    """Ask for a reload; return the refusal, or an empty text when the new workers are alone."""
    before = len(gateway.log)
    old = [os.pidfd_open(pid) for pid in gateway.worker_pids()]
    os.kill(gateway.pid, signal.SIGHUP)
    told = gateway.wait_log(rf"(?s)\A.{{{before}}}.*?(Reload refused[^\n]*|Hang up: Master)")[1]
    for descriptor in old:
        if told == "Hang up: Master":
            assert select.select([descriptor], [], [], PATIENCE_S)[0], "an old worker does not end"
        os.close(descriptor)
    return told.removeprefix("Hang up: Master")


def kill_workers(gateway):
    """End the workers by force, and wait until they have gone."""
    for pid in gateway.worker_pids():
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([descriptor], [], [], PATIENCE_S)
        os.close(descriptor)


def change(gateway, old, new):
    text = gateway.config.read_text()
    assert old in text
    gateway.config.write_text(text.replace(old, new))


def ask(gateway, model="echo"):
    with gateway.wire() as wire:
        return wire.post(BODY | {"model": model})


@pytest.fixture
def own(tmp_path):
    """A folder with the plugin `sign`, which puts the word `good` into a header."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "sign.py").write_text(PLUGIN.format(sign="good"))
    return folder


def test_a_good_file_is_live_for_the_next_request(start_gateway, worker):
    gateway = start_gateway(worker=worker)
    assert ask(gateway, "other").status == 404
    change(gateway, "[models.echo]", '[models.other]\ntargets = ["echo"]\n\n[models.echo]')
    assert not hang_up(gateway)
    assert ask(gateway, "other").status == 200
    assert ask(gateway).status == 200


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'use = "echo"',
            'use = "ecko"',
            "providers.echo.use: there is no provider called 'ecko'; did you mean 'echo'?",
        ),
        ("chain =", "chain ", "line 2, column 8: not TOML"),
        ('worker = "threads"', 'worker = "gevent"', "server.worker: cannot be changed by a reload: restart Lockgate"),
        ('bind = "127.0.0.1:', 'bind = "192.0.2.7:', "cannot be bound: Cannot assign requested address"),
        ('chain = ["keys"]', "chain = []", "chain: nobody would be authenticated"),
        ('state = "var"', 'state = "lockgate.toml"', "lockgate.toml is not a folder"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_and_changes_nothing(start_gateway, old, new, told):
    gateway = start_gateway()
    before = gateway.worker_pids()
    change(gateway, old, new)
    refused = hang_up(gateway)
    assert refused.startswith("Reload refused, the old configuration stays: ") and told in refused
    assert ask(gateway).status == 200
    assert gateway.worker_pids() == before, "not even a worker is replaced"


def test_all_problems_are_in_the_one_line(start_gateway):
    gateway = start_gateway()
    change(gateway, 'use = "echo"', 'use = "echo"\ndelai_ms = 1\npoolsize = 1')
    refused = hang_up(gateway)
    assert "providers.echo.delai_ms: unknown key" in refused and "providers.echo.poolsize: unknown key" in refused


def test_a_file_that_has_gone_is_refused_until_it_is_back(start_gateway):
    gateway = start_gateway()
    gateway.config.rename(gateway.folder / "elsewhere")
    assert "lockgate.toml: cannot be read: No such file or directory" in hang_up(gateway)
    assert ask(gateway).status == 200
    (gateway.folder / "elsewhere").rename(gateway.config)
    assert not hang_up(gateway)
    assert ask(gateway).status == 200


def test_workers_that_are_replaced_after_a_refusal_load_the_last_good_copy(start_gateway, own):
    gateway = start_gateway(SIGNED, server={"plugins_dir": str(own)})
    assert ask(gateway).headers["x-sign"] == "good"
    (own / "sign.py").write_text("1 / 0")
    change(gateway, "[models.echo]", "[models.ecko]")
    assert f"{own}/sign.py: cannot be loaded: line 1: ZeroDivisionError: division by zero" in hang_up(gateway)
    kill_workers(gateway)
    answer = ask(gateway)
    assert (answer.status, answer.headers["x-sign"]) == (200, "good"), "and relative paths are the original's: the key"


def test_a_changed_plugin_is_live_after_a_reload(start_gateway, own):
    gateway = start_gateway(SIGNED, server={"plugins_dir": str(own)})
    (own / "sign.py").write_text(PLUGIN.format(sign="better"))
    kill_workers(gateway)
    assert ask(gateway).headers["x-sign"] == "good", "not before"
    assert not hang_up(gateway)
    assert ask(gateway).headers["x-sign"] == "better"


def test_a_plugin_that_ends_the_checking_process_is_refused(start_gateway, own):
    gateway = start_gateway(SIGNED, server={"plugins_dir": str(own)})
    (own / "sign.py").write_text("import os; os._exit(0)")
    assert "the check ended without an answer (exit code 0)" in hang_up(gateway)
    assert ask(gateway).status == 200


def test_a_stream_in_flight_outlives_a_reload(start_gateway, worker):
    gateway = start_gateway(ECHO.replace('use = "echo"', 'use = "echo"\ndelay_ms = 150'), worker=worker)
    words = {"role": "user", "content": "one two three four five six seven eight nine ten"}
    with gateway.wire() as wire:
        wire.request(BODY | {"stream": True, "messages": [words]})
        wire.read_until(b"one")
        assert not hang_up(gateway)
        assert b"[DONE]" in wire.read_until(b"[DONE]")


def test_another_address_is_taken(start_gateway):
    gateway = start_gateway()
    port = free_port()
    change(gateway, f":{gateway.port}", f":{port}")
    assert not hang_up(gateway)
    gateway.wait_log(rf"Listening at: http://127\.0\.0\.1:{port}")
    with Wire(("127.0.0.1", port), gateway.key) as wire:
        assert wire.post(BODY).status == 200
    with pytest.raises(ConnectionRefusedError):
        gateway.wire()


def test_insecure_is_refused_for_a_gateway_that_was_told_to_listen_elsewhere(start_gateway, monkeypatch):
    port = free_port()
    monkeypatch.setattr("gateways.free_port", lambda: port)
    gateway = start_gateway(env={"GUNICORN_CMD_ARGS": f"--bind 0.0.0.0:{port}"})
    change(gateway, 'chain = ["keys"]', "chain = []")
    change(gateway, "[server]", "[server]\ninsecure = true")
    assert "gunicorn was told to listen elsewhere" in hang_up(gateway)


def test_many_reloads_leave_no_more_than_two_copies_behind(start_gateway):
    gateway = start_gateway()
    for _ in range(4):
        assert not hang_up(gateway)
    copies = sorted(path.name for path in (gateway.folder / "var" / "active").iterdir())
    assert copies == [f"{gateway.pid}-4", f"{gateway.pid}-5"]
    for path in (gateway.folder / "var" / "active").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert ask(gateway).status == 200


def test_the_master_outlives_a_worker_that_cannot_start(start_gateway, tmp_path):
    pepper = tmp_path / "pepper"
    pepper.write_text("p" * 40)
    gateway = start_gateway(f'{ECHO}[keys]\npepper = {{ file = "{pepper}" }}\n')
    pepper.unlink()
    kill_workers(gateway)
    gateway.wait_log(r"Worker \(pid:\d+\) exited with code 1\.")
    pepper.write_text("p" * 40)
    assert ask(gateway).status == 200, "the connection waits in the backlog for the next worker"


def test_a_stop_is_heeded_by_a_worker_that_has_just_been_forked(start_gateway, worker):
    gateway = start_gateway(worker=worker)
    kill_workers(gateway)
    gateway.wait_log("(?s)Booting worker.*Booting worker")
    assert gateway.stop() == 0


def test_a_check_that_takes_for_ever_is_ended(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "slow.py").write_text("import threading\nthreading.Event().wait()\n")
    (tmp_path / "lockgate.toml").write_text(f'{ECHO}[server]\nplugins_dir = "own"\n')
    monkeypatch.setattr("proxy.serving.flight.LONGEST_CHECK", 0.2)
    flight = serving.Flight(tmp_path / "lockgate.toml")
    assert flight.report["problems"] == ["the check took longer than 0 s: does a plugin block on import?"]
