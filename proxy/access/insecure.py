"""Who may call a gateway without authentication: this machine."""

from __future__ import annotations

import re

from proxy.errors import Reject
from proxy.exchange import Exchange

#: Headers that a proxy in front would add.
FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
LOOPBACK = re.compile(r"(?:https?://)?(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?")


def check(exchange: Exchange) -> None:
    """Raise `Reject` for what may come from elsewhere.

    A page from elsewhere in a browser of this machine shows itself by its origin, or by the host that it asked for.
    """
    headers = exchange.headers
    forwarded = any(name in FORWARDED or name.startswith("x-forwarded") for name in headers)
    asked = [headers[name] for name in ("host", "origin") if name in headers]
    if forwarded or not all(LOOPBACK.fullmatch(text) for text in asked):
        raise Reject(403, "insecure_gateway", "This gateway has no authentication and serves this machine alone.")
