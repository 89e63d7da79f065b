"""Counts requests, tokens, slots and money for all workers: what is counted, and where."""

from proxy.counters.buckets import Bucket, Claim, Rate, Slots, State, Status, Want, Window, amount
from proxy.counters.counters import Counters, open_store
from proxy.counters.embedded import Memory, Store, Unavailable

__all__ = [
    "Bucket", "Claim", "Counters", "Memory", "Rate", "Slots", "State", "Status", "Store", "Unavailable", "Want",
    "Window", "amount", "open_store",
]  # fmt: skip
