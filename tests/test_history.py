"""`GET /v1/requests`: what a key asked itself, page by page, from the ledger or from the journal."""

from __future__ import annotations

import json
import time

import pytest
from gateways import ECHO, new_key
from states import both_databases, database_in
from test_shipping import NOW, exchange, refused, settled, whole
from test_shipping import database as database
from test_shipping import journal as journal
from test_shipping import shipper as shipper
from test_shipping import state as state

from proxy.errors import Reject
from proxy.records import history as module
from proxy.records.history import History, Search

NO_SHIPPER = ECHO + "[ledger]\nship = false\n"


@pytest.fixture
def history(database, state):
    return History(lambda: database, state / "journal")


def ids(page):
    return [int(row["id"][-3:]) for row in page.rows]


@both_databases
def test_pages_follow_each_other_newest_first_without_a_gap(history, journal, shipper):
    file = journal()
    for number in range(10):
        whole(file, number=number, at=NOW + number // 3)  # some at the same time
    shipper.ship()
    cursor, seen = None, []
    for _ in range(4):
        page = history.page(Search(), 3, cursor)
        seen += ids(page)
        cursor = page.cursor
    assert (cursor, page.source) == (None, "ledger")
    assert sorted(seen) == list(range(10))
    assert [number // 3 for number in seen] == sorted((number // 3 for number in seen), reverse=True)


@both_databases
def test_a_search_is_answered_alike_by_ledger_and_journal(history, journal, shipper, monkeypatch):
    file = journal()
    for number in range(4):
        whole(file, number=number, at=NOW + number, team=f"t{number % 2}", subject=f"k{number % 2}")
    refused(file, 9, NOW + 9)
    lost = exchange(5, at=NOW + 5)  # of k1
    file.start(lost)
    settled(file)
    shipper.ship()
    searches = [
        Search(),
        Search({"subject": "k1"}),
        Search({"team": "t0", "status": 200}),
        Search({"state": "lost"}),
        Search({"code": "invalid_api_key"}, since=NOW + 3),
        Search(since=NOW + 1, until=NOW + 3),
        Search(agent="est"),
        Search(agent="%"),
    ]
    ledger = [ids(history.page(search, 10)) for search in searches]
    assert ledger == [[9, 5, 3, 2, 1, 0], [5, 3, 1], [2, 0], [5], [9], [2, 1], [9, 5, 3, 2, 1, 0], []]
    monkeypatch.setattr(module, "REST_S", 1e9)
    history._again = float("inf")
    pages = [history.page(search, 10) for search in searches]
    assert [ids(page) for page in pages] == ledger
    assert {page.source for page in pages} == {"journal"}
    second = history.page(Search(), 2, history.page(Search(), 2).cursor)
    assert ids(second) == [3, 2]


def test_a_long_journal_is_read_from_its_end(history, journal, shipper, monkeypatch):
    file = journal()
    for number in range(200):
        whole(file, number=number, at=NOW + number)
    monkeypatch.setattr(module, "JOURNAL_BYTES", 10_000)
    history._again = float("inf")
    found = ids(history.page(Search(), 1000))
    assert found == list(range(199, 199 - len(found), -1))
    assert 5 < len(found) < 50


def test_while_the_ledger_is_away_the_journal_is_read_once_for_all_who_ask(history, journal, database, monkeypatch):
    file = journal()
    whole(file, number=1, at=NOW)
    read, journalled = [], history._journalled
    monkeypatch.setattr(history, "_journalled", lambda: read.append(1) or journalled())
    history._again = float("inf")
    assert [ids(history.page(Search({"subject": subject}), 5)) for subject in ("k1", "other", "k1")] == [[1], [], [1]]
    assert len(read) == 1
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    history._kept_until = 0.0
    whole(file, number=2, at=NOW + 1)
    assert ids(history.page(Search(), 5)) == [2, 1]
    history._again = 0.0
    assert history.page(Search(), 5).source == "ledger" and history._kept == []


@pytest.mark.parametrize(
    "cursor",
    [*" x e30 W10 WzEsMl0 W251bGwsIngiXQ é WyJ4IiwieCJd WyJuYW4iLCJ4Il0 W3RydWUsIngiXQ".split(" "), "A" * 9999],
)
def test_a_cursor_that_no_page_gave_is_refused(history, cursor):
    with pytest.raises(Reject) as refusal:
        history.page(Search(), 5, cursor)
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_cursor")


def test_a_key_sees_its_own_requests_and_nobody_elses(start_gateway):
    gateway = start_gateway(NO_SHIPPER)
    other = new_key(gateway.config, "other")
    with gateway.wire() as wire:
        until(lambda: wire.get("/v1/requests", authorization=f"Bearer {other}").status == 200)
        wire.post({"model": "echo", "messages": [{"role": "user", "content": "canary"}]}, user_agent="mine/1")
        wire.post({"model": "nothing", "messages": [{"role": "user", "content": "x"}]})
        wire.post({"model": "echo", "messages": [{"role": "user", "content": "x"}]}, authorization=f"Bearer {other}")
        empty = wire.get("/v1/requests")
        assert (empty.status, empty.json["source"], empty.json["data"]) == (200, "ledger", [])
        until(lambda: ship(gateway) is None and len(wire.get("/v1/requests").json["data"]) == 2)
        listed = wire.get("/v1/requests")
        first, second = listed.json["data"]
        assert (first["status"], first["error"], first["model"]) == (404, "model_not_found", "nothing")
        assert (second["status"], second["user_agent"], second["streamed"]) == (200, "mine/1", False)
        assert second["usage"]["total_tokens"] > 0 and second["duration"] > 0
        assert "canary" not in listed.body.decode()
        page = wire.get("/requests?limit=1")
        assert (page.json["data"], page.json["has_more"]) == ([first], True)
        rest = wire.get(f"/v1/requests?limit=1&after={page.json['next_cursor']}")
        assert (rest.json["data"], rest.json["has_more"], rest.json["next_cursor"]) == ([second], False, None)
        theirs = wire.get("/v1/requests", authorization=f"Bearer {other}")
        assert [one["status"] for one in theirs.json["data"]] == [200]
        assert wire.get("/v1/requests", authorization=None).status == 401
        for query in ("limit=0", "limit=101", "limit=x", "limit=-1", "after=%00"):
            assert wire.get(f"/v1/requests?{query}").status == 400


def ship(gateway):
    """Do what the shipper does, now."""
    from proxy.records.shipping import Shipper

    with database_in(gateway.folder / "var") as database:
        Shipper(database, gateway.folder / "var").ship()


def until(predicate):
    """Wait until it is true."""
    deadline = time.monotonic() + 20
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_its_ledger_the_gateway_shows_the_journal(start_gateway, worker, postgresql, postgres, tmp_path):
    from states import settings_in

    from proxy.records.database import upgrade

    upgrade(settings_in(tmp_path / "unused", url=postgres))
    toml = NO_SHIPPER + '[database]\nurl = { file = "../url" }\n'
    (tmp_path / "url").write_text(postgres)
    gateway = start_gateway(toml, worker=worker)
    with gateway.wire() as wire:
        assert wire.get("/v1/requests").json["source"] == "ledger"
        wire.post({"model": "echo", "messages": [{"role": "user", "content": "x"}]})
        postgresql.kill()
        try:
            until(lambda: wire.get("/v1/requests").json["data"])
            answer = wire.get("/v1/requests")
        finally:
            postgresql.start()
        assert (answer.status, answer.json["source"]) == (200, "journal")
        assert [one["status"] for one in answer.json["data"]] == [200]
    assert "canary-of-postgresql" not in gateway.log + json.dumps(answer.json)
