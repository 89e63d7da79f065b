"""Lets callers in by API key, `Authorization: Bearer lg_…`, from the keys that `lockgate keys` manages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import Exchange, Identity, Reject, hookimpl, wrong_credential

if TYPE_CHECKING:
    from proxy import Gateway

PREFIX = "lg_"
#: An imported key may look like anything but is never longer than this, as signed tokens are.
LONGEST = 128
NO_TEAM = "The team of this API key does not exist any more. Ask the people who run this gateway."


class ApiKeys:
    """Accepts a live key. Any other token that begins like a key is refused; one that does not is left to others."""

    name = "api_keys"

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self._keys = gateway.keys
        self._teams = gateway.teams

    @hookimpl
    def authenticate(self, exchange: Exchange) -> Identity | None:
        token = exchange.credential
        if token is None:
            return None
        ours = token.startswith(PREFIX)
        identity = self._keys.find(token) if ours or len(token) <= LONGEST else None
        if identity is None:
            if not ours:
                return None
            raise wrong_credential()
        if identity.team is not None and self._teams.get(identity.team) is None:
            # Whoever holds the key may know.
            raise Reject(403, "unknown_team", NO_TEAM)
        return identity
