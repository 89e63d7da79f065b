"""What one worker holds: its models, plugins, upstreams, keys and journal; made after the fork."""

from __future__ import annotations

import atexit
import logging
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import requests

from proxy.access.pepper import agreed, known
from proxy.access.teams import Teams
from proxy.access.throttle import Throttle
from proxy.catalog import Catalog
from proxy.chain import Chain
from proxy.costs import estimates
from proxy.costs.prices import Prices
from proxy.counters import Counters, open_store
from proxy.errors import ConfigError
from proxy.exchange import Exchange
from proxy.guardian import Guardian
from proxy.metrics.exchanges import Metrics
from proxy.models import Connected, Models
from proxy.models import Model as Model
from proxy.records import index
from proxy.records.copy import Copy
from proxy.records.database import Database, location
from proxy.records.election import Election
from proxy.records.history import History
from proxy.records.journal import Journal
from proxy.records.snapshot import Snapshot
from proxy.request.bodies import Bodies
from proxy.secrets import kept
from proxy.settings import Connection, Settings
from proxy.shelf import Found
from proxy.upstreams.adapter import Adapter
from proxy.upstreams.renewal import Renewals
from proxy.upstreams.sealing import Sealer
from proxy.upstreams.upstream import Upstream

log = logging.getLogger("lockgate")


class Gateway:
    """Everything that a worker's exchanges share. Plugins receive it in `on_start`.

    `state` is the state directory, `database` the records' database, `keys` the snapshot of the API keys, `teams` the
    teams, `http()` a session for calls of a plugin's own through the configured egress.
    """

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings = settings
        self.state: Path = settings.server.state
        self.plugins: dict[str, Any] = {
            name: _made(catalog.plugins[own.use], own.options) for name, own in settings.plugins.items()
        }
        self._providers = {
            name: Connected(
                _made(catalog.providers[own.use], own.options), Upstream(name, own.connection), own.connection
            )
            for name, own in settings.providers.items()
        }
        for each in self._providers.values():
            if hasattr(each.provider, "http"):
                each.provider.http = partial(self.http, each.connection)
        self._chains: dict[tuple[str, ...], Chain] = {}
        self.chain = self._chain(None)
        self.models = Models(settings.models, self._providers, self._chain)
        self.throttle = Throttle()
        self.prices = Prices(settings)
        self.prompt_tokens = estimates.counter(settings.estimates.exact)
        self.public = any(model.settings.public for model in self.models.values())
        self.bodies = Bodies(settings.server.max_bodies_bytes)
        self._started: list[str] = []
        self._stopped = False
        self._election: Election | None = None

    def model(self, name: str) -> Model | None:
        """Return the model that `name` means: the exact one, else that of the longest pattern that matches."""
        return self.models.named(name)

    def start(self) -> None:
        """Open what the worker needs and tell the plugins; raises what keeps one of them from starting.

        When the process ends, `stop` is called if it was not before.
        """
        atexit.register(self.stop)
        self.guardian = Guardian(self.settings.server.heartbeat)
        providers = {name: each.provider for name, each in self._providers.items()}
        for provider in providers.values():
            if hasattr(provider, "sealer"):
                provider.sealer = Sealer(kept(self.settings.pepper, "keys.pepper", self.state / "pepper"))
        self._renewals = Renewals({name: each.renew for name, each in providers.items() if hasattr(each, "renew")})
        self._renewals.start()
        self.metrics = Metrics(self.state / "metrics")
        self.journal = Journal(self.state / "journal", index.key(self.settings), self.settings.journal)
        self.metrics.watch(self)
        chained = {name for names in self._chains for name in names}
        for name, plugin in self.plugins.items():
            if name not in chained:
                continue
            start = _hook(plugin, "on_start")
            if start is not None:
                log.debug("starting plugin %s", name)
                start(*((self,) if start.__code__.co_argcount > 1 else ()))
            self._started.append(name)
        if self.settings.ledger.ship:
            self._election = Election(self.settings)
            self._election.start()

    def stop(self) -> None:
        """Tell the plugins and close everything, once; never raises."""
        if self._stopped:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        for name in self._started:
            stop = _hook(self.plugins[name], "on_stop")
            if stop is not None:
                try:
                    stop()
                except Exception:
                    log.exception("plugin %s failed in on_stop", name)
        for each in self._providers.values():
            each.upstream.close()
        # The election when the journal is complete: the shipper ends with that.
        for name in ("keys", "counters", "database", "_renewals", "guardian", "journal", "metrics", "_election"):
            # Looked up in __dict__: what was never used, or not come to by a start that failed, is not made for this.
            made = self.__dict__.get(name)
            if made is not None:
                (made.stop if hasattr(made, "stop") else made.close)()

    @cached_property
    def database(self) -> Database:
        """The records' database; opened at first use."""
        return Database(location(self.settings))

    @cached_property
    def history(self) -> History:
        """What was asked lately, for callers."""
        return History(lambda: self.database, self.state / "journal")

    @cached_property
    def keys(self) -> Snapshot:
        """The API keys and the teams of the database, in memory."""
        path = self.state / "keys.copy"
        try:
            pepper = agreed(self.settings, self.database)
        except Database.failures:
            if not path.exists():
                raise
            pepper = known(self.settings)  # the copy's seal tells whether it is still the same
        copy = Copy(path, pepper, str(location(self.settings)))
        snapshot = Snapshot(self.database, pepper, stale_s=self.settings.stale_hours * 3600, copy=copy)
        snapshot.start()
        return snapshot

    @cached_property
    def counters(self) -> Counters:
        """Where limits and budgets are counted, for all workers; made at first use."""
        parts = self.settings.server.workers * self.settings.counters.hosts
        return Counters(open_store(self.settings), parts, self.settings.server.threads, self.metrics)

    def complete(self, chain: Chain, exchange: Exchange) -> list[str]:
        """Tell the plugins of a chain that an exchange has ended; what they settle is counted together."""
        counters: Counters | None = self.__dict__.get("counters")  # not made for this
        if counters is None:
            return chain.on_complete(exchange)
        failed: list[str] = counters.together(chain.on_complete, exchange)
        return failed

    @cached_property
    def teams(self) -> Teams:
        """The teams of the configuration and of the database, in memory."""
        return Teams(self.settings.teams, self.keys)

    def http(self, connection: Connection | None = None) -> requests.Session:
        """Return a session for a plugin's own calls: through the egress proxy, with the configured authorities.

        It reads nothing from the environment and follows no redirects. The caller gives a `timeout` to each call.
        """
        session = requests.Session()
        session.trust_env = False
        session.max_redirects = 0
        adapter = Adapter(connection or self.settings.egress)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def _chain(self, names: tuple[str, ...] | None) -> Chain:
        names = self.settings.chain if names is None else names
        if names not in self._chains:
            self._chains[names] = Chain({name: self.plugins[name] for name in names})
        return self._chains[names]


def _hook(plugin: Any, name: str) -> Any:
    method = getattr(plugin, name, None)
    return method if hasattr(method, "lockgate_impl") else None


def _made(found: Found, options: dict[str, Any] | None) -> Any:
    try:
        return found.make(options)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"{found.cls.__name__}: could not be made: {type(error).__name__}: {error}"]) from error
