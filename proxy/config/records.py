"""The sections about what is kept: the database and the ledger in it."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError

from proxy.config.fields import FlagField, UrlOrSecretField, described, whole
from proxy.secrets import Secret
from proxy.settings import LedgerSettings

_ledger = LedgerSettings()
EXAMPLE = "postgresql://USER:PASSWORD@HOST/DATABASE"


class DatabaseUrlField(UrlOrSecretField):
    """The URL of a PostgreSQL database."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> Secret:
        secret = super()._deserialize(*args, **kwargs)
        try:
            import psycopg  # noqa: F401
        except ImportError:  # it, or the library below it
            raise ValidationError("PostgreSQL needs an extra: pip install 'lockgate[postgres]'") from None
        return secret

    def has_password(self, url: str) -> bool:
        """Tell whether a password is in the URL."""
        # Imported here: most configurations name no database.
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            parts = make_url(url)
        except (ArgumentError, ValueError):
            raise ValidationError(f"must be a URL like {EXAMPLE}") from None
        if parts.drivername not in ("postgresql", "postgres", "postgresql+psycopg") or not parts.database:
            raise ValidationError(f"must be a URL like {EXAMPLE}; SQLite needs none, it lies in server.state")
        return parts.password is not None or "password" in parts.query


class DatabaseSchema(Schema):
    """Where keys, teams and the ledger are kept."""

    url = DatabaseUrlField(
        load_default=None,
        metadata=described(
            f"a PostgreSQL database, `{EXAMPLE}`, as a secret; SQLite in the state folder where it is left out"
        ),
    )


class LedgerSchema(Schema):
    """What the journal's records become."""

    ship = FlagField(
        load_default=_ledger.ship,
        metadata=described("have the workers start the shipper; without it, run `lockgate ledger ship`"),
    )
    keep_days = whole(
        1, 36500, load_default=_ledger.keep_days, metadata=described("days that requests and hourly sums are kept")
    )
    keep_usage_days = whole(
        1, 36500, load_default=_ledger.keep_usage_days, metadata=described("days that daily sums are kept")
    )
    journal_days = whole(
        0,
        36500,
        load_default=_ledger.journal_days,
        metadata=described("days that a journal file is kept after all of it has come to the ledger"),
    )
