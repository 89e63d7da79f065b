"""What Lockgate says an exchange cost is what its upstream bills for it, whatever happened on the way."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from billers import TARIFFS, Biller, plans
from click.testing import CliRunner
from upstreams import Upstream

from proxy.cli import main

CONFIG = """
chain = ["keys", "money"]

[plugins.keys]
use = "api_keys"

[plugins.money]
use = "budget"
budget = {{ usd = {usd}, window = "month" }}

[providers.one]
use = "openai"
base_url = "{one}"
breaker = {{ failures = 0 }}

[providers.two]
use = "openai"
base_url = "{two}"
breaker = {{ failures = 0 }}

[models."*"]
targets = ["one", "two"]
retry = {{ attempts = 4, backoff = 0.01 }}
"""
PRICE = """
[prices."{name}/*"]
input = {input}
cached_input = {cached}
output = {output}
"""


def config(one, two, usd):
    prices = "".join(PRICE.format(name=name, **tariff) for name, tariff in TARIFFS.items())
    return CONFIG.format(one=one.url, two=two.url, usd=usd) + prices


def send(gateway, planned):
    """Send one request, as a client that may leave; return its id with Lockgate, and the status."""
    plan, request = planned
    connection = http.client.HTTPConnection(*gateway.address, timeout=30)
    headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(request), headers)
    response = connection.getresponse()
    if plan["fate"] == "client leaves":
        response.read1(10)
        connection.sock.shutdown(2)
        connection.close()
    else:
        try:
            response.read()
        except http.client.IncompleteRead:
            pass
        connection.close()
    return response.headers["x-request-id"], response.status


def exchanges(gateway, count):
    """The journal's last word on each exchange, by its id, when all of them are over."""
    deadline = time.monotonic() + 30
    while True:
        said = {}
        for record in gateway.records():
            said.setdefault(record.get("id"), {}).update(record)
        over = {id: record for id, record in said.items() if "duration_s" in record}
        if len(over) >= count:
            return over
        assert time.monotonic() < deadline, f"{len(over)} of {count}"
        threading.Event().wait(0.05)


def used_usd(gateway):
    key = gateway.key.split("_")[1]
    done = CliRunner().invoke(main, ["limits", "show", key, "--json", "--config", str(gateway.config)])
    [row] = json.loads(done.output)
    return round(row["used"] * 1_000_000)


def test_the_recorded_cost_is_the_bill(start_gateway):
    one, two = Biller("one"), Biller("two")
    planned = plans(2000, seed=5)
    with Upstream(one.script) as first, Upstream(two.script) as second:
        gateway = start_gateway(config(first, second, 1000), server={"workers": 2})
        # Many, for those that are retried wait a second for it.
        with ThreadPoolExecutor(48) as pool:
            sent = list(pool.map(lambda each: send(gateway, each), planned))
        records = exchanges(gateway, len(planned))
        used = used_usd(gateway)
    assert len({id for id, _ in sent}) == len(planned)
    bills, told = (one.bills, two.bills), (one.reported, two.reported)
    unreported = {at for who, by in zip(bills, told, strict=True) for at in who if by.get(at) != who[at]}
    wrong, estimated = [], 0
    for (plan, _), (id, status) in zip(planned, sent, strict=True):
        record, at = records[id], plan["at"]
        billed, reported = (sum(who.get(at, 0) for who in both) for both in (bills, told))
        if at in unreported:
            # An upstream told nobody: Lockgate's figure is an estimate, says so, and is never only what it was told.
            estimated += 1
            if not (record["estimated"] and record["cost"] > reported):
                wrong.append((plan, record))
        elif (record["cost"], bool(record["estimated"])) != (billed, False):
            wrong.append((plan, status, billed, record))
    assert wrong == []
    assert estimated > 200
    assert used == sum(record["cost"] for record in records.values())


def test_a_budget_is_exceeded_by_no_more_than_its_last_reservation(start_gateway):
    one, two = Biller("one"), Biller("two")
    planned = plans(400, seed=7)
    with Upstream(one.script) as first, Upstream(two.script) as second:
        gateway = start_gateway(config(first, second, 0.5), server={"workers": 2})
        with ThreadPoolExecutor(12) as pool:
            sent = list(pool.map(lambda each: send(gateway, each), planned))
        records = exchanges(gateway, len(planned))
        used = used_usd(gateway)
    assert [status for _, status in sent].count(429) > 50
    costs = [record["cost"] for record in records.values()]
    # Whoever comes while others are in flight finds their reservations taken, and may be refused for them.
    assert 100_000 < sum(costs) <= 500_000 + max(costs)
    assert used == sum(costs)
