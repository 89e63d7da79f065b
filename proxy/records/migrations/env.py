"""What Alembic runs: the revisions, on the connection and in the transaction that `migrate` opened."""

from __future__ import annotations

from alembic import context

from proxy.records.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
