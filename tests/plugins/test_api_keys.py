"""API keys at the door: a live one is let in, and nothing tells the refused ones apart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from states import PEPPER, database_in

from plugins.api_keys import ApiKeys
from proxy import Exchange, Reject, keys
from proxy.records.snapshot import Snapshot


class Door:
    """The plugin, with a database of its own and a clock that stands still."""

    def __init__(self, database):
        self.now = 1000.0
        self._database = database
        self._snapshot = Snapshot(database, PEPPER, clock=lambda: self.now)
        self._plugin = ApiKeys()
        self._plugin.on_start(SimpleNamespace(keys=self._snapshot))

    def create(self, **details):
        with self._database.write() as connection:
            key, whole = keys.create(connection, PEPPER, name="app", **details)
        self._snapshot.refresh()
        return key.id, whole

    def revoke(self, id):
        with self._database.write() as connection:
            keys.revoke(connection, id)
        self._snapshot.refresh()

    def ask(self, authorization=None, **headers):
        if authorization is not None:
            headers["authorization"] = authorization
        return self._plugin.authenticate(Exchange("req_1", "POST", "/v1/chat/completions", headers, "10.1.2.3"))

    def refusal(self, token):
        with pytest.raises(Reject) as refused:
            self.ask(f"Bearer {token}")
        return refused.value.status, refused.value.body(), refused.value.headers


@pytest.fixture
def door(tmp_path):
    with database_in(tmp_path) as database:
        yield Door(database)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER ", "Bearer  "])
def test_a_live_key_says_who_is_calling(door, scheme):
    id, key = door.create(team="search", grants={"models": ["gpt-*"]}, limits={"tokens": 5}, expires=2000.0)
    identity = door.ask(f"{scheme} {key}")
    assert (identity.subject, identity.name, identity.team, identity.expires) == (id, "app", "search", 2000.0)
    assert (identity.grants, identity.limits) == ({"models": ["gpt-*"]}, {"tokens": 5})


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "lg_abc_def", "Basic bGdfYWJj", "Bearer sk-proj-1", "Bearer eyJhbGciOi.e.s"],
)
def test_what_does_not_begin_like_a_key_is_left_to_others(door, authorization):
    assert door.ask(authorization) is None


def test_a_key_counts_in_no_other_header_or_scheme(door):
    _, key = door.create()
    assert door.ask(f"Basic {key}") is None
    assert door.ask(**{"api-key": key, "x-api-key": key, "cookie": key}) is None


def test_malformed_unknown_revoked_and_expired_keys_get_the_same_refusal(door):
    revoked, revoked_key = door.create()
    _, expired_key = door.create(expires=door.now)
    _, key = door.create()
    door.revoke(revoked)
    tokens = [
        revoked_key,
        expired_key,
        keys.new_key()[1],
        "lg_",
        "lg_\0",
        "lg_é\xff",
        "lg_\ud800",
        "lg_" + "x" * 2**20,
        key[:-1],
        key + "x",
        key + " x",
        f"{key},Bearer {key}",  # two headers, as gunicorn joins them
        f"{key}, {key}",
    ]
    refusals = [door.refusal(token) for token in tokens]
    assert refusals == [refusals[0]] * len(tokens)
    status, body, headers = refusals[0]
    assert (status, headers) == (401, {"www-authenticate": "Bearer"})
    assert body["error"] == {
        "message": "Incorrect API key provided. Ask the people who run this gateway for a valid one.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_a_key_ends_at_its_hour(door):
    _, key = door.create(expires=2000.0)
    door.now = 1999.9
    assert door.ask(f"Bearer {key}")
    door.now = 2000.0
    assert door.refusal(key)[0] == 401


def test_a_revoked_key_is_refused_as_soon_as_the_snapshot_knows(door):
    id, key = door.create()
    assert door.ask(f"Bearer {key}")
    door.revoke(id)
    assert door.refusal(key)[0] == 401
