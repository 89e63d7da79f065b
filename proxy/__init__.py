"""Lockgate's core. These names are what plugins are written with; everything else may change."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.errors import ConfigError, Reject, UpstreamError
    from proxy.exchange import Attempt, Event, Exchange, Filter, Identity, Outcome, Pause, Reply, Usage
    from proxy.filters import hold, rewrite_text
    from proxy.gateway import Gateway
    from proxy.hookspecs import hookimpl
    from proxy.records.lines import json_line
    from proxy.secrets import PathField, Secret, SecretField

__all__ = [
    "Attempt", "ConfigError", "Event", "Exchange", "Filter", "Gateway", "Identity", "Outcome", "PathField", "Pause",
    "Reject", "Reply", "Secret", "SecretField", "UpstreamError", "Usage", "hold", "hookimpl", "json_line",
    "rewrite_text",
]  # fmt: skip

_MODULES = {
    "errors": ("ConfigError", "Reject", "UpstreamError"),
    "exchange": ("Attempt", "Event", "Exchange", "Filter", "Identity", "Outcome", "Pause", "Reply", "Usage"),
    "filters": ("hold", "rewrite_text"),
    "gateway": ("Gateway",),
    "hookspecs": ("hookimpl",),
    "records.lines": ("json_line",),
    "secrets": ("PathField", "Secret", "SecretField"),
}


def __getattr__(name: str) -> object:
    # Loaded at first use: gunicorn's master imports this package too, and what it has imported its workers inherit,
    # so that a reload would serve a mixture of the old version and the new.
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"proxy.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'proxy' has no attribute {name!r}")
