"""Limits and budgets of a real gateway with several workers, and the commands that show, reset and rebuild them."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import redises
from click.testing import CliRunner
from upstreams import Gate, json_answer, streaming

from proxy.cli import main
from proxy.counters.lmdb import FILE
from proxy.testing import completion

LIMITED = """
chain = ["keys", "limits", "money"]

[plugins.keys]
use = "api_keys"

[plugins.limits]
use = "rate_limit"
{limits}

[plugins.money]
use = "budget"
budget = {{ usd = 60, window = "month" }}

[providers.up]
use = "openai"
base_url = "{url}"

[models."gpt-*"]
targets = ["up"]

[prices."up/*"]
input = 0
output = 0
request = 1
{more}
"""


def limited(upstream, limits="", more=""):
    return LIMITED.format(url=upstream.url, limits=limits, more=more)


def ask(client, **options):
    messages = [{"role": "user", "content": "Hi"}]
    return client.chat.completions.create(model="gpt-5", messages=messages, **options)


def outcome(client):
    """The status of one request, and the code of its refusal."""
    try:
        ask(client)
    except openai.APIStatusError as refused:
        return refused.status_code, refused.code
    return 200, None


def storm(gateway, count):
    with gateway.client() as client, ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: outcome(client), range(count)))


def lockgate(gateway, *arguments, code=0):
    done = CliRunner().invoke(main, [*arguments, "--config", str(gateway.config)])
    assert done.exit_code == code, done.output
    return done


def shown(gateway, key):
    rows = json.loads(lockgate(gateway, "limits", "show", key, "--json").stdout)
    return {row["bucket"].split("/")[1]: row for row in rows}


def until(condition, timeout_s=20.0):
    """Wait until a condition holds."""
    deadline, waiting = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        waiting.wait(0.05)


def key_id(gateway):
    return gateway.key.split("_")[1]


def test_four_workers_grant_exactly_the_limit(worker, start_gateway, upstream):
    def crowded(request):
        # More than one worker has room for are held until they are all there.
        if len(upstream.requests) > 8:
            gate.open()
        yield gate
        yield json_answer(completion())

    gate, upstream.scripts = Gate(), [crowded]
    # One a minute comes back, and the storm is over before that.
    limits = limited(upstream, "requests_per_minute = 1\nburst = 50")
    room = {"threads": 8} if worker == "threads" else {}
    gateway = start_gateway(limits, worker=worker, server={"workers": 4, **room})
    outcomes = storm(gateway, 200)
    assert outcomes.count((200, None)) == 50
    # One that finds its worker full is told so, where the machine is slow.
    assert set(outcomes) <= {(200, None), (429, "rate_limit_exceeded"), (503, "server_is_overloaded")}
    assert len(outcomes) == 200 and len(upstream.requests) == 50
    # Each worker writes a journal of its own. One with gevent takes all the connections that there are.
    journals = [file for file in (gateway.folder / "var" / "journal").glob("2*.jsonl") if file.stat().st_size]
    assert len(journals) > (worker == "threads")


def test_four_workers_spend_exactly_the_budget_and_repairing_hands_none_of_it_out_again(start_gateway, upstream):
    gateway = start_gateway(limited(upstream), server={"workers": 4})
    outcomes = storm(gateway, 150)
    assert outcomes.count((200, None)) == 60
    assert outcomes.count((429, "insufficient_quota")) == 90
    assert shown(gateway, key_id(gateway))["budget"] | {"bucket": "", "ends": ""} == {
        "bucket": "", "kind": "window", "unit": "USD", "used": 60.0, "limit": 60.0, "left": 0.0, "ends": "",
    }  # fmt: skip
    lockgate(gateway, "counters", "repair")
    assert storm(gateway, 3) == [(429, "insufficient_quota")] * 3
    gateway.stop()
    (gateway.folder / "var" / FILE).write_bytes(b"damaged" * 10_000)
    said = lockgate(gateway, "limits", "show", key_id(gateway), code=1).stderr
    assert "lockgate counters repair" in said
    done = lockgate(gateway, "counters", "repair")
    assert "put aside" in done.stderr
    assert shown(gateway, key_id(gateway))["budget"]["used"] == 60.0
    assert lockgate(gateway, "limits", "reset", key_id(gateway)).stdout == "1 bucket reset.\n"
    assert shown(gateway, key_id(gateway)) == {}


def test_four_workers_count_in_redis_and_repairing_brings_back_what_that_forgot(
    worker, start_gateway, upstream, redis_server
):
    # A busy machine is no outage.
    counted = f'[counters]\nstore = "redis"\nurl = "{redis_server.url}"\nwait_ms = 1000'
    gateway = start_gateway(limited(upstream, more=counted), worker=worker, server={"workers": 4})
    with redis_server.client() as client:
        before = []

        def all_there():
            client.flushall()
            before.append(storm(gateway, 40).count((200, None)))
            return before[-1] == 40

        # A worker that starts slowly finds Redis slow, and then tries again.
        until(all_there)
        client.flushall()
        assert storm(gateway, 100).count((200, None)) == 60
        client.flushall()
    lockgate(gateway, "counters", "repair")
    assert shown(gateway, key_id(gateway))["budget"]["used"] == sum(before) + 60.0
    assert storm(gateway, 3) == [(429, "insufficient_quota")] * 3


def told(gateway):
    """What the log says of the store, a word for each line."""
    words = {"Redis cannot be used": "down", "they can be used again": "back"}
    return [words[said] for said in re.findall(f"counters: ({'|'.join(words)})", gateway.log)]


def test_a_redis_that_is_gone_leaves_rate_limits_divided_and_hard_budgets_closed_until_it_is_back(
    worker, start_gateway, upstream
):
    with redises.running() as server:
        counted = f'[counters]\nstore = "redis"\nurl = "{server.url}"'
        limits = limited(upstream, "requests_per_minute = 10000\nconcurrent = 500", counted)
        free = '[models.free]\ntargets = ["up"]\nchain = ["keys", "limits"]'
        gateway = start_gateway(f"{limits}\n{free}", worker=worker)
        for leave, come_back in ((server.freeze, server.thaw), (server.kill, server.start)):
            until(lambda: set(storm(gateway, 5)) == {(200, None)})
            leave()
            assert set(storm(gateway, 40)) == {(503, "counters_unavailable")}
            with gateway.client() as client:
                messages = [{"role": "user", "content": "Hi"}]
                answer = client.chat.completions.with_raw_response.create(model="free", messages=messages)
                assert answer.headers["x-lockgate-counters"] == "local"
            come_back()
        until(lambda: set(storm(gateway, 5)) == {(200, None)})
        until(lambda: re.fullmatch("((down)(back)){2,}", "".join(told(gateway))))


def test_a_killed_workers_slots_come_back_and_what_it_set_aside_is_spent_once(start_gateway, upstream):
    gate = Gate()

    def held(request):
        yield streaming()
        yield gate

    upstream.scripts = [held]
    gateway = start_gateway(limited(upstream, "concurrent = 50\ntokens_per_minute = 1000000"))
    streams = [threading.Thread(target=read_until_cut, args=(gateway,)) for _ in range(50)]
    for thread in streams:
        thread.start()
    upstream.wait_for(lambda: len(upstream.requests) == 50)
    with gateway.client() as client:
        assert outcome(client) == (429, "rate_limit_exceeded")
        assert shown(gateway, key_id(gateway))["concurrent"]["left"] == 0
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        for thread in streams:
            thread.join()
        upstream.scripts = [lambda request: json_answer(completion())]
        # The term of a slot, and what a busy machine adds.
        until(lambda: attempt(client) == (200, None), 10 + 10)
    until(lambda: shown(gateway, key_id(gateway)).get("concurrent", {"used": 0})["used"] == 0)
    assert shown(gateway, key_id(gateway))["budget"]["used"] == 51.0
    gateway.stop()
    (gateway.folder / "var" / FILE).unlink()
    lockgate(gateway, "counters", "repair")
    assert shown(gateway, key_id(gateway))["budget"]["used"] == 51.0


def attempt(client):
    """One request to a gateway whose worker may just be coming back."""
    try:
        return outcome(client)
    except openai.APIConnectionError:
        return None


def read_until_cut(gateway):
    with gateway.client() as client, pytest.raises(openai.APIError):
        for _ in ask(client, stream=True):
            pass


def test_a_state_on_a_network_file_system_keeps_it_from_starting(tmp_path, monkeypatch):
    from proxy.serving import preflight
    from proxy.settings import ServerSettings, Settings

    monkeypatch.setattr("proxy.counters.mounts.remote", lambda path: "nfs4")
    settings = Settings(None, (), ServerSettings("127.0.0.1:0", tmp_path), {}, {}, {})
    assert preflight._elsewhere(settings) == [
        f"server.state: {tmp_path} is on a network file system (nfs4): put it on a local disk"
    ]


def test_a_damaged_file_closes_the_gateway_and_tells_why(start_gateway, upstream):
    gateway = start_gateway(limited(upstream, "requests_per_minute = 100"))
    assert storm(gateway, 1) == [(200, None)]
    (gateway.folder / "var" / FILE).rename(gateway.folder / "aside")
    (gateway.folder / "var" / FILE).write_bytes(b"damaged" * 10_000)
    until(lambda: storm(gateway, 1) == [(503, "counters_unavailable")])
    gateway.wait_log(r"counters: \S+counters\.lmdb is damaged")
    lockgate(gateway, "counters", "repair")
    gateway.wait_log(r"counters: they can be used again")
    assert storm(gateway, 1) == [(200, None)]


def test_a_client_that_leaves_the_line_is_out_of_it(worker, start_gateway, upstream):
    gate = Gate()
    upstream.scripts = [lambda request: gate]
    gateway = start_gateway(limited(upstream, "concurrent = 1\nmax_wait = 60"), worker=worker)
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}
    with gateway.wire() as first, gateway.wire() as second:
        first.request(body)
        upstream.wait_request(1)
        second.request(body)
        second.close()
        until(
            lambda: [record["attempts"] for record in gateway.records() if record.get("code") == "client_gone"] == [[]]
        )
    gate.open()
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("arguments", [("reset",), ("reset", "key", "--all")])
def test_reset_wants_one_of_two(arguments):
    done = CliRunner().invoke(main, ["limits", *arguments])
    assert (done.exit_code, "Give a KEY, or --all" in done.output) == (2, True)


def test_every_bucket_of_a_key_is_shown_to_people(start_gateway, upstream):
    limits = 'tokens_per_minute = 50000\nconcurrent = 7\nscopes."key+model" = { requests_per_minute = 9 }'
    gateway = start_gateway(limited(upstream, limits))
    upstream.scripts = [lambda request: json_answer(completion(usage=(100, 150)))]
    assert storm(gateway, 2) == [(200, None)] * 2
    text = lockgate(gateway, "limits", "show", key_id(gateway)).stdout
    lines = {line.split()[0]: line.split()[1:4] for line in text.splitlines()[1:]}
    key = f"key={key_id(gateway)}"
    assert lines[f"limits/requests/{key}+model=gpt-*"] == ["2", "9", "7"]
    assert lines[f"limits/tokens/{key}"][1] == "50000"
    assert [name for name in lines if name.startswith(f"money/budget/{key}/month@")]
    assert lockgate(gateway, "limits", "show", "nobody").stderr == "Nothing is used.\n"
