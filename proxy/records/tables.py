"""The tables of the database, and the revision of the migrations that makes them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

#: The newest file in `migrations/versions`; a database at this revision is current.
HEAD = "0003"

# Named constraints: a migration can only alter what it can name, and each engine would make up a name of its own.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: The longest text of each column, in characters.
LONGEST = {"name": 200, "team": 200, "owner": 200, "note": 1000}

#: Times are seconds since 1970. Rows are never deleted: a snapshot that follows `version` would not see it.
#: `digest` is that of the newest secret.
keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("name", String(LONGEST["name"]), nullable=False),
    Column("team", String(LONGEST["team"])),
    Column("owner", String(LONGEST["owner"])),
    Column("note", String(LONGEST["note"])),
    Column("grants", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("version", BigInteger, nullable=False, index=True),
)

#: The digests of a key's earlier secrets, good until they end. A row that is new or changed goes with a new `version`
#: of its key.
retired = Table(
    "retired",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("key", String(64), ForeignKey("keys.id"), nullable=False, index=True),
    Column("ends", Double, nullable=False),
)

#: What `lockgate teams` manages; those of the configuration are not here.
teams = Table(
    "teams",
    metadata,
    Column("name", String(LONGEST["team"]), primary_key=True),
    Column("note", String(LONGEST["note"])),
    Column("grants", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("created", Double, nullable=False),
    Column("removed", Double),
    Column("version", BigInteger, nullable=False, index=True),
)

#: One row. Each change of a followed row takes the next number, in the same transaction, and keeps it in its `version`.
#: `pepper` is the fingerprint of the pepper that the digests were made with, `NULL` before the first.
versions = Table(
    "versions",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1", name="single"), primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("pepper", LargeBinary(32)),
)

#: The kinds of tokens that are counted, as columns are called.
TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
)

#: The ledger: one row for each exchange, `key` from its place in the journal. `state` is `ended`, `settled` or `lost`;
#: `cost` is in micro-dollars; `_s` are seconds.
requests = Table(
    "requests",
    metadata,
    Column("key", String(96), primary_key=True),
    Column("host", String(96), nullable=False),
    Column("id", String(64), index=True),
    Column("state", String(8), nullable=False),
    Column("time", Double, nullable=False),
    Column("settled", Double),
    Column("ended", Double),
    Column("subject", String(512)),
    Column("team", String(LONGEST["team"])),
    Column("path", String(256)),
    Column("model", String(256)),
    Column("target", String(256)),
    Column("stream", Boolean),
    Column("client", String(64)),
    Column("agent", String(256)),
    Column("status", BigInteger),
    Column("code", String(64)),
    Column("complete", Boolean),
    Column("client_gone", Boolean),
    Column("culprit", String(200)),
    *(Column(name, BigInteger) for name in TOKENS),
    Column("estimated", Boolean),
    Column("cost", BigInteger),
    Column("first_event_s", Double),
    Column("upstream_s", Double),
    Column("ours_s", Double),
    Column("duration_s", Double),
    Column("bytes_in", BigInteger),
    Column("bytes_out", BigInteger),
    Column("finish", JSON),
    Column("attempts", JSON),
    Column("trace", JSON),
    Column("findings", JSON),
    Index(None, "time", "key"),
    Index(None, "subject", "time", "key"),
)

#: How far each of a host's journal files is in the ledger, in bytes; `finished` is when its last record came there.
shipped = Table(
    "shipped",
    metadata,
    Column("host", String(96), primary_key=True),
    Column("file", String(96), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("finished", Double),
)

#: What was used in each `hour` and `day` (UTC), which begins at `start`. What is not known is an empty text.
usage = Table(
    "usage",
    metadata,
    Column("span", String(4), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("team", String(LONGEST["team"]), primary_key=True),
    Column("subject", String(512), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("estimated", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in TOKENS),
    Column("cost", BigInteger, nullable=False),
)
