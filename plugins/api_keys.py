"""Lets callers in by API key, `Authorization: Bearer lg_…`, from the keys that `lockgate keys` manages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import Exchange, Identity, Reject, hookimpl

if TYPE_CHECKING:
    from proxy import Gateway

PREFIX = "lg_"
REFUSAL = "Incorrect API key provided. Ask the people who run this gateway for a valid one."


class ApiKeys:
    """Accepts a live key. Any other token that begins like a key is refused; one that does not is left to others."""

    name = "api_keys"

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self._keys = gateway.keys

    @hookimpl
    def authenticate(self, exchange: Exchange) -> Identity | None:
        token = exchange.credential
        if token is None or not token.startswith(PREFIX):
            return None
        identity = self._keys.find(token)
        if identity is None:
            # One text for every reason, and without the token: what is refused may be a live key with one typo.
            raise Reject(401, "invalid_api_key", REFUSAL, headers={"www-authenticate": "Bearer"})
        return identity
