"""Holds callers to a budget: what an exchange may cost is set aside before, what it did cost is counted after."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError, fields, validate

from proxy import BudgetField, Claim, Exchange, Reject, ScopesField, Window, hookimpl, scoped, zone_of

if TYPE_CHECKING:
    from proxy import Gateway

log = logging.getLogger("lockgate.budget")

MICRO = 1_000_000
#: From this share of a budget on callers are told.
WARN_AT = 0.8
#: Windows of callers that are remembered; more than these are made anew.
REMEMBERED = 10_000


class ZoneField(fields.String):
    """The name of a time zone of the system's database."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = str(super()._deserialize(value, attr, data, **kwargs))
        try:
            zone_of(name)
        except ValueError as failure:
            raise ValidationError(f"{failure}: a name such as Europe/Berlin") from None
        return name


class Budget:
    """Refuses with 429 what a hard budget has no room for, or warns of a soft one. `budget` is for each key.

    What an upstream does not charge for is given back. What a killed worker had set aside stays spent.
    """

    name = "budget"
    NEAR = "Requests with which at least 80 % of a budget was used."

    class Config(Schema):
        """Options."""

        budget = BudgetField(metadata={"help": 'what each key may spend: `{ usd = 50, window = "month" }`'})
        scopes = ScopesField(
            BudgetField(),
            load_default=dict,
            metadata={"help": "budgets of other scopes: `key`, `team`, `model`, `address`, or several joined by `+`"},
        )
        soft = fields.Boolean(
            truthy={True}, falsy={False}, load_default=False, metadata={"help": "count and warn, and refuse nothing"}
        )
        zone = ZoneField(
            load_default="UTC", metadata={"help": "the time zone in which days, weeks and months begin at midnight"}
        )
        unpriced = fields.String(
            validate=validate.OneOf(("refuse", "free", "flag")),
            load_default="refuse",
            metadata={"help": "what a model without a price is: `refuse`d, `free`, or `flag`ged: free, with a header"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        own = {"key": config["budget"]} if "budget" in config else {}
        self._scopes: dict[str, dict[str, Any] | None] = {"key": None} | own | config["scopes"]
        self._soft = config["soft"]
        self._zone = config["zone"]
        self._unpriced = config["unpriced"]
        self._by_address = any("address" in scope for scope in self._scopes)
        self._known: dict[Any, list[Window]] = {}
        self._flagged: set[str | None] = set()

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._counters = gateway.counters
        self._own = next((name for name, plugin in gateway.plugins.items() if plugin is self), self.name)
        metrics = gateway.metrics
        labels = ("plugin", "scope")
        self._refused = metrics.counter("lockgate_budget_refused_total", "Requests that a budget refused.", labels)
        self._near = metrics.counter("lockgate_budget_near_total", self.NEAR, labels)

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        windows = self._windows_of(exchange)
        if not windows:
            return
        expected = exchange.cost_estimate
        if expected is None:
            self._without_price(exchange)
            expected = 0
        if self._soft:
            # Nothing is refused, so no absurd expectation may crowd out what was counted: a count is bounded.
            wants = [(window, min(expected, window.limit)) for window in windows]
        else:
            wants = [(window, expected) for window in windows]
        claim = self._counters.take(wants, exchange, divide=self._soft)
        if claim.local:
            exchange.response_headers["x-lockgate-counters"] = "local"
        if claim.refused is not None:
            raise self._refusal(claim)
        self._warn(exchange, claim)
        exchange.stash[self] = claim

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        claim = exchange.stash.pop(self, None)
        if claim is None:
            return
        cost = exchange.cost
        if cost is None and exchange.cost_estimate is not None:
            # The target that answered has no price, unlike another of its model: what was set aside is spent.
            self._note(exchange)
            cost = claim.wants[0][1]
        self._counters.settle(claim, *[cost or 0] * len(claim.wants))

    def windows(
        self,
        own: str,
        *,
        subject: str | None,
        team: str | None,
        model: str | None,
        address: str | None,
        budget: dict[str, Any] | None = None,
    ) -> list[Window]:
        """Return the windows against which an exchange counts, where this instance is configured as `own`.

        `model` is the name in the configuration, `budget` that of the key, or else of its team.
        """
        found = []
        for scope, configured in self._scopes.items():
            limit = budget if scope == "key" and budget is not None and subject is not None else configured
            whose = scoped(scope, subject=subject, team=team, model=model, address=address)
            if limit is not None and whose is not None:
                name = f"{own}/budget/{whose}"
                found.append(Window(name, limit["amount"], limit["window"], self._zone, self._soft))
        return found

    def _windows_of(self, exchange: Exchange) -> list[Window]:
        """Return the windows of an exchange; those of a caller and a model are made once."""
        identity, model = exchange.identity, self._gateway.model(exchange.model or "")
        subject = team = budget = None
        if identity is not None:
            subject, team, budget = identity.subject, identity.team, identity.limits.get("budget")
            if budget is None and team is not None:
                of_team = self._gateway.teams.get(team)
                budget = of_team.limits.get("budget") if of_team is not None else None
        pattern = model.settings.pattern if model else None
        address = exchange.client_address if self._by_address or subject is None else None
        known = (subject, team, pattern, address, budget and (budget["amount"], budget["window"]))
        found = self._known.get(known)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[known] = self.windows(
                self._own, subject=subject, team=team, model=pattern, address=address, budget=budget
            )
        return found

    def _without_price(self, exchange: Exchange) -> None:
        if self._unpriced == "refuse":
            raise Reject(
                403,
                "model_unpriced",
                "This model has no price, so it cannot be used with a budget. Ask the people who run this gateway.",
                param="model",
            )
        self._note(exchange)

    def _note(self, exchange: Exchange) -> None:
        exchange.findings[f"{self._own}.unpriced"] = exchange.findings.get(f"{self._own}.unpriced", 0) + 1
        if self._unpriced == "flag":
            exchange.response_headers["x-lockgate-unpriced"] = "true"
            model = self._gateway.model(exchange.model or "")
            pattern = model.settings.pattern if model else None
            if pattern not in self._flagged:
                self._flagged.add(pattern)
                log.warning("%s: the model %r has no price: what it costs counts in no budget", self._own, pattern)

    def _refusal(self, claim: Claim) -> Reject:
        assert claim.refused is not None
        window, wanted = claim.wants[claim.refused]
        assert isinstance(window, Window)
        scope = _scope(window)
        self._refused.labels(self._own, scope).inc()
        headers = {"x-lockgate-limit": f"budget; scope={scope}", "x-should-retry": "false"}
        amount = f"{window.limit / MICRO:.2f} USD a {window.every}, counted by {scope}"
        if claim.wait_s is None:
            message = f"The request may cost {wanted / MICRO:.6f} USD, more than the whole budget of {amount}."
        else:
            begins = datetime.fromtimestamp(datetime.now(UTC).timestamp() + claim.wait_s, UTC)
            message = f"The budget of {amount}, is used up. It begins anew at {begins:%Y-%m-%dT%H:%M}Z."
            headers["retry-after"] = str(max(1, int(claim.wait_s) + 1))
        return Reject(429, "insufficient_quota", message, type="insufficient_quota", headers=headers)

    def _warn(self, exchange: Exchange, claim: Claim) -> None:
        most = 0.0
        for (window, _), state in zip(claim.wants, claim.states, strict=True):
            used = 1 - state.left / window.limit
            if used >= WARN_AT:
                scope = _scope(window)
                self._near.labels(self._own, scope).inc()
                if used >= most:
                    most = used
                    exchange.response_headers["x-lockgate-budget"] = f"{used:.0%}; scope={scope}"


def _scope(window: Any) -> str:
    return "+".join(part.partition("=")[0] for part in window.name.split("/", 2)[2].split("+"))
