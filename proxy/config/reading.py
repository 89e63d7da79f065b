"""From a parsed file to `Settings`: every section checked, names resolved, all mistakes collected."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from marshmallow import RAISE, Schema, ValidationError

from proxy.catalog import Catalog
from proxy.config import connection, sections
from proxy.config.document import Document
from proxy.config.grants import LONGEST_TEAM, TeamSchema
from proxy.config.models import ModelSchema
from proxy.config.prices import PriceSchema
from proxy.config.problems import flatten, join, suggestion
from proxy.config.tls import trouble
from proxy.serving import address
from proxy.settings import (
    STALE_HOURS,
    Connection,
    ModelSettings,
    PluginSettings,
    ProviderSettings,
    Retry,
    ServerSettings,
    Settings,
    TeamSettings,
)
from proxy.shelf import Found

#: The tables that are checked one by one, after the top level.
SECTIONS = ("server", "egress", "keys", "plugins", "providers", "models", "teams", "prices", *sections.SIMPLE)
INSECURE = (
    "nobody would be authenticated: put a plugin that authenticates, such as api_keys, into the top-level chain, or "
    "listen on loopback and set server.insecure = true"
)


class Reading:
    """One reading of one file; `problems` collects every mistake."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.problems: list[str] = []
        self.direct = Connection()  # what [egress] alone says, for calls that are no provider's

    def settings(self, document: Document) -> tuple[Settings, list[str]]:
        """Return what the file says, without what is wrong in it, and what is wrong."""
        table = document.table
        # Each section is checked by itself below, so that a mistake in one does not hide those in another.
        top = self.section(sections.FileSchema(exclude=SECTIONS), _without(table, SECTIONS), "", SECTIONS)
        server = self.server(table.get("server", {}), document)
        keys = self.section(sections.KeysSchema(), table.get("keys", {}), "keys")
        plugins = {name: self.plugin(name, raw) for name, raw in self.entries(table, "plugins")}
        egress = self.egress(table.get("egress", {}))
        providers = {name: self.provider(name, raw, egress) for name, raw in self.entries(table, "providers")}
        models = {name: self.model(name, raw, plugins, providers) for name, raw in self.entries(table, "models")}
        teams = {name: self.team(name, raw) for name, raw in self.entries(table, "teams")}
        prices = {name: self.price(name, raw, providers) for name, raw in self.entries(table, "prices")}
        chain = self.chain(top.get("chain") or (), "chain", plugins)
        self.guarded(chain, plugins, server)
        pepper, stale_hours = keys.get("pepper"), keys.get("stale_hours", STALE_HOURS)
        if pepper is not None and len(pepper.reveal()) < sections.PEPPER_LENGTH:
            self.problems.append(
                f"keys.pepper: must have at least {sections.PEPPER_LENGTH} characters, e.g. from `openssl rand -hex 32`"
            )
        simple = {
            name: made(**self.section(schema(), table.get(name, {}), name))
            for name, (schema, made) in sections.SIMPLE.items()
        }
        path = document.path
        own = {"stale_hours": stale_hours, "teams": teams, "prices": prices, **simple}
        settings = Settings(path, chain, server, plugins, providers, models, self.direct, pepper, **own)
        return settings, self.problems

    def section(self, schema: Schema, raw: Any, where: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return what a schema makes of a table; what is wrong is noted and left out."""
        try:
            return dict(schema.load(raw, unknown=RAISE))
        except ValidationError as failure:
            self.problems += flatten(failure.messages, where, schema, others)
            return dict(failure.valid_data) if isinstance(failure.valid_data, Mapping) else {}

    def entries(self, table: dict[str, Any], kind: str) -> list[tuple[str, Any]]:
        """Return the named tables of `[kind.NAME]`."""
        found = table.get(kind, {})
        if not isinstance(found, dict):
            self.problems.append(f"{kind}: must hold tables of their own, [{kind}.NAME]")
            return []
        for name in found:
            # A slash parts provider and model in a target. A model may be called anything, and so may a team.
            if kind not in ("models", "teams", "prices") and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                self.problems.append(f"{join(kind, name)}: a name is made of letters, digits, - and _")
        return list(found.items())

    def server(self, raw: Any, document: Document) -> ServerSettings:
        """Check `[server]`."""
        loaded = self.section(sections.ServerSchema(), raw, "server")
        fallback: dict[str, Any] = {"bind": "", "state": document.folder / "var"}
        server = ServerSettings(**fallback | loaded)
        if server.worker == "gevent" and find_spec("gevent") is None:
            self.problems.append("server.worker: gevent is not installed: pip install 'lockgate[gevent]'")
        if server.max_bodies_bytes < server.max_body_bytes:
            self.problems.append("server.max_bodies_bytes: must be at least max_body_bytes, or no such body fits")
        if os.path.exists(server.state) and not os.path.isdir(server.state):
            self.problems.append(f"server.state: {server.state} is not a folder")
        if document.plugins_copy is not None and server.plugins_dir is not None:
            server = replace(server, plugins_dir=document.plugins_copy)
        return server

    def plugin(self, name: str, raw: Any) -> PluginSettings:
        """Check `[plugins.NAME]`."""
        use, options = self.uses(raw, join("plugins", name), self.catalog.plugins, "plugin")
        return PluginSettings(name, use, options)

    def egress(self, raw: Any) -> dict[str, Any]:
        """Check `[egress]` and return it as it was written, without what is wrong in it."""
        schema = connection.ConnectionSchema()
        before = len(self.problems)
        loaded = self.section(schema, raw, "egress")
        self.problems += trouble(loaded, "egress")
        if len(self.problems) > before:
            return {}
        self.direct = connection.made(loaded)
        return dict(raw)

    def provider(self, name: str, raw: Any, egress: dict[str, Any]) -> ProviderSettings:
        """Check `[providers.NAME]`: its class's own keys, and those of its connection over `egress`."""
        where = join("providers", name)
        schema = connection.ConnectionSchema()
        own, wire = raw, dict[str, Any]()
        if isinstance(raw, dict):
            own, wire = _without(raw, schema.fields), {key: raw[key] for key in raw if key in schema.fields}
        use, options = self.uses(own, where, self.catalog.providers, "provider", tuple(schema.fields))
        loaded = self.section(schema, connection.over(egress, wire), where)
        if wire.keys() & {"ca_file", "client_cert", "client_key"}:
            self.problems += trouble(loaded, where)
        return ProviderSettings(name, use, options, connection.made(loaded))

    def uses(
        self, raw: Any, where: str, shelf: Mapping[str, Found], kind: str, others: tuple[str, ...] = ()
    ) -> tuple[str, dict[str, Any] | None]:
        """Return the class's name and its loaded options."""
        if not isinstance(raw, dict):
            self.problems.append(f"{where}: must be a table of its own, [{where}]")
            return "", None
        use = raw.get("use")
        if not isinstance(use, str):
            example = where.partition(".")[2] if where.partition(".")[2] in shelf else next(iter(sorted(shelf)), "NAME")
            what = "must be a text in quotes" if "use" in raw else f'missing; add use = "{example}"'
            self.problems.append(f"{where}.use: {what}; known: {', '.join(sorted(shelf))}")
            return "", None
        found = shelf.get(use)
        if found is None:
            absent = self.catalog.absent.get(use)
            remedy = suggestion(use, shelf) or f"; known: {', '.join(sorted(shelf))}"
            self.problems.append(f"{where}.use: {absent or f'there is no {kind} called {use!r}{remedy}'}")
            return use, None
        config = getattr(found.cls, "Config", None)
        if config is None:
            self.section(Schema(), _without(raw, ("use",)), where, others)
            return use, None
        return use, self.section(config(), _without(raw, ("use",)), where, others)

    def model(
        self, pattern: str, raw: Any, plugins: Mapping[str, PluginSettings], providers: Mapping[str, ProviderSettings]
    ) -> ModelSettings:
        """Check `[models.PATTERN]`."""
        where = join("models", pattern)
        if not pattern.strip():
            self.problems.append(f"{where}: a model has a name")
        loaded = self.section(ModelSchema(), raw, where)
        loaded["targets"] = targets = tuple(loaded.get("targets", ()))
        for name in dict.fromkeys(target.provider for target in targets):
            if name not in providers:
                remedy = suggestion(name, providers) or f"; add [providers.{name}]"
                self.problems.append(f"{where}.targets: no provider is called {name!r}{remedy}")
        if "retry" in loaded:
            loaded["retry"] = Retry(**loaded["retry"])
        if loaded.get("chain") is not None:
            loaded["chain"] = self.chain(loaded["chain"], f"{where}.chain", plugins)
        loaded["parameters"] = tuple(loaded.get("parameters", ()))
        return ModelSettings(pattern, **loaded)

    def team(self, name: str, raw: Any) -> TeamSettings:
        """Check `[teams.NAME]`."""
        where = join("teams", name)
        if not (name.strip() and name.isprintable() and len(name) <= LONGEST_TEAM):
            self.problems.append(f"{where}: a team's name has 1 to {LONGEST_TEAM} printable characters")
        loaded = self.section(TeamSchema(), raw, where)
        return TeamSettings(name, loaded.get("grants", {}), loaded.get("limits", {}))

    def price(self, target: str, raw: Any, providers: Mapping[str, ProviderSettings]) -> dict[str, Any]:
        """Check `[prices."PROVIDER/MODEL"]`."""
        where = join("prices", target)
        provider, slash, model = target.partition("/")
        if not slash or not model:
            self.problems.append(f'{where}: is for a target, [prices."PROVIDER/MODEL"]; * stands for any text')
        elif "*" not in provider and provider not in providers:
            remedy = suggestion(provider, providers) or f"; add [providers.{provider}]"
            self.problems.append(f"{where}: no provider is called {provider!r}{remedy}")
        return self.section(PriceSchema(), raw, where)

    def chain(self, names: Any, where: str, plugins: Mapping[str, PluginSettings]) -> tuple[str, ...]:
        """Check that every name is a configured plugin, once."""
        for index, name in enumerate(names):
            if name not in plugins:
                remedy = suggestion(name, plugins) or f"; add [plugins.{name}]"
                self.problems.append(f"{where}[{index}]: no plugin is configured as {name!r}{remedy}")
            elif name in names[:index]:
                self.problems.append(
                    f"{where}[{index}]: {name!r} is in the chain twice; configure another one for that"
                )
        return tuple(names)

    def guarded(self, chain: tuple[str, ...], plugins: Mapping[str, PluginSettings], server: ServerSettings) -> None:
        """Refuse a gateway that lets everybody in, unless nobody but this machine reaches it and the file says so."""
        used = [self.catalog.plugins.get(plugins[name].use) for name in chain if name in plugins]
        authenticated = any(found is not None and "authenticate" in found.hooks for found in used)
        loopback = bool(server.bind) and address.is_loopback(address.parse(server.bind))
        if server.insecure and server.bind and not loopback:
            self.problems.append(
                f"server.insecure: is for loopback only, and {server.bind} is not: remove it, or listen on 127.0.0.1"
            )
        # A plugin that is missing, or whose class is, has been told already.
        if not authenticated and not server.insecure and None not in used and len(used) == len(chain):
            self.problems.append(f"chain: {INSECURE}")


def _without(table: dict[str, Any], keys: Any) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}
