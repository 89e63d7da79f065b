"""The counters of several hosts, in Redis: one script an operation, its own time, short time-outs and no second try."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from proxy.counters import scripts
from proxy.counters.buckets import Claim, Rate, Settled, Slots, State, Status, Window
from proxy.counters.connections import Connections
from proxy.counters.embedded import Unavailable
from proxy.counters.patience import TOGETHER, Patience
from proxy.counters.places import TAG, Place
from proxy.counters.windows import window

if TYPE_CHECKING:
    from proxy.settings import CountersSettings

#: How long what is no exchange's may take, how long a new connection may, and how long renewing a batch.
BESIDE_S, READY_S, RENEWED_S = 5.0, 1.0, 0.25
BATCH = 200  # leases or windows a script

_KINDS: dict[type, str] = {Rate: "r", Window: "w", Slots: "s"}
_DIGESTS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (scripts.TAKE, scripts.SETTLE, scripts.RENEW, scripts.RESTORE, scripts.READ)
}


class Redis:
    """A store that `connections` lead to, and an exchange waits `wait_s` for at most.

    With a `clock` (seconds since 1970) the server's is not asked.

    Which calendar window it is the server's clock decides, so hosts whose clocks differ do not count in two of them.
    Taking and settling wait no longer than the claim's patience.
    """

    def __init__(
        self, connections: Connections, clock: Callable[[], float] | None = None, wait_s: float = 0.05
    ) -> None:
        self._connections = connections
        self.wait_s = wait_s
        self._clock = clock
        self._ahead_s = 0.0  # the server's clock over ours, as its answers tell

    def take(self, claim: Claim) -> None:
        """See `Store`."""
        for _ in range(3):
            wall = self._wall()
            keys, arguments = [], [self._now(), claim.id.hex()]
            claim.places = []
            for bucket, amount in claim.wants:
                key, begin, end, more = _key(bucket), 0, 0, 0
                if type(bucket) is Rate:
                    more = bucket.burst
                elif type(bucket) is Window:
                    label, begin_s, end_s = window(bucket.every, bucket.zone, wall)
                    key, begin, end, more = key + label, int(begin_s * 1000), int(end_s * 1000), int(bucket.soft)
                elif type(bucket) is Slots:
                    more = int(bucket.term_s * 1000)
                keys.append(key)
                arguments += (_KINDS[type(bucket)], amount, bucket.limit, more, begin, end)
                claim.places.append((key, end))
            done, now_ms, *figures = self._patiently(claim.patience, scripts.TAKE, keys, arguments)
            if self._clock is None:
                self._ahead_s = now_ms / 1000 - time.time()
            if done >= 0:
                break
        else:
            raise Unavailable("Redis' clock jumps about", divide=True)
        waits = []
        for at in range(len(claim.wants)):
            left, reset_ms, wait_ms = figures[at * 3 : at * 3 + 3]
            claim.states.append(State(left, reset_ms / 1000))
            if wait_ms:
                waits.append((float("inf") if wait_ms < 0 else wait_ms / 1000, at))
        if waits:
            wait_s, claim.refused = max(waits)
            claim.wait_s = None if wait_s == float("inf") else wait_s

    def settle(self, settled: Sequence[Settled]) -> None:
        """See `Store`."""
        keys: list[bytes] = []
        arguments: list[Any] = [self._now()]
        for claim, spent in settled:
            for (bucket, amount), (key, end), actual in zip(claim.wants, claim.places, spent, strict=True):
                if actual != amount or type(bucket) is Slots:
                    more = bucket.burst if type(bucket) is Rate else claim.id.hex()
                    keys.append(key)
                    arguments += (_KINDS[type(bucket)], actual - amount, bucket.limit, more, end)
        if keys:
            self._patiently(settled[0][0].patience, scripts.SETTLE, keys, arguments)

    def renew(self, leases: Sequence[tuple[Slots, bytes]]) -> None:
        """See `Store`."""
        for some in _batches(leases):
            arguments: list[Any] = [self._now()]
            for bucket, id in some:
                arguments += (id.hex(), int(bucket.term_s * 1000))
            self._run(time.monotonic() + RENEWED_S, scripts.RENEW, [_key(bucket) for bucket, _ in some], arguments)

    def restore(self, entries: Sequence[tuple[Window, float, int]]) -> None:
        """See `Store`."""
        for some in _batches(entries):
            keys, arguments = [], [self._now()]
            for bucket, at, used in some:
                label, _, end = window(bucket.every, bucket.zone, at)
                keys.append(_key(bucket) + label)
                arguments += (used, bucket.limit, int(end * 1000))
            self._run(time.monotonic() + BESIDE_S, scripts.RESTORE, keys, arguments)

    def read(self, part: str = "") -> list[Status]:
        """See `Store`."""
        pattern = re.sub(rb"([\[\]*?^\\])", rb"\\\1", part.encode("utf-8", "surrogateescape"))
        keys: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, some = self._beside("SCAN", cursor, "MATCH", TAG + b"[rws]*" + pattern + b"*", "COUNT", 1000)
            keys.update(some)
            if cursor == b"0":
                break
        found = []
        for some in _batches(sorted(keys)):
            until = time.monotonic() + BESIDE_S
            now_ms, *rows = self._run(until, scripts.READ, some, [self._now()])
            found += [_status(key.removeprefix(TAG), row, now_ms) for key, row in zip(some, rows, strict=True)]
        return [status for status in found if part in status.name]

    def reset(self, names: Sequence[str]) -> int:
        """See `Store`."""
        raw = [name.encode("utf-8", "surrogateescape") for name in names]
        keys = [TAG + kind + name for name in raw for kind in (b"r", b"w", b"s")]
        return sum(self._beside("DEL", *some) for some in _batches(keys))

    def probe(self) -> None:
        """See `Store`. One that answers too late for an exchange, which asks three times, is out of reach too."""
        self._connections.renew()
        # Making the connection is no part of it. And no script runs in a server that is read only, full or loading,
        # though each of them answers a ping.
        self._connections.call(time.monotonic() + READY_S, "PING")
        # An exchange takes twice and settles once.
        useful_s = TOGETHER * self.wait_s / 3
        for _ in range(2):  # the first time a server may have to be told the script
            self._run(time.monotonic() + useful_s, scripts.RENEW, [TAG + b"!probe"], [self._now(), "probe", 1000])

    def close(self) -> None:
        """See `Store`."""
        self._connections.close()

    def _patiently(
        self, patience: Patience | None, script: str, keys: Sequence[bytes], arguments: Sequence[Any]
    ) -> Any:
        """Run a script for an exchange, and add how long it took to what that has waited."""
        patience = patience or Patience(self.wait_s)
        began = time.monotonic()
        try:
            return self._run(patience.until, script, keys, arguments)
        finally:
            patience.spent_s += time.monotonic() - began

    def _run(self, until: float, script: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        try:
            return self._connections.call(until, "EVALSHA", _DIGESTS[script], len(keys), *keys, *arguments)
        except NoScriptError:
            return self._connections.call(until, "EVAL", script, len(keys), *keys, *arguments)

    def _beside(self, *command: Any) -> Any:
        return self._connections.call(time.monotonic() + BESIDE_S, *command)

    def _now(self) -> int | str:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _wall(self) -> float:
        return time.time() + self._ahead_s if self._clock is None else self._clock()


def connect(settings: CountersSettings, most: int) -> Connections:
    """Return at most so many connections to the Redis that is configured; none is made yet."""
    return Connections(Place(settings), most)


def _batches(entries: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (entries[at : at + BATCH] for at in range(0, len(entries), BATCH))


def _key(bucket: Rate | Window | Slots) -> bytes:
    return TAG + bucket.key


def _status(key: bytes, row: Any, now_ms: int) -> Status:
    name = key[1:].decode("utf-8", "surrogateescape")
    if not isinstance(row, list):
        return Status("slots", name, int(row))
    values = {field.decode(): int(value) for field, value in zip(row[::2], row[1::2], strict=True)}
    if key[:1] == b"w":
        return Status("window", name, values["used"], values["limit"], ends=values["ends"] / 1000)
    level = max(0, values["level"] - max(0, now_ms - values["at"]) * values["limit"])
    return Status("rate", name, -(-level // 60_000), values["limit"], values["burst"])
