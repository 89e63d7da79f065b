"""The keys of a database in memory: who holds the one with a digest, in few bytes each."""

from __future__ import annotations

import hmac
import math
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import Connection, Text, cast, null, select

from proxy.exchange import Identity
from proxy.records.tables import keys, retired

#: Identities that are kept made up, of the keys in use.
MOST_HOT = 4096
#: Rows that are fetched at a time, so that reading all of them needs no memory for all at once.
PAGE = 1000

#: Bytes of a digest by which its record is found; a record begins with the others, then has the key's end.
BUCKET = 16
_end = struct.Struct("<d")
JSON_AT = 32 - BUCKET + _end.size
#: What an unknown key is compared with, so that it takes the path of an expired one.
NOBODY = bytes(32 - BUCKET) + _end.pack(-math.inf)
NOTHING: Mapping[str, Any] = MappingProxyType({})

_ROW = (keys.c.id, keys.c.name, keys.c.team, cast(keys.c.grants, Text), cast(keys.c.limits, Text))
_DIGESTS = (
    select(keys.c.digest, null(), keys.c.expires, keys.c.revoked, *_ROW),
    select(retired.c.digest, retired.c.ends, keys.c.expires, keys.c.revoked, *_ROW).join_from(retired, keys),
)


class Keyring:
    """Keys by their digests. `records` holds them as bytes, which is also how they go to the disk."""

    def __init__(self, records: Mapping[bytes, bytes] | None = None) -> None:
        # Bytes to bytes: a third of the memory that objects would take, and nothing for the garbage collector to visit.
        self.records = dict(records or {})
        self._hot: dict[bytes, tuple[bytes, Identity]] = {}

    def find(self, digest: bytes, now: float) -> Identity | None:
        """Return who holds the key; `None` if it is unknown, revoked or expired at `now`, all at the same cost."""
        bucket = digest[:BUCKET]
        record = self.records.get(bucket, NOBODY)
        same = hmac.compare_digest(digest[BUCKET:], record[: 32 - BUCKET])
        (end,) = _end.unpack_from(record, 32 - BUCKET)
        if not (same and now < end):
            return None
        known, identity = self._hot.get(bucket, (None, None))
        if known is record and identity is not None:
            return identity
        if len(self._hot) >= MOST_HOT:
            self._hot.clear()
        identity = _identity(record, end)
        self._hot[bucket] = (record, identity)
        return identity

    def read(self, connection: Connection, since: int) -> None:
        """Take over the keys that have changed after the database's version `since`; -1 takes all."""
        for found, ends, expires, revoked, *row in _rows(connection, since):
            bucket, rest = found[:BUCKET], found[BUCKET:]
            if revoked is not None:
                self.records.pop(bucket, None)
                continue
            end = min(math.inf if moment is None else moment for moment in (ends, expires))
            id, name, team, grants, limits = row
            self.records[bucket] = b"%b%b%b" % (
                rest,
                _end.pack(end),
                orjson.dumps([id, name, team, orjson.Fragment(grants), orjson.Fragment(limits)]),
            )


def shared(said: dict[str, Any]) -> Mapping[str, Any]:
    """Return a mapping that nobody can change: one object serves every request of its key or team."""
    return MappingProxyType(said) if said else NOTHING


def _rows(connection: Connection, since: int) -> Iterator[Any]:
    for query in _DIGESTS:
        # Not for all: they would have to be sorted out by the index, which takes longer than reading the table.
        query = query if since < 0 else query.where(keys.c.version > since)
        yield from connection.execute(query, execution_options={"yield_per": PAGE})


def _identity(record: bytes, end: float) -> Identity:
    id, name, team, grants, limits = orjson.loads(record[JSON_AT:])
    return Identity(id, name, team, shared(grants), shared(limits), None if end == math.inf else end)
