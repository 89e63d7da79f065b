"""API keys at the door: a live one is let in, and nothing tells the refused ones apart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from states import PEPPER, database_in

from plugins.api_keys import ApiKeys
from proxy import Exchange, Reject
from proxy.access import keys, teams
from proxy.records.snapshot import Snapshot
from proxy.settings import TeamSettings


class Door:
    """The plugin, with a database of its own and a clock that stands still."""

    def __init__(self, database):
        self.now = 1000.0
        self._database = database
        self._snapshot = Snapshot(database, PEPPER, clock=lambda: self.now)
        self._plugin = ApiKeys()
        known = teams.Teams({"search": TeamSettings("search")}, self._snapshot)
        self._plugin.on_start(SimpleNamespace(keys=self._snapshot, teams=known))

    def create(self, **details):
        with self._database.write() as connection:
            key, whole = keys.create(connection, PEPPER, name="app", **details)
        self._snapshot.refresh()
        return key.id, whole

    def add(self, id, token):
        with self._database.write() as connection:
            version = keys.next_version(connection)
            row = keys.Key(id, keys.digest(PEPPER, token), "app", None, None, None, {}, {}, 1.0, None, None, version)
            keys.add_all(connection, PEPPER, [row])
        self._snapshot.refresh()

    def revoke(self, id):
        self.change(keys.revoke, id)

    def change(self, function, *arguments, **details):
        with self._database.write() as connection:
            changed = function(connection, *arguments, **details)
        self._snapshot.refresh()
        return changed

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


@pytest.mark.parametrize("token", ["sk-proj-" + "A1b2" * 10, "x" * 128, "';DROP/**/TABLE/**/keys;--" + "x" * 10])
def test_a_key_that_was_imported_from_elsewhere_is_accepted_whatever_it_looks_like(door, token):
    assert not token.startswith("lg_") and door.ask(f"Bearer {token}") is None
    door.add("other", token)
    assert door.ask(f"Bearer {token}").subject == "other"


def test_a_longer_text_than_the_longest_key_is_not_that_key(door):
    token = "lg_" + "x" * 125
    door.add("other", token)
    assert door.ask(f"Bearer {token}").subject == "other"
    assert door.refusal(token + "x")[0] == 401


def test_a_token_too_long_for_a_key_costs_no_digest(door, monkeypatch):
    monkeypatch.setattr("proxy.records.snapshot.digest", None)
    assert door.ask("Bearer " + "e" * 129) is None
    assert door.ask("Bearer " + "e" * 2**20) is None


def test_sql_in_a_key_is_one_more_unknown_key(door):
    _, key = door.create()
    for token in ("lg_' OR '1'='1", "lg_x'; DROP TABLE keys; --", 'lg_" UNION SELECT digest FROM keys --'):
        assert door.refusal(token)[0] == 401
    assert door.ask(f"Bearer {key}")


def test_a_key_of_a_team_that_exists_nowhere_is_refused_and_told_why(door):
    _, key = door.create(team="web")
    status, body, _ = door.refusal(key)
    assert (status, body["error"]["code"]) == (403, "unknown_team")
    door.change(teams.create, "web")
    assert door.ask(f"Bearer {key}").team == "web"
    door.change(teams.remove, "web")
    assert door.refusal(key)[0] == 403


def test_during_a_rotation_both_secrets_say_the_same_caller_until_the_grace_is_over(door):
    id, old = door.create()
    _, new = door.change(keys.rotate, PEPPER, id, grace_s=60, clock=lambda: door.now)
    start = door.now
    for door.now, old_is_good in ((start, True), (start + 59.999, True), (start + 60, False)):
        assert door.ask(f"Bearer {new}").subject == id
        if old_is_good:
            assert door.ask(f"Bearer {old}").subject == id
        else:
            assert door.refusal(old)[0] == 401
