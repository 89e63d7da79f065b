"""Whose buckets an exchange counts against: its key, team, model or address, or several of these together."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from marshmallow import ValidationError, fields

PARTS = ("key", "team", "model", "address")


class ScopeField(fields.Field[str]):
    """A scope: one of `key`, `team`, `model` and `address`, or several joined by `+`. Loads in that order."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        parts = value.split("+") if isinstance(value, str) else [""]
        if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
            raise ValidationError(f"unknown scope {value!r}: made of {', '.join(PARTS)}, joined by +")
        return "+".join(part for part in PARTS if part in parts)


class ScopesField(fields.Dict):
    """A table by scope. The same scope in two orders is a mistake: one of them would not count."""

    def __init__(self, values: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(keys=ScopeField(), values=values, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        loaded = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        seen: dict[frozenset[str], str] = {}
        for scope in value:
            other = seen.setdefault(frozenset(scope.split("+")), scope)
            if other is not scope:
                raise ValidationError(f"{other!r} and {scope!r} are the same scope")
        return loaded


def scoped(scope: str, *, subject: str | None, team: str | None, model: str | None, address: str | None) -> str | None:
    """Return the name of a scope's bucket, such as `key=7fa2+model=gpt-*`; `None` where the exchange is not in it.

    `model` is the name in the configuration, for a pattern stands for any number of names. A caller without a key
    counts by the address, and an IPv6 address by its network of 64 bits, of which one caller has all.
    """
    values = {"key": subject, "team": team, "model": model, "address": _network(address)}
    names = []
    for part in scope.split("+"):
        if part == "key" and subject is None:
            # Not `address`: that scope has a bucket of its own, and no claim may have one bucket twice.
            part, value = "keyless", values["address"]
        else:
            value = values[part]
        if not value:
            return None
        names.append(f"{part}={quote(value, safe=':*.')}")
    return "+".join(names)


def _network(address: str | None) -> str | None:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
