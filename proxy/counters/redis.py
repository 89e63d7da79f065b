"""The counters of several hosts, in Redis: one script an operation, its own time, short time-outs and no second try."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy.counters import scripts
from proxy.counters.buckets import Claim, Rate, Settled, Slots, State, Status, Window
from proxy.counters.embedded import Unavailable
from proxy.counters.windows import window

if TYPE_CHECKING:
    from proxy.settings import CountersSettings

TIMEOUT_S = 0.05
#: All keys have this in common, so that they lie in one slot of a cluster: a script may use no others.
TAG = b"{lockgate}:"
BATCH = 200  # leases or windows a script

_KINDS: dict[type, str] = {Rate: "r", Window: "w", Slots: "s"}


class Redis:
    """A store on `client`, made by `connect`. With a `clock` (seconds since 1970) the server's is not asked.

    Which calendar window it is the server's clock decides, so hosts whose clocks differ do not count in two of them.
    """

    def __init__(self, client: Any, clock: Callable[[], float] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._ahead_s = 0.0  # the server's clock over ours, as its answers tell
        self._take, self._settle, self._renew, self._restore, self._read = map(
            client.register_script,
            (scripts.TAKE, scripts.SETTLE, scripts.RENEW, scripts.RESTORE, scripts.READ),
        )

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
            with _explained():
                done, now_ms, *figures = self._take(keys=keys, args=arguments)
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
            with _explained():
                self._settle(keys=keys, args=arguments)

    def renew(self, leases: Sequence[tuple[Slots, bytes]]) -> None:
        """See `Store`."""
        for some in _batches(leases):
            arguments: list[Any] = [self._now()]
            for bucket, id in some:
                arguments += (id.hex(), int(bucket.term_s * 1000))
            with _explained():
                self._renew(keys=[_key(bucket) for bucket, _ in some], args=arguments)

    def restore(self, entries: Sequence[tuple[Window, float, int]]) -> None:
        """See `Store`."""
        for some in _batches(entries):
            keys, arguments = [], [self._now()]
            for bucket, at, used in some:
                label, _, end = window(bucket.every, bucket.zone, at)
                keys.append(_key(bucket) + label)
                arguments += (used, bucket.limit, int(end * 1000))
            with _explained():
                self._restore(keys=keys, args=arguments)

    def read(self, part: str = "") -> list[Status]:
        """See `Store`."""
        with _explained():
            pattern = re.sub(rb"([\[\]*?^\\])", rb"\\\1", part.encode("utf-8", "surrogateescape"))
            keys = sorted(self._client.scan_iter(TAG + b"[rws]*" + pattern + b"*", count=1000))
            found = []
            for some in _batches(keys):
                now_ms, *rows = self._read(keys=some, args=[self._now()])
                found += [_status(key.removeprefix(TAG), row, now_ms) for key, row in zip(some, rows, strict=True)]
        return [status for status in found if part in status.name]

    def reset(self, names: Sequence[str]) -> int:
        """See `Store`."""
        with _explained():
            return sum(
                self._client.delete(
                    *(
                        TAG + kind + name.encode("utf-8", "surrogateescape")
                        for name in some
                        for kind in (b"r", b"w", b"s")
                    )
                )
                for some in _batches(names)
            )

    def probe(self) -> None:
        """See `Store`."""
        with _explained():
            # A server that is read only, full or loading answers a ping.
            self._renew(keys=[TAG + b"!probe"], args=[self._now(), "probe", 1000])

    def close(self) -> None:
        """See `Store`."""
        self._client.close()

    def _now(self) -> int | str:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _wall(self) -> float:
        return time.time() + self._ahead_s if self._clock is None else self._clock()


def connect(settings: CountersSettings, connections: int) -> Any:
    """Return a client for at most so many connections at once; nothing is connected yet."""
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        # By itself the client tries ten times.
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections,
        # Two more round trips a connection, for the server's listing.
        "protocol": 2,
        "driver_info": None,
    }
    url = settings.url.reveal() if settings.url else "redis://127.0.0.1:6379/0"
    if url.startswith("rediss://") and settings.ca_file is not None:
        options["ssl_ca_certs"] = str(settings.ca_file)
    if settings.cluster:
        from redis.cluster import RedisCluster

        return RedisCluster.from_url(url, **options)
    if not settings.sentinels:
        return redis.Redis.from_url(url, **options)
    from redis.connection import parse_url
    from redis.sentinel import Sentinel

    parsed: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    own = {key: value for key, value in parsed.items() if key not in ("host", "port", "connection_class")}
    tls = {"ssl": True} if url.startswith("rediss://") else {}
    known = {key: value for key, value in options.items() if key != "max_connections"}
    if settings.sentinel_password is not None:
        known["password"] = settings.sentinel_password.reveal()
    hosts = [(host, int(port)) for host, _, port in (entry.rpartition(":") for entry in settings.sentinels)]
    sentinel: Any = Sentinel(hosts, sentinel_kwargs={**known, **tls})  # type: ignore[no-untyped-call]
    return sentinel.master_for(settings.master, **{**options, **own, **tls})


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as failure:
        # The name of the error and no more: its text may hold the URL, and so the password.
        raise Unavailable(f"Redis cannot be used ({type(failure).__name__})", divide=True) from failure


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
