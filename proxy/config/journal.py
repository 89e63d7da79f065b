"""The section `[journal]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from proxy.config.fields import described, whole
from proxy.secrets import SHORTEST, Secret, SecretField
from proxy.settings import JournalSettings

WHEN_FULL = ("refuse", "continue")

_journal = JournalSettings()


class FsyncField(fields.Field[str | int]):
    """`"never"`, `"each"`, or a whole number of milliseconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str | int:
        if value in ("never", "each"):
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool) and 10 <= value <= 60_000:
            return value
        raise ValidationError('must be "never", "each", or milliseconds from 10 to 60000')


def _long_enough(secret: Secret) -> None:
    if len(secret.reveal()) < SHORTEST:
        raise ValidationError(f"must have at least {SHORTEST} characters, e.g. from `openssl rand -hex 32`")


class JournalSchema(Schema):
    """How exchanges are written down before they are acknowledged."""

    key = SecretField(
        validate=_long_enough,
        load_default=None,
        metadata=described("the secret of the chain's digests; made once in the state folder where it is left out"),
    )
    fsync = FsyncField(
        load_default=_journal.fsync,
        metadata=described(
            "when lines are put on the disk: `never` (the system decides), `each`, or every so many milliseconds"
        ),
    )
    max_file_bytes = whole(
        1 << 16,
        load_default=_journal.max_file_bytes,
        metadata=described("a new file is begun when one has this length, and every day (UTC)"),
    )
    when_full = fields.String(
        validate=validate.OneOf(WHEN_FULL, error=f"must be one of {', '.join(WHEN_FULL)}"),
        load_default=_journal.when_full,
        metadata=described("what happens to requests that cannot be journalled: `refuse` (503) or `continue`"),
    )
