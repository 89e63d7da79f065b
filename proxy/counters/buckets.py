"""What is counted: rates, calendar windows and slots, and a claim on several of them at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.counters.patience import Patience

#: The most that a rate allows a minute or at once. Its level is kept in 60,000ths, which Redis' scripts, whose numbers
#: are doubles, count exactly up to 2**53.
LARGEST_RATE = 2 * 10**9
#: The most that a window or an amount can hold: micro-dollars for 4.5 billion dollars, exact in a double.
LARGEST = 2**52
LONGEST_NAME = 400  # bytes; LMDB takes keys of up to 511
EVERY = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` a minute, `burst` at once (the limit, where it is 0): what is spent comes back evenly.

    `name` says whose it is, for all workers alike. An amount above `burst` is never granted.
    """

    name: str
    limit: int
    burst: int = 0
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "burst", self.burst or self.limit)
        _check(self.limit, LARGEST_RATE)
        _check(self.burst, LARGEST_RATE)
        object.__setattr__(self, "key", _key(b"r", self.name))


@dataclass(frozen=True, slots=True)
class Window:
    """`limit` in each day, week (from Monday) or month of the time zone `zone`. A `soft` one counts and never refuses.

    The amount belongs to the window in which it was taken, also when it is settled after that has ended.
    """

    name: str
    limit: int
    every: str
    zone: str = "UTC"
    soft: bool = False
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every not in EVERY:
            raise ValueError(f"a window is a {', a '.join(EVERY)}, not {self.every!r}")
        _check(self.limit, LARGEST)
        object.__setattr__(self, "key", _key(b"w", self.name) + b"/" + self.every.encode())


@dataclass(frozen=True, slots=True)
class Slots:
    """`limit` at the same time. A slot that is neither released nor renewed is free again after `term_s` seconds."""

    name: str
    limit: int
    term_s: float = 10.0
    key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.limit, LARGEST_RATE)
        object.__setattr__(self, "key", _key(b"s", self.name))


Bucket = Rate | Window | Slots
Want = tuple[Bucket, int]
"""A bucket and how much is wanted of it; of slots it is always one."""


@dataclass(slots=True)
class State:
    """What a bucket holds after a claim: how much is `left`, and in how many seconds it is full, or begins anew."""

    left: int
    reset_s: float


@dataclass(slots=True)
class Claim:
    """A wish for amounts of several buckets, all granted or none.

    Where it was refused, `refused` is the position of the bucket that takes longest, and `wait_s` in how many seconds
    it would grant if nobody else took of it; `None` is never. `local` says that this worker counted by itself,
    because the store is out of reach, `waited_s` how long it stood in line, `patience` how long its exchange waits for
    a store on another machine. The rest is for the store.
    """

    id: bytes
    wants: Sequence[Want]
    states: list[State]
    refused: int | None = None
    wait_s: float | None = 0.0
    places: list[tuple[bytes, int]] = field(default_factory=list)
    local: bool = False
    waited_s: float = 0.0
    settled: bool = False
    patience: Patience | None = None

    @property
    def granted(self) -> bool:
        """Whether the amounts were taken."""
        return self.refused is None


Settled = tuple[Claim, Sequence[int]]
"""A claim and what was spent of it, want by want."""


@dataclass(frozen=True, slots=True)
class Status:
    """One bucket as it lies in the store, for people. `kind` is `rate`, `window` or `slots`; `ends` of a window.

    Redis does not know the limit of slots.
    """

    kind: str
    name: str
    used: int
    limit: int | None = None
    burst: int | None = None
    ends: float | None = None


def amount(value: int) -> int:
    """Return an amount that can be counted: not below 0, not above what a double holds."""
    return 0 if value < 0 else min(value, LARGEST)


def _check(limit: int, largest: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= largest:
        raise ValueError(f"a limit is a whole number from 1 to {largest}, not {limit!r}")


def _key(kind: bytes, name: str) -> bytes:
    raw = name.encode("utf-8", "surrogatepass")
    if len(raw) > LONGEST_NAME:
        raw = raw[: LONGEST_NAME - 33] + b"~" + hashlib.blake2b(raw, digest_size=16).hexdigest().encode()
    return kind + raw
