"""Teams, the digests of rotated keys, and the fingerprint of the pepper."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables; a team that existing keys name becomes one, or they would be refused."""
    op.create_table(
        "teams",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("note", sa.String(1000)),
        sa.Column("grants", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("removed", sa.Double),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_teams")),
    )
    op.create_index(op.f("ix_teams_version"), "teams", ["version"])
    op.execute(
        "INSERT INTO teams (name, grants, limits, created, version) "
        "SELECT team, '{}', '{}', MIN(created), MAX(version) FROM keys WHERE team IS NOT NULL GROUP BY team"
    )
    op.create_table(
        "retired",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("ends", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_retired")),
        sa.ForeignKeyConstraint(["key"], ["keys.id"], name=op.f("fk_retired_key_keys")),
    )
    op.create_index(op.f("ix_retired_key"), "retired", ["key"])
    op.add_column("versions", sa.Column("pepper", sa.LargeBinary(32)))
