"""Lets callers in by the company's own tokens: `Authorization: Bearer eyJ…`, signed by one of the issuers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy import Exchange, Identity, TokensSchema, hookimpl

if TYPE_CHECKING:
    from proxy import Gateway, Tokens

#: How long a worker's start waits for the first keys; it then starts without them, and tokens get a 503.
WAIT_S = 2.0


class Jwt:
    """Accepts tokens that a configured issuer signed for this audience; what is none of theirs is left to others."""

    name = "jwt"
    Config = TokensSchema

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._tokens: Tokens | None = None

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        # Here: what checks signatures takes 0.1 s to import, which only those who use it shall pay.
        from proxy import Tokens

        if any(issuer["team"] or issuer["default_team"] for issuer in self._config["issuers"]):
            _ = gateway.teams  # read now, not at the first request
        self._tokens = Tokens.configured(self._config, gateway.http, lambda name: gateway.teams.get(name) is not None)
        self._tokens.start(WAIT_S)

    @hookimpl
    def on_stop(self) -> None:
        if self._tokens is not None:
            self._tokens.stop()

    @hookimpl
    def authenticate(self, exchange: Exchange) -> Identity | None:
        token = exchange.credential
        return self._tokens.identify(token) if token is not None and self._tokens is not None else None
