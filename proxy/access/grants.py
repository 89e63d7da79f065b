"""What a caller may use: grants, and how those of the operator, the team, the key and the request come together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

#: What a request can ask for beyond text in and text out. No pattern over models grants any of them.
CAPABILITIES = ("audio", "files", "logprobs", "structured_output", "tools", "vision", "web_search")
#: The windows of a budget.
WINDOWS = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Grants:
    """Grants of one level or of several, one inside the other. `None` means that no level says anything about it.

    `models` has one tuple of names and `*` patterns for each level that has some: a model must fit one of each.
    `parameters` are request parameters beyond OpenAI's own; with `"*"` in it, all. Hashable; compare by value.
    """

    models: tuple[tuple[str, ...], ...] = ()
    capabilities: frozenset[str] | None = None
    max_tokens: int | None = None
    n: int | None = None
    service_tier: frozenset[str] | None = None
    parameters: frozenset[str] | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Grants:
        """Return what one level says: a mapping as `GrantsSchema` loads it, as keys and teams keep it."""
        return cls(
            models=(tuple(said["models"]),) if "models" in said else (),
            capabilities=_set(said.get("capabilities")),
            max_tokens=said.get("max_tokens"),
            n=said.get("n"),
            service_tier=_set(said.get("service_tier")),
            parameters=_set(said.get("parameters")),
        )

    def model(self, name: str) -> bool:
        """Tell whether the model of this name may be used."""
        return all(any(matches(pattern, name) for pattern in level) for level in self.models)

    def capability(self, name: str) -> bool:
        """Tell whether no level withholds a capability."""
        return self.capabilities is None or name in self.capabilities

    def parameter(self, name: str) -> bool:
        """Tell whether no level withholds a request parameter that is not OpenAI's own."""
        return self.parameters is None or name in self.parameters or "*" in self.parameters


#: A level that says nothing.
ALL = Grants()


def narrow(outer: Grants, inner: Grants) -> Grants:
    """Return what both levels grant. The inner one takes away and never adds, whatever it says."""
    return Grants(
        outer.models + inner.models,
        _both(outer.capabilities, inner.capabilities),
        _least(outer.max_tokens, inner.max_tokens),
        _least(outer.n, inner.n),
        _both(outer.service_tier, inner.service_tier),
        _both(_named(outer.parameters), _named(inner.parameters)),
    )


def matches(pattern: str, name: str) -> bool:
    """Tell whether a model's name fits a pattern, in which only `*` is special: any text, also none."""
    return pattern == name if "*" not in pattern else _compiled(pattern).fullmatch(name) is not None


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _set(names: Any) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _named(parameters: frozenset[str] | None) -> frozenset[str] | None:
    # "All of them" withholds nothing, as if nothing were said.
    return None if parameters is not None and "*" in parameters else parameters


def _both(outer: frozenset[str] | None, inner: frozenset[str] | None) -> frozenset[str] | None:
    return inner if outer is None else outer if inner is None else outer & inner


def _least(outer: int | None, inner: int | None) -> int | None:
    return inner if outer is None else outer if inner is None else min(outer, inner)
