"""The tables of the database, and the revision of the migrations that makes them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

#: The newest file in `migrations/versions`; a database at this revision is current.
HEAD = "0001"

# Named constraints: a migration can only alter what it can name, and each engine would make up a name of its own.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: The longest text of each column, in characters.
LONGEST = {"name": 200, "team": 200, "owner": 200, "note": 1000}

#: Times are seconds since 1970. Rows are never deleted: a snapshot that follows `version` would not see it.
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

#: One row. Each change of a followed row takes the next number, in the same transaction, and keeps it in its `version`.
versions = Table(
    "versions",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1", name="single"), primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
