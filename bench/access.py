"""What it costs to know the holder of a signed token, and to hold a request against grants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

BestUs = Callable[..., float]


def tokens(best_us: BestUs) -> Iterable[str]:
    """Yield what tokens cost that are new and that were verified before, by algorithm and size."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from jwt.algorithms import get_default_algorithms

    from proxy.access.tokens.claims import Claims
    from proxy.access.tokens.keys import SigningKeys, parsed
    from proxy.access.tokens.source import Source
    from proxy.access.tokens.verify import Issuer, Tokens

    issuer, now = "https://login.example", int(time.time())
    claims = {"iss": issuer, "aud": "lockgate", "sub": "alice", "exp": now + 3600, "groups": ["Users"]}
    for algorithm, key in (
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ):
        jwk = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)  # type: ignore[call-overload]
        keys = SigningKeys(Source(issuer, algorithms=frozenset([algorithm])), lambda: None)  # type: ignore[arg-type,return-value]
        keys._keys, keys._good = parsed({"keys": [{**jwk, "kid": "k"}]}, keys.source.algorithms), time.monotonic()
        made = Tokens([Issuer(keys, ("lockgate",), Claims(team="groups"))], lambda _: True)
        for size in (0, 11_000):
            token = jwt.encode({**claims, "padding": "x" * size}, key, algorithm, {"kid": "k"})

            def new(token: str = token, made: Tokens = made) -> Any:
                made._verified.clear()
                return made.identify(token)

            fresh = best_us(new, 300)
            known = best_us(lambda token=token, made=made: made.identify(token))
            yield f"{algorithm}, {len(token) / 1024:.1f} KiB: new {fresh:.0f} µs, known {known:.1f} µs"


def access(best_us: BestUs) -> Iterable[str]:
    """Yield what a request costs: its model and its capabilities against those of operator, team and key."""
    from plugins.access import Access
    from proxy.access.capabilities import searches
    from proxy.access.grants import Grants
    from proxy.access.permits import held, permit
    from proxy.exchange import Exchange, Identity

    plugin = Access(Access.Config().load({"models": ["gpt-*"], "n": 4}))
    team = SimpleNamespace(grants={"models": ["gpt-*"], "capabilities": ["tools", "vision"], "max_tokens": 4096})
    gateway = SimpleNamespace(teams=SimpleNamespace(get=lambda name: team))
    own = Identity("k", team="t", grants={"models": ["gpt-5*"], "capabilities": ["tools"]})
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for messages in (1, 100):
        exchange = Exchange("id", "POST", "/", {}, "")
        exchange.model, exchange.model_names = "gpt-5.2", ("gpt-5.2",)
        said = [{"role": "user", "content": "Hello"}] * messages
        exchange.body = {"model": "gpt-5.2", "messages": said, "tools": [tool], "max_tokens": 100, "stream": True}

        def step(exchange: Exchange = exchange, identity: Identity = own, operator: bool = True) -> None:
            grants: Grants = held(identity, gateway)  # type: ignore[arg-type]
            assert grants.model("gpt-5.2")
            searches(exchange.body, exchange.model_names)
            permit(grants, exchange)
            if operator:
                assert plugin.allows_model("gpt-5.2")
                plugin.on_request(exchange)

        bare = best_us(lambda exchange=exchange: step(exchange, Identity("k"), False))
        yield f"{messages} messages: at all three levels {best_us(step):.1f} µs, without grants or plugin {bare:.1f} µs"
