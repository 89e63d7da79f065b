"""The ledger: a row for each exchange, how far the journal's files were shipped, and what was used by hour and day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "requests",
        sa.Column("key", sa.String(96), nullable=False),
        sa.Column("host", sa.String(96), nullable=False),
        sa.Column("id", sa.String(64)),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("settled", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("subject", sa.String(512)),
        sa.Column("team", sa.String(200)),
        sa.Column("path", sa.String(256)),
        sa.Column("model", sa.String(256)),
        sa.Column("target", sa.String(256)),
        sa.Column("stream", sa.Boolean),
        sa.Column("client", sa.String(64)),
        sa.Column("agent", sa.String(256)),
        sa.Column("status", sa.BigInteger),
        sa.Column("code", sa.String(64)),
        sa.Column("complete", sa.Boolean),
        sa.Column("client_gone", sa.Boolean),
        sa.Column("culprit", sa.String(200)),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("audio_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean),
        sa.Column("cost", sa.BigInteger),
        sa.Column("first_event_s", sa.Double),
        sa.Column("upstream_s", sa.Double),
        sa.Column("ours_s", sa.Double),
        sa.Column("duration_s", sa.Double),
        sa.Column("bytes_in", sa.BigInteger),
        sa.Column("bytes_out", sa.BigInteger),
        sa.Column("finish", sa.JSON),
        sa.Column("attempts", sa.JSON),
        sa.Column("trace", sa.JSON),
        sa.Column("findings", sa.JSON),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_time"), "requests", ["time", "key"])
    op.create_index(op.f("ix_requests_subject"), "requests", ["subject", "time", "key"])
    op.create_index(op.f("ix_requests_id"), "requests", ["id"])
    op.create_table(
        "shipped",
        sa.Column("host", sa.String(96), nullable=False),
        sa.Column("file", sa.String(96), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.Double),
        sa.PrimaryKeyConstraint("host", "file", name=op.f("pk_shipped")),
    )
    op.create_table(
        "usage",
        sa.Column("span", sa.String(4), nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("lost", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("audio_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("span", "start", "team", "subject", "model", name=op.f("pk_usage")),
    )
