"""What tokens cost: the table that is shipped, the configuration's own prices, and the cost of an exchange."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from proxy.exchange import Usage

if TYPE_CHECKING:
    from proxy.settings import ProviderSettings, Settings

#: Prices are kept in whole pico-dollars, so that sums are exact; costs are whole micro-dollars.
PICO = 10**6
#: Models that clients name freely are looked up once each, as long as there are not more than this.
REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars for a token of each kind, for a request and for a search of the web.

    What is `None` costs what it is a part of: cached, cache-writing and sound input as input, reasoning and sound
    output as output. A prompt of more than `long_above` tokens is priced, and its answer, by `long`.
    """

    input: int = 0
    output: int = 0
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    request: int = 0
    search: int = 0
    long_above: int | None = None
    long: Price | None = None

    def cost(self, usage: Usage, searches: int = 0) -> int:
        """Return what an exchange costs in micro-dollars: summed exactly, then rounded once, half up."""
        if self.long is not None and self.long_above is not None and usage.prompt_tokens > self.long_above:
            return self.long.cost(usage, searches)
        total = self.request + self.search * (searches + usage.searches)
        if usage.cached_tokens or usage.cache_write_tokens or usage.reasoning_tokens or usage.audio_tokens:
            total += self._parts(usage)
        else:
            total += usage.prompt_tokens * self.input + usage.completion_tokens * self.output
        return (total + PICO // 2) // PICO

    def _parts(self, usage: Usage) -> int:
        """Price kinds of tokens, which are parts of their wholes whatever they add up to."""
        audio_out = min(usage.audio_completion_tokens, usage.audio_tokens)
        prompt = _split(
            usage.prompt_tokens,
            self.input,
            (usage.cached_tokens, self.cached_input),
            (usage.cache_write_tokens, self.cache_write),
            (usage.audio_tokens - audio_out, self.audio_input),
        )
        completion = _split(
            usage.completion_tokens,
            self.output,
            (usage.reasoning_tokens, self.reasoning),
            (audio_out, self.audio_output),
        )
        return prompt + completion


@dataclass(frozen=True, slots=True)
class Shelf:
    """What one vendor charges: prices by model pattern, the page that says so, and the day they were compared."""

    vendor: str
    source: str
    dated: str
    kinds: tuple[str, ...]
    hosts: tuple[str, ...]
    models: dict[str, Price]

    def sells(self, provider: ProviderSettings) -> bool:
        """Return whether a configured provider's upstream is this vendor's own."""
        url = (provider.options or {}).get("base_url")
        if isinstance(url, str):
            return urlsplit(url).hostname in self.hosts
        return provider.use in self.kinds


class Prices:
    """The prices of all targets; made once per worker.

    The configuration's `[prices."PROVIDER/MODEL"]` go before the shipped table; in each, the exact name before
    patterns, and of these the longest. The shipped table counts for a vendor's own hosts alone: a model of the same
    name elsewhere has no price until the configuration says one.
    """

    def __init__(self, settings: Settings, shelves: Iterable[Shelf] | None = None) -> None:
        own = {name: priced(said) for name, said in settings.prices.items()}
        self._own = _Patterns(own)
        shelves = shipped() if shelves is None else shelves
        self._vendors = {
            name: [_Patterns(shelf.models) for shelf in shelves if shelf.sells(provider)]
            for name, provider in settings.providers.items()
        }
        self._found: dict[tuple[str, str | None], Price | None] = {}

    def find(self, target_label: str, model: str | None) -> Price | None:
        """Return the price of a target, `PROVIDER` or `PROVIDER/MODEL`; `model` is what the client named."""
        key = (target_label, model)
        try:
            return self._found[key]
        except KeyError:
            pass
        provider, slash, named = target_label.partition("/")
        name = named if slash else model or ""
        price = self._own.find(f"{provider}/{name}")
        for patterns in self._vendors.get(provider, ()) if price is None else ():
            price = patterns.find(name)
            if price is not None:
                break
        if len(self._found) < REMEMBERED:
            self._found[key] = price
        return price

    def cost(self, target_label: str, model: str | None, usage: Usage, searches: int = 0) -> int | None:
        """Return what an exchange cost in micro-dollars, `None` where no price is known.

        `searches` are those that `usage` does not count.
        """
        price = self.find(target_label, model)
        return None if price is None else price.cost(usage, searches)

    def estimate(
        self, targets: Iterable[Any], prompt_tokens: int, completion_tokens: int, model: str | None = None
    ) -> int | None:
        """Return what the most expensive of the targets would charge, in micro-dollars; `None` where none has a price.

        `targets` are labels, or have a `label`.
        """
        usage, most = Usage(prompt_tokens, completion_tokens), None
        for target in targets:
            price = self.find(getattr(target, "label", target), model)
            if price is not None:
                most = max(most or 0, price.cost(usage))
        return most


def shipped() -> list[Shelf]:
    """Read the table that comes with the package."""
    text = files("proxy.costs").joinpath("prices.toml").read_text("utf-8")
    return [
        Shelf(
            vendor,
            said["source"],
            said["dated"].isoformat(),
            tuple(said["kinds"]),
            tuple(said.get("hosts", ())),
            {pattern: priced(price) for pattern, price in said["models"].items()},
        )
        for vendor, said in tomllib.loads(text, parse_float=Decimal).items()
    ]


#: Keys of a price that are for a million tokens, and those that are for one each; all in dollars.
TOKENS = ("input", "cached_input", "cache_write", "output", "reasoning", "audio_input", "audio_output")
EACH = ("request", "search")


def priced(said: Mapping[str, Any]) -> Price:
    """Return a price from its table in the file, in dollars; its `long` says only what differs."""
    price = Price(**_rates(said))
    if said.get("long") is not None:
        price = replace(price, long_above=said["long_above"], long=replace(price, **_rates(said["long"])))
    return price


def in_dollars(price: Price) -> dict[str, float]:
    """Return a price in dollars, as the file says it, without what is charged as something else."""
    rates = {name: getattr(price, name) for name in (*TOKENS, *EACH)}
    unit = {name: PICO if name in TOKENS else PICO**2 for name in rates}
    return {name: rate / unit[name] for name, rate in rates.items() if rate is not None and (rate or name == "input")}


def _rates(said: Mapping[str, Any]) -> dict[str, Any]:
    """A dollar for a million tokens is a micro-dollar for each."""
    # str: a float means what was written, 0.1, not the binary number that is nearest to it.
    tokens = {name: int(Decimal(str(said[name])) * PICO) for name in TOKENS if said.get(name) is not None}
    return tokens | {name: int(Decimal(str(said[name])) * PICO**2) for name in EACH if said.get(name) is not None}


def _split(whole: int, rate: int, *parts: tuple[int, int | None]) -> int:
    """Price a number of tokens of which some are of kinds with a price of their own."""
    total, left = 0, whole
    for tokens, own in parts:
        tokens = min(tokens, left)
        if own is not None:
            total += tokens * own
            left -= tokens
    return total + left * rate


class _Patterns:
    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._exact = {name: price for name, price in prices.items() if "*" not in name}
        by_length = sorted((name for name in prices if "*" in name), key=len, reverse=True)
        self._patterns = [(re.compile(".*".join(map(re.escape, name.split("*")))), prices[name]) for name in by_length]

    def find(self, name: str) -> Price | None:
        exact = self._exact.get(name)
        if exact is not None:
            return exact
        return next((price for pattern, price in self._patterns if pattern.fullmatch(name)), None)
