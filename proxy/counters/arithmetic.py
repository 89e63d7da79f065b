"""The counting itself, over any map of bytes to bytes within one transaction; the embedded stores share it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from proxy.counters.buckets import LARGEST, Claim, Rate, Settled, Slots, State, Status, Window
from proxy.counters.windows import window

#: The unit of a rate's level: one in 60,000, so that `limit` comes back in each millisecond, without any rounding.
MINUTE_MS = 60_000
#: How long a window's count is kept after its end, in seconds: a clock that is set back must find it again.
KEPT_S = 3 * 86400
#: What was used beyond a rate's burst is owed, up to an hour of the limit: no wrong usage shuts a caller out for good.
OWED_MINUTES = 60
NEVER = float("inf")
#: Nobody knows when a slot becomes free.
SLOT_WAIT_S = 1.0

_RATE = struct.Struct("<qqqq")  # level in 60,000ths, when in ms, limit, burst
_WINDOW = struct.Struct("<qqq")  # used, limit, end in s
_SLOTS = struct.Struct("<qq")  # limit, term in ms
_LEASE = struct.Struct("<16sq")  # id, when it expires in ms


class Records(Protocol):
    """One transaction."""

    def get(self, key: bytes, /) -> bytes | None:
        """Return a value."""

    def put(self, key: bytes, value: bytes, /) -> Any:
        """Set a value."""

    def delete(self, key: bytes, /) -> Any:
        """Remove a value."""


def take(records: Records, claim: Claim, now_ms: int, wall_s: float) -> None:
    """Take what `claim` wants, all or nothing; note the states, or which bucket refuses and for how long.

    `now_ms` comes from a clock that nobody sets, `wall_s` from the one that people set, for the calendar.
    """
    get, writes, before, states, places = records.get, [], [], claim.states, claim.places
    waits: list[tuple[float, int]] = []
    for at, (bucket, amount) in enumerate(claim.wants):
        if type(bucket) is Rate:
            key, limit, burst = bucket.key, bucket.limit, bucket.burst
            raw, level, capacity = get(key), 0, burst * MINUTE_MS
            if raw is not None:
                level, at_ms, _, _ = _RATE.unpack(raw)
                if at_ms <= now_ms:
                    level -= (now_ms - at_ms) * limit
                    if level < 0:
                        level = 0
                else:
                    # The clock was set back: what comes back is counted from now on, also if what follows is refused.
                    records.put(key, _RATE.pack(level, now_ms, limit, burst))
            before.append(level)
            after = level + amount * MINUTE_MS
            if after > capacity:
                waits.append((NEVER if amount > burst else -(-(after - capacity) // limit) / 1000, at))
            else:
                level = after
            value = _RATE.pack(level, now_ms, limit, burst)
            states.append(State((capacity - level) // MINUTE_MS if level < capacity else 0, level / limit / 1000))
            places.append((key, 0))
        elif type(bucket) is Window:
            label, _, end = window(bucket.every, bucket.zone, wall_s)
            key, limit = bucket.key + label, bucket.limit
            raw = get(key)
            used = _WINDOW.unpack(raw)[0] if raw else 0
            before.append(used)
            if used + amount > limit and not bucket.soft:
                waits.append((NEVER if amount > limit else end - wall_s, at))
            else:
                used = min(used + amount, LARGEST)
            value = _WINDOW.pack(used, limit, int(end))
            states.append(State(limit - used if used < limit else 0, end - wall_s))
            places.append((key, int(end)))
        else:
            assert type(bucket) is Slots
            key, limit, term_ms = bucket.key, bucket.limit, int(bucket.term_s * 1000)
            leases = (get(key) or b"")[_SLOTS.size :]
            taken = len(leases) // _LEASE.size
            if taken >= limit:
                leases = _live(leases, now_ms)
                taken = len(leases) // _LEASE.size
            before.append(taken)
            if taken >= limit:
                waits.append((SLOT_WAIT_S, at))
            else:
                leases += _LEASE.pack(claim.id, now_ms + term_ms)
                taken += 1
            value = _SLOTS.pack(limit, term_ms) + leases
            states.append(State(max(0, limit - taken), bucket.term_s))
            places.append((key, 0))
        writes.append((key, value))
    if waits:
        wait_s, claim.refused = max(waits)
        claim.wait_s = None if wait_s == NEVER else wait_s
        for (bucket, _), state, found in zip(claim.wants, claim.states, before, strict=True):
            if type(bucket) is Rate:
                state.left = max(0, bucket.burst * MINUTE_MS - found) // MINUTE_MS
                state.reset_s = found / bucket.limit / 1000
            else:
                state.left = max(0, bucket.limit - found)
        return
    put = records.put
    for key, value in writes:
        put(key, value)


def settle(records: Records, settled: Sequence[Settled], now_ms: int) -> None:
    """Count what was spent instead of what was taken, and release the slots."""
    for claim, spent in settled:
        for (bucket, amount), (key, end), actual in zip(claim.wants, claim.places, spent, strict=True):
            difference = actual - amount
            if type(bucket) is Slots:
                held = records.get(key) or b""
                at = held.find(claim.id, _SLOTS.size)
                if at >= 0:
                    _put_leases(records, key, held[: _SLOTS.size], held[_SLOTS.size : at] + held[at + _LEASE.size :])
            elif difference and type(bucket) is Rate:
                limit, burst = bucket.limit, bucket.burst
                level = _level(records.get(key), limit, now_ms) + difference * MINUTE_MS
                if level < 0:
                    level = 0
                elif level > (most := (burst + OWED_MINUTES * limit) * MINUTE_MS):
                    level = most
                records.put(key, _RATE.pack(level, now_ms, limit, burst))
            elif difference:
                raw = records.get(key)
                used = _WINDOW.unpack(raw)[0] if raw else 0
                records.put(key, _WINDOW.pack(min(max(0, used + difference), LARGEST), bucket.limit, end))


def renew(records: Records, leases: Sequence[tuple[Slots, bytes]], now_ms: int) -> None:
    """Let leases run for another term; one that had expired is taken again, beyond the limit if need be."""
    for bucket, id in leases:
        term_ms = int(bucket.term_s * 1000)
        raw = records.get(bucket.key) or _SLOTS.pack(bucket.limit, term_ms)
        lease, at = _LEASE.pack(id, now_ms + term_ms), raw.find(id, _SLOTS.size)
        records.put(bucket.key, raw + lease if at < 0 else raw[:at] + lease + raw[at + _LEASE.size :])


def restore(records: Records, bucket: Window, at: float, used: int) -> None:
    """Raise the count of the window around `at` to at least `used`."""
    label, _, end = window(bucket.every, bucket.zone, at)
    key = bucket.key + label
    raw = records.get(key)
    before = _WINDOW.unpack(raw)[0] if raw else 0
    records.put(key, _WINDOW.pack(min(max(before, used), LARGEST), bucket.limit, int(end)))


def is_over(key: bytes, value: bytes, now_ms: int, wall_s: float) -> bool:
    """Say whether a record tells nothing any more: it is full again, long past, or all its leases have expired."""
    if key[:1] == b"r":
        level, at_ms, limit, _ = _RATE.unpack(value)
        return bool(at_ms <= now_ms and level <= (now_ms - at_ms) * limit)
    if key[:1] == b"w":
        return bool(_WINDOW.unpack(value)[2] + KEPT_S < wall_s)
    return key[:1] == b"s" and not _live(value[_SLOTS.size :], now_ms)


def status(key: bytes, value: bytes, now_ms: int) -> Status | None:
    """Return a record as people see it; `None` where it is no bucket's."""
    name = key[1:].decode("utf-8", "surrogateescape")
    if key[:1] == b"r":
        _, _, limit, burst = _RATE.unpack(value)
        return Status("rate", name, -(-_level(value, limit, now_ms) // MINUTE_MS), limit, burst)
    if key[:1] == b"w":
        used, limit, end = _WINDOW.unpack(value)
        return Status("window", name, used, limit, ends=float(end))
    if key[:1] == b"s":
        limit, _ = _SLOTS.unpack_from(value)
        return Status("slots", name, len(_live(value[_SLOTS.size :], now_ms)) // _LEASE.size, limit)
    return None


def _level(raw: bytes | None, limit: int, now_ms: int) -> int:
    if raw is None:
        return 0
    level, at_ms, _, _ = _RATE.unpack(raw)
    # A clock that was set back gives nothing and takes nothing: the time since then is unknown.
    if now_ms > at_ms:
        level -= (now_ms - at_ms) * limit
    return int(level) if level > 0 else 0


def _live(leases: bytes, now_ms: int) -> bytes:
    return b"".join(_LEASE.pack(*lease) for lease in _leases(leases) if lease[1] > now_ms)


def _leases(leases: bytes) -> Iterator[tuple[bytes, int]]:
    return _LEASE.iter_unpack(leases)


def _put_leases(records: Records, key: bytes, head: bytes, leases: bytes) -> None:
    if leases:
        records.put(key, head + leases)
    else:
        records.delete(key)
