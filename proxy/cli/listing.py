"""What is configured and what is loaded, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from proxy.catalog import Catalog
from proxy.config.grants import written
from proxy.config.problems import join
from proxy.config.reference import literal, options
from proxy.config.sections import SIMPLE
from proxy.secrets import SECRET_MASK, Secret
from proxy.settings import Connection, Settings, Target
from proxy.shelf import Found
from proxy.upstreams.renewal import Credential


def as_toml(settings: Settings) -> str:
    """Return the effective settings as a file would say them, secrets as `***`."""
    lines = [f"chain = {literal(settings.chain)}"]
    lines += _table("server", _fields(settings.server))
    lines += _table("egress", _connection(settings.egress))
    pepper = {} if settings.pepper is None else {"pepper": SECRET_MASK}
    lines += _table("keys", {**pepper, "stale_hours": settings.stale_hours})
    for name in SIMPLE:
        lines += _table(name, _fields(getattr(settings, name)))
    for name, plugin in settings.plugins.items():
        lines += _table(join("plugins", name), {"use": plugin.use} | (plugin.options or {}))
    for name, provider in settings.providers.items():
        own = {"use": provider.use} | (provider.options or {})
        lines += _table(join("providers", name), own | _connection(provider.connection))
    for name, model in settings.models.items():
        told = _fields(model)
        del told["pattern"]
        told["targets"] = [_target(target) for target in model.targets]
        lines += _table(join("models", name), told)
    for name, team in settings.teams.items():
        lines += _table(join("teams", name), {"grants": team.grants, "limits": written(team.limits)})
    return "\n".join(lines) + "\n"


def plugins(settings: Settings, catalog: Catalog) -> list[dict[str, Any]]:
    """Return what there is of plugins: each with its origin, hooks, options, and the names it is configured as."""
    return [_found(found, settings.plugins) | {"hooks": list(found.hooks)} for found in _sorted(catalog.plugins)]


def providers(settings: Settings, catalog: Catalog) -> list[dict[str, Any]]:
    """Return what there is of providers, in the same way."""
    return [
        _found(found, settings.providers) | {"native": bool(getattr(found.cls, "native", False))}
        for found in _sorted(catalog.providers)
    ]


def models(settings: Settings, catalog: Catalog) -> list[dict[str, Any]]:
    """Return the models, each with its targets and its chain: plugin by plugin, in order, with the hooks it takes."""
    rows = []
    for model in settings.models.values():
        chain = settings.chain if model.chain is None else model.chain
        rows.append(
            {
                "pattern": model.pattern,
                "targets": [f"{target.provider}/{target.model or '*'}" for target in model.targets],
                "chain": [
                    {"name": name, "use": use, "hooks": list(catalog.plugins[use].hooks)}
                    for name, use in ((name, settings.plugins[name].use) for name in chain)
                ],
                "own_chain": model.chain is not None,
                "public": model.public,
                "web_search": model.web_search,
                "parameters": list(model.parameters),
            }
        )
    return rows


def _found(found: Found, configured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": found.name,
        "summary": found.summary,
        "source": found.source,
        "origin": found.origin,
        "version": found.version,
        "configured": [entry.name for entry in configured.values() if entry.use == found.name],
        "options": [option.as_dict() for option in options(getattr(found.cls, "Config", None))],
    }


def _sorted(shelf: Mapping[str, Found]) -> Iterator[Found]:
    return (shelf[name] for name in sorted(shelf))


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    told = {key: _plain(value) for key, value in values.items() if value is not None}
    return ["", f"[{name}]", *(f"{join('', key)} = {literal(value)}" for key, value in told.items())]


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _target(target: Target) -> Any:
    to = target.provider + (f"/{target.model}" if target.model else "")
    return to if target.weight is None else {"to": to, "weight": target.weight}


def _connection(connection: Connection) -> dict[str, Any]:
    told = _fields(connection)
    if connection.proxy is not None:
        parts = urlsplit(connection.proxy)
        user, at, host = parts.netloc.rpartition("@")
        told["proxy"] = urlunsplit(parts._replace(netloc=f"{SECRET_MASK}@{host}" if at else host))
    return told


def _plain(value: Any) -> Any:
    """Return what can be written, and of secrets the mask."""
    if isinstance(value, Secret | Credential):
        return SECRET_MASK
    if is_dataclass(value):
        return _plain(_fields(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
