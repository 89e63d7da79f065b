"""Lockgate's core. These names are what plugins are written with; everything else may change."""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.access.credentials import wrong_credential
    from proxy.access.grants import CAPABILITIES, Grants
    from proxy.access.permits import permit
    from proxy.access.tokens.schema import TokensSchema
    from proxy.access.tokens.verify import Tokens
    from proxy.config.fields import texts, whole
    from proxy.config.grants import BudgetField, GrantsSchema
    from proxy.counters.buckets import Claim, Rate, Slots, Window
    from proxy.counters.scopes import ScopesField, scoped
    from proxy.counters.windows import zone_of
    from proxy.errors import ConfigError, Reject, UpstreamError
    from proxy.exchange import Attempt, Event, Exchange, Filter, Identity, Outcome, Pause, Reply, Usage
    from proxy.fetching import Fetcher
    from proxy.filters import hold, rewrite_text
    from proxy.fold import Fold
    from proxy.gateway import Gateway
    from proxy.hookspecs import hookimpl
    from proxy.records.contents import ContentStore
    from proxy.records.lines import json_line
    from proxy.records.sinks import OutletField, Sink
    from proxy.redaction.redaction import Redaction
    from proxy.redaction.schema import RedactionSchema
    from proxy.search import Search, SearchResult, SearXNG, take_search
    from proxy.secrets import PathField, Secret, SecretField

__all__ = [
    "Attempt", "BudgetField", "CAPABILITIES", "Claim", "ConfigError", "ContentStore", "Event", "Exchange", "Fetcher",
    "Filter", "Fold", "Gateway", "Grants", "GrantsSchema", "Identity", "Outcome", "OutletField", "PathField", "Pause",
    "Rate", "Redaction", "RedactionSchema", "Reject", "Reply", "ScopesField", "SearXNG", "Search", "SearchResult",
    "Secret", "SecretField", "Sink", "Slots", "Tokens", "TokensSchema", "UpstreamError", "Usage", "Window", "hold",
    "hookimpl", "json_line", "permit", "rewrite_text", "scoped", "take_search", "texts", "whole",
    "wrong_credential", "zone_of",
]  # fmt: skip

_MODULES = {
    "access.credentials": ("wrong_credential",),
    "access.grants": ("CAPABILITIES", "Grants"),
    "access.permits": ("permit",),
    "access.tokens.schema": ("TokensSchema",),
    "access.tokens.verify": ("Tokens",),
    "config.fields": ("texts", "whole"),
    "config.grants": ("BudgetField", "GrantsSchema"),
    "counters.buckets": ("Claim", "Rate", "Slots", "Window"),
    "counters.scopes": ("ScopesField", "scoped"),
    "counters.windows": ("zone_of",),
    "errors": ("ConfigError", "Reject", "UpstreamError"),
    "exchange": ("Attempt", "Event", "Exchange", "Filter", "Identity", "Outcome", "Pause", "Reply", "Usage"),
    "fetching": ("Fetcher",),
    "filters": ("hold", "rewrite_text"),
    "fold": ("Fold",),
    "gateway": ("Gateway",),
    "hookspecs": ("hookimpl",),
    "records.contents": ("ContentStore",),
    "records.lines": ("json_line",),
    "records.sinks": ("OutletField", "Sink"),
    "redaction.redaction": ("Redaction",),
    "redaction.schema": ("RedactionSchema",),
    "search": ("Search", "SearchResult", "SearXNG", "take_search"),
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
