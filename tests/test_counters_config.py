"""`[counters]`, and counting again from what is written down."""

from __future__ import annotations

import inspect
import time

import pytest
from states import database_in, settings_in

from proxy.access import keys
from proxy.catalog import Catalog
from proxy.config.counters import CountersSchema
from proxy.config.problems import flatten
from proxy.counters import Memory, Window, open_store, rebuilding
from proxy.counters.lmdb import Lmdb
from proxy.counters.redis import Redis
from proxy.errors import ConfigError
from proxy.exchange import Attempt, Exchange, Identity
from proxy.records.index import key as journal_key
from proxy.records.journal import Journal
from proxy.records.tables import requests
from proxy.secrets import Secret
from proxy.settings import CountersSettings, ModelSettings, PluginSettings, Settings


def problems(**options):
    schema = CountersSchema()
    try:
        schema.load(options)
    except Exception as failure:
        return flatten(failure.messages, "counters", schema)
    return []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"store": "memcached"}, "counters.store: must be lmdb or redis"),
        ({"store": "redis"}, "counters.url: missing: where is the Redis?"),
        ({"url": "redis://r:6379/0"}, 'counters.url: is not used: add store = "redis"'),
        ({"store": "redis", "url": "http://r:6379"}, "counters.url: must be a URL like"),
        ({"store": "redis", "url": "redis://r:6379/0?socket_timeout=60"}, "counters.url: must be a URL like"),
        ({"store": "redis", "url": "redis://r:6379/zero"}, "counters.url: its path is the number of a database"),
        ({"store": "redis", "url": "redis://:canary@r:6379/0"}, "counters.url: a password is not written here"),
        ({"store": "redis", "url": "redis://r", "sentinels": ["s1"]}, "counters.sentinels: 's1' is not HOST:PORT"),
        (
            {"store": "redis", "url": "redis://r", "sentinels": ["s1:1"], "cluster": True},
            "counters.sentinels: a cluster has none",
        ),
        ({"size_mib": 0}, "counters.size_mib"),
        ({"hosts": -1}, "counters.hosts"),
    ],
)
def test_what_is_wrong_in_the_section_is_told(options, said):
    told = problems(**options)
    assert any(problem.startswith(said) for problem in told), told
    assert "canary" not in str(told)


def test_the_section_says_which_store_it_is(tmp_path):
    settings = settings_in(tmp_path)
    assert isinstance(open_store(settings), Lmdb)
    remote = CountersSettings(store="redis", url=Secret("redis://127.0.0.1:1/0"))
    store = open_store(Settings(None, (), settings.server, {}, {}, {}, counters=remote))
    assert isinstance(store, Redis)
    store.close()


def test_redis_without_its_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "proxy.counters.redis", None)
    remote = CountersSettings(store="redis", url=Secret("redis://127.0.0.1:1/0"))
    with pytest.raises(ConfigError, match=r"pip install 'lockgate\[redis\]'"):
        open_store(Settings(None, (), settings_in(tmp_path).server, {}, {}, {}, counters=remote))


def test_every_plugin_that_counts_in_calendar_windows_says_in_which():
    classes = [plugin.cls for plugin in Catalog.discover(None).plugins.values()]
    counting = [cls for cls in classes if getattr(inspect.getmodule(cls), "Window", None) is Window]
    assert counting
    assert all(callable(getattr(cls, "windows", None)) for cls in counting)


def exchange(number, subject, cost, model="gpt-5"):
    made = Exchange(f"req_{number}", "POST", "/v1/chat/completions", {}, "10.1.2.3")
    made.identity, made.model, made.cost_estimate, made.cost = Identity(subject, team="search"), model, 900, cost
    made.target, made.attempts = "up/gpt-5", [Attempt("up/gpt-5", 0.0, 200)]
    return made


def test_windows_are_counted_again_from_journal_and_ledger_each_exchange_once(tmp_path):
    with database_in(tmp_path) as database:
        with database.write() as connection:
            own = {"budget": {"amount": 5_000, "window": "day"}}
            key, _ = keys.create(connection, b"p" * 32, name="app", limits=own)
        budget = {
            "scopes": {"team": {"amount": 10**6, "window": "month"}, "model": {"amount": 10**6, "window": "week"}},
            "soft": False,
            "zone": "UTC",
            "unpriced": "refuse",
        }
        base = settings_in(tmp_path)
        models = {"gpt-*": ModelSettings("gpt-*", ()), "*": ModelSettings("*", ())}
        settings = Settings(None, (), base.server, {"money": PluginSettings("money", "budget", budget)}, {}, models)
        journal = Journal(tmp_path / "journal", journal_key(settings))
        whole, settled, begun = (exchange(number, key.id, cost) for number, cost in ((1, 100), (2, 20), (3, None)))
        for each in (whole, settled, begun):
            journal.start(each)
        for each in (whole, settled):
            journal.settle(each)
        journal.end(whole)
        now = time.time()
        rows = [("other-1", now, 3000), ("other-2", now - 40 * 86400, 50_000), ("other-3", now, None)]
        with database.write() as connection:
            for row, at, cost in rows:
                values = {"key": row, "time": at, "cost": cost, "subject": "elsewhere", "team": "search"}
                connection.execute(
                    requests.insert().values(host="b", state="ended", model="gpt-6", client="10.9.9.9", **values)
                )
        sums = rebuilding.spent(settings, Catalog.discover(None), database)
        journal.close()
    found = {bucket.name: used for (bucket, _), used in sums.items()}
    # What has not ended counts with what was set aside for it.
    mine = 100 + 20 + 900
    assert found == {
        f"money/budget/key={key.id}": mine,
        "money/budget/team=search": mine + 3000,
        "money/budget/model=gpt-*": mine + 3000,
    }
    store = Memory()
    store.restore(rebuilding.entries(sums))
    assert {status.used for status in store.read()} == {mine, mine + 3000}
    assert all(isinstance(bucket, Window) for bucket, _ in sums)
