"""What clients name: the models, each with its chain of plugins and its targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy.chain import Chain
from proxy.routing import Breaker, Target
from proxy.settings import Connection, ModelSettings
from proxy.upstreams.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Connected:
    """A provider, and the upstream that speaks its dialect."""

    provider: Any
    upstream: Upstream
    connection: Connection


class Model:
    """What clients name: its chain, its targets in order, and the parameters beyond OpenAI's that callers may set."""

    def __init__(self, settings: ModelSettings, chain: Chain, targets: list[Target]) -> None:
        self.settings = settings
        self.chain = chain
        self.targets = targets
        self.parameters = frozenset(settings.parameters) | frozenset.intersection(
            *(frozenset(target.provider.parameters) for target in targets)
        )

    def names(self, name: str) -> tuple[str, ...]:
        """Return what its upstreams may be asked for where the client names it `name`."""
        return tuple(dict.fromkeys(target.model or name for target in self.targets))


class Models(dict[str, Model]):
    """The models by their names and patterns, in the order of the configuration."""

    def __init__(
        self,
        settings: Mapping[str, ModelSettings],
        providers: Mapping[str, Connected],
        chain: Callable[[tuple[str, ...] | None], Chain],
    ) -> None:
        """`chain` returns the one of these plugins, and for `None` the gateway's own."""
        super().__init__()
        breakers: dict[str, Breaker] = {}
        for pattern, own in settings.items():
            targets = []
            for target in own.targets:
                at = providers[target.provider]
                label = target.provider if target.model is None else f"{target.provider}/{target.model}"
                timeouts = replace(at.connection.timeouts, **own.timeouts)
                # Models that share a target share what is known of it.
                sparing = at.connection.breaker
                breaker = breakers.setdefault(label, Breaker(sparing.failures, sparing.open))
                targets.append(Target(label, at.provider, at.upstream, target.model, timeouts, breaker, target.weight))
            self[pattern] = Model(own, chain(own.chain), targets)
        by_length = sorted((pattern for pattern in self if "*" in pattern), key=len, reverse=True)
        self._patterns = [(re.compile(".*".join(map(re.escape, each.split("*")))), self[each]) for each in by_length]

    def named(self, name: str) -> Model | None:
        """Return the model that `name` means: the exact one, else that of the longest pattern that matches."""
        exact = self.get(name)
        if exact is not None:
            return exact if "*" not in name else None
        return next((model for pattern, model in self._patterns if pattern.fullmatch(name)), None)
