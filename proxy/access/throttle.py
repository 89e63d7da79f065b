"""How often one address may be wrong about its credential before it is told to wait."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

#: So many wrong credentials at once are answered with 401; after these one every `PAUSE_S` is, the others with 429.
BURST = 30
PAUSE_S = 2.0
#: Addresses that are remembered; of more, the one that was wrong longest ago is forgotten.
ADDRESSES = 10_000


class Throttle:
    """Counts wrong credentials by address, in a bucket that fills by one every `pause_s` up to `burst`.

    It is asked only about credentials that were wrong: callers with a right one pass, whoever shares their address.
    `refused` is how many wrong ones there were, `slowed` how many of them were told to wait. Each worker has its own.
    """

    def __init__(
        self,
        burst: int = BURST,
        pause_s: float = PAUSE_S,
        addresses: int = ADDRESSES,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused = 0
        self.slowed = 0
        self._burst = burst
        self._pause_s = pause_s
        self._addresses = addresses
        self._clock = clock
        self._lock = threading.Lock()
        #: When the bucket of an address is full again.
        self._full: OrderedDict[str, float] = OrderedDict()

    def wrong(self, address: str) -> float:
        """Note a wrong credential; return 0, or for how many seconds its sender is to wait before the next."""
        address = network(address)
        now = self._clock()
        with self._lock:
            self.refused += 1
            full = max(self._full.pop(address, now), now)
            wait = full + self._pause_s - now - self._burst * self._pause_s
            if wait > 1e-6:
                # What is refused costs nothing more, or a client that keeps asking would never get out.
                self.slowed += 1
            else:
                full += self._pause_s
            self._full[address] = full
            if len(self._full) > self._addresses:
                self._full.popitem(last=False)
        return max(wait, 0.0)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._full)


@lru_cache(1024)
def network(address: str) -> str:
    """Return what stands for the sender: an IPv4 address, or the /64 of an IPv6 one, which one host has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""  # a unix socket without a proxy that says who is calling
    if parsed.version == 4:
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
