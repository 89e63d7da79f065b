"""Lockgate's core. These names are what plugins are written with; everything else may change."""

from proxy.errors import ConfigError, Reject, UpstreamError
from proxy.exchange import Attempt, Event, Exchange, Filter, Identity, Outcome, Pause, Reply, Usage
from proxy.filters import hold, rewrite_text
from proxy.hookspecs import hookimpl
from proxy.records.lines import json_line
from proxy.secrets import Secret, SecretField

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.gateway import Gateway

__all__ = [
    "Attempt", "ConfigError", "Event", "Exchange", "Filter", "Gateway", "Identity", "Outcome", "Pause", "Reject",
    "Reply", "Secret", "SecretField", "UpstreamError", "Usage", "hold", "hookimpl", "json_line", "rewrite_text",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # The gateway brings Flask, requests and SQLAlchemy with it: a plugin that only names the type does not load them.
    if name == "Gateway":
        from proxy.gateway import Gateway

        return Gateway
    raise AttributeError(f"module 'proxy' has no attribute {name!r}")
