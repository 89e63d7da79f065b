"""Which hosts are reached without the proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def bypasses(host: str, rules: Iterable[str]) -> bool:
    """Return whether a host is reached without the proxy: by name, domain, address, network, or `*`."""
    return any(_matches(host.rstrip(".").lower(), rule.strip("[]").lower()) for rule in rules)


def _matches(host: str, rule: str) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name = rule.removeprefix("*").lstrip(".")
        return host == name or host.endswith("." + name)
