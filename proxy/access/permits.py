"""What grants allow of one request: a refusal names what is missing before any upstream is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.access import capabilities
from proxy.access.grants import ALL, Grants, narrow
from proxy.errors import Reject
from proxy.request import violations
from proxy.request.schemas import CHAT_PARAMETERS

if TYPE_CHECKING:
    from proxy.exchange import Exchange, Identity
    from proxy.gateway import Gateway

#: What callers see where a request asks for more than it may.
CODE = "capability_not_allowed"


def held(identity: Identity | None, gateway: Gateway) -> Grants:
    """Return what a caller's team and its key or token grant together."""
    if identity is None:
        return ALL
    own = Grants.of(identity.grants) if identity.grants else ALL
    if identity.team is None:  # without teams nobody needs the database that they are in
        return own
    team = gateway.teams.get(identity.team)
    return narrow(Grants.of(team.grants), own) if team is not None and team.grants else own


def permit(grants: Grants, exchange: Exchange) -> None:
    """Raise `Reject` (403) where the request asks for what the grants do not hold.

    Where they bound the length of answers and the request does not, the bound is put into it.
    """
    if grants is ALL:
        return
    body = exchange.body
    if grants.capabilities is not None:
        for name, parameter in capabilities.asked(body, exchange.model_names).items():
            if not grants.capability(name):
                raise denied(name, parameter, exchange)
    if grants.parameters is not None:
        for name in body:
            if name not in CHAT_PARAMETERS and not grants.parameter(name):
                raise denied("unknown_parameters", name, exchange)
    if grants.n is not None and (body.get("n") or 1) > grants.n:
        raise denied("n", "n", exchange, f": at most {grants.n}")
    tier = body.get("service_tier")
    if grants.service_tier is not None and tier is not None and tier not in grants.service_tier:
        raise denied("service_tier", "service_tier", exchange, f": one of {', '.join(sorted(grants.service_tier))}")
    if grants.max_tokens is not None:
        _bound(body, grants.max_tokens, exchange)


def denied(capability: str, parameter: str, exchange: Exchange, bound: str = "") -> Reject:
    """Return the refusal of a capability that the caller, or the model here, does not have."""
    model = (exchange.model or "")[:100]
    message = f"You may not use '{capability}' with the model '{model}' here{bound}."
    return Reject(403, CODE, message, param=violations.shortened(parameter))


def _bound(body: dict[str, object], most: int, exchange: Exchange) -> None:
    stated = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    for name in stated:
        value = body[name]
        assert isinstance(value, int)
        if value > most:
            raise denied("max_tokens", name, exchange, f": at most {most}")
    if not stated:
        body["max_completion_tokens"] = most
