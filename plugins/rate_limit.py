"""Limits requests and tokens a minute and exchanges at once: exactly, over all workers and hosts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from proxy import Claim, Exchange, Rate, Reject, ScopesField, Slots, hookimpl, scoped

if TYPE_CHECKING:
    from proxy import Gateway

KINDS = ("requests_per_minute", "tokens_per_minute", "concurrent")
LARGEST = 2 * 10**9
#: From this share of a limit on operators are told.
NEAR_AT = 0.8
#: Buckets of callers that are remembered; more than these are made anew.
REMEMBERED = 10_000


def _limit(help: str) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=1, max=LARGEST), metadata={"help": help})


class LimitsSchema(Schema):
    """The limits of one scope."""

    requests_per_minute = _limit("requests in a minute")
    tokens_per_minute = _limit("tokens in a minute, of prompts and answers")
    concurrent = _limit("requests at once")
    burst = _limit("requests that may come together; as many as in a minute where it is left out")


class RateLimit:
    """Refuses with 429 what is beyond a limit. What is listed without a scope is for each key.

    A request takes of all its buckets or of none. For tokens the prompt's estimate and all that the answer may have are
    taken before, and what was really used is settled afterwards. What a killed worker had taken stays taken; its
    slots are free again after 10 seconds.
    """

    name = "rate_limit"
    NEAR = "Requests with which at least 80 % of a limit was in use."

    class Config(LimitsSchema):
        """Options."""

        scopes = ScopesField(
            fields.Nested(LimitsSchema),
            load_default=dict,
            metadata={"help": "limits of other scopes: `key`, `team`, `model`, `address`, or several joined by `+`"},
        )
        max_wait = fields.Float(
            validate=validate.Range(min=0, max=60),
            load_default=0.0,
            metadata={"help": "seconds that a request may wait for a limit before it is refused"},
        )
        store_down = fields.String(
            validate=validate.OneOf(("divide", "closed")),
            load_default="divide",
            metadata={
                "help": "while Redis is out of reach: `divide` the limits by workers and hosts, or `closed`: refuse"
            },
        )

    def __init__(self, config: dict[str, Any]) -> None:
        own = {name: config[name] for name in (*KINDS, "burst") if name in config}
        self._scopes: dict[str, dict[str, int]] = {"key": own} | config["scopes"]
        if own and "key" in config["scopes"]:
            self._scopes["key"] = own | config["scopes"]["key"]
        self._max_wait_s = config["max_wait"]
        self._divide = config["store_down"] == "divide"
        self._by_address = any("address" in scope for scope in self._scopes)
        self._plans: dict[Any, Plan] = {}

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._counters = gateway.counters
        # Two of one kind, as of two chains, count for themselves.
        self._own = next((name for name, plugin in gateway.plugins.items() if plugin is self), self.name)
        metrics, labels = gateway.metrics, ("plugin", "kind", "scope")
        self._limited = metrics.counter("lockgate_limited_total", "Requests that a limit refused.", labels)
        self._near = metrics.counter("lockgate_limit_near_total", self.NEAR, labels)
        self._waited = metrics.histogram("lockgate_limit_wait_seconds", "How long requests waited for a limit.")

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        plan = self._plan(exchange)
        if not plan.buckets:
            return
        wants = plan.wants(self._expected(exchange))
        if self._max_wait_s:
            claim = self._in_line(exchange, wants)
        else:
            claim = self._counters.take(wants, exchange, divide=self._divide)
        plan.tell(claim, exchange.response_headers)
        if claim.local:
            exchange.response_headers["x-lockgate-counters"] = "local"
        if claim.refused is not None:
            raise self._refusal(claim)
        for at, state in enumerate(claim.states):
            if state.left <= plan.near[at] and not claim.local:
                self._near.labels(self._own, *_kind_and_scope(plan.buckets[at])).inc()
        exchange.stash[self] = claim, plan

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        taken = exchange.stash.pop(self, None)
        if taken is None:
            return
        claim, plan = taken
        usage = exchange.usage
        # What never reached an upstream, or was answered by a plugin, used none of its tokens.
        used = usage.total_tokens if usage is not None and exchange.attempts else 0
        self._counters.settle(claim, *plan.spent(used))

    def _plan(self, exchange: Exchange) -> Plan:
        """Return the buckets of an exchange; those of a caller and a model are made once."""
        identity, model = exchange.identity, self._gateway.model(exchange.model or "")
        subject = team = None
        own: dict[str, int] = {}
        if identity is not None:
            subject, team = identity.subject, identity.team
            of_team = self._gateway.teams.get(team) if team is not None else None
            if of_team is not None and of_team.limits:
                own |= _own(of_team.limits)
            if identity.limits:
                own |= _own(identity.limits)
        address = exchange.client_address if self._by_address or subject is None else None
        pattern = model.settings.pattern if model else None
        known = (subject, team, pattern, address, *own.items())
        plan = self._plans.get(known)
        if plan is None:
            if len(self._plans) >= REMEMBERED:
                self._plans.clear()
            facts = {"subject": subject, "team": team, "model": pattern, "address": address}
            plan = self._plans[known] = Plan(list(self._buckets(facts, own)))
        return plan

    def _buckets(self, facts: dict[str, Any], own: dict[str, int]) -> Any:
        for scope, configured in self._scopes.items():
            whose = scoped(scope, **facts)
            if whose is None:
                continue
            limits = configured | own if scope == "key" else configured
            requests, tokens, slots = (limits.get(kind) for kind in KINDS)
            if requests is not None:
                # A key's own number is not held to a burst that belongs to another.
                burst = configured.get("burst", 0) if requests == configured.get("requests_per_minute") else 0
                yield Rate(f"{self._own}/requests/{whose}", requests, burst)
            if tokens is not None:
                yield Rate(f"{self._own}/tokens/{whose}", tokens)
            if slots is not None:
                yield Slots(f"{self._own}/concurrent/{whose}", slots)

    def _expected(self, exchange: Exchange) -> int:
        """Return how many tokens the exchange may use, at most."""
        body = exchange.body
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        each = most or self._gateway.settings.estimates.completion_tokens
        return exchange.prompt_estimate + int(each) * int(body.get("n") or 1)

    def _in_line(self, exchange: Exchange, wants: Any) -> Claim:
        team = (exchange.identity and exchange.identity.team) or ""
        longest_s, divide, left = self._max_wait_s, self._divide, exchange.client_left
        claim = self._counters.take_in_line(wants, team, longest_s, exchange, divide=divide, left=left)
        if claim.waited_s:
            exchange.response_headers["x-lockgate-waited"] = f"{claim.waited_s:.3f}"
            self._waited.observe(claim.waited_s)
        return claim

    def _refusal(self, claim: Claim) -> Reject:
        assert claim.refused is not None
        bucket, wanted = claim.wants[claim.refused]
        kind, scope = _kind_and_scope(bucket)
        self._limited.labels(self._own, kind, scope).inc()
        # Tells a limit of Lockgate's own from an upstream's.
        headers = {"x-lockgate-limit": f"{kind}; scope={scope}"}
        if claim.wait_s is None:
            headers |= {"retry-after": "60", "x-should-retry": "false"}
            message = (
                f"The request may use {wanted} tokens, more than the limit of {bucket.limit} tokens a minute: "
                "ask for fewer with max_completion_tokens."
            )
        else:
            headers["retry-after"] = str(max(1, math.ceil(claim.wait_s)))
            what = f"{bucket.limit} {'requests at once' if kind == 'concurrent' else f'{kind} a minute'}"
            message = f"Rate limit reached: {what}, counted by {scope}. Try again in {_duration(claim.wait_s)}."
        type = "tokens" if kind == "tokens" else "requests"
        return Reject(429, "rate_limit_exceeded", message, type=type, headers=headers)


class Plan:
    """The buckets that an exchange takes of, and what is told of them."""

    def __init__(self, buckets: list[Rate | Slots]) -> None:
        self.buckets = buckets
        self._tokens = [(bucket, _kind_and_scope(bucket)[0] == "tokens") for bucket in buckets]
        sizes = [bucket.burst if isinstance(bucket, Rate) else bucket.limit for bucket in buckets]
        self.near = [size - math.ceil(size * NEAR_AT) for size in sizes]
        self._told = []
        for kind in ("requests", "tokens"):
            places = [at for at, bucket in enumerate(buckets) if _kind_and_scope(bucket)[0] == kind]
            names = [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset")]
            if places:
                self._told.append((names, [(at, sizes[at], str(buckets[at].limit)) for at in places]))

    def wants(self, tokens: int) -> list[tuple[Rate | Slots, int]]:
        """Return the buckets with what is wanted of each: so many tokens, and one of everything else."""
        return [(bucket, tokens if counts else 1) for bucket, counts in self._tokens]

    def spent(self, tokens: int) -> list[int]:
        """Return what was used of each bucket, of tokens so many."""
        return [tokens if counts else 1 for _, counts in self._tokens]

    def tell(self, claim: Claim, headers: dict[str, str]) -> None:
        """Set OpenAI's headers, of each kind for the bucket that has the smallest share left."""
        states = claim.states
        for (limit, remaining, reset), places in self._told:
            at, _, most = places[0]
            if len(places) > 1:
                at, _, most = min(places, key=lambda place: states[place[0]].left / place[1])
            state = states[at]
            headers[limit] = most
            headers[remaining] = str(state.left)
            headers[reset] = _duration(state.reset_s)


def _own(limits: Mapping[str, Any]) -> dict[str, int]:
    return {kind: min(limits[kind], LARGEST) for kind in KINDS if kind in limits}


def _kind_and_scope(bucket: Any) -> tuple[str, str]:
    _, kind, whose = bucket.name.split("/", 2)
    return kind, "+".join(part.partition("=")[0] for part in whose.split("+"))


def _duration(seconds: float) -> str:
    """Return a time as OpenAI does, in Go's form: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, ms = divmod(ms, 60_000)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
