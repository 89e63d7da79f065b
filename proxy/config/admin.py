"""The section `[admin]`."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from proxy.config.fields import BindField, described
from proxy.settings import AdminSettings

METRICS = ("local", "key", "open")

_admin = AdminSettings()


class AdminSchema(Schema):
    """The admin application, which `lockgate admin` starts."""

    bind = BindField(
        load_default=_admin.bind, metadata=described("where it listens, `HOST:PORT` or `unix:/PATH`; not for callers")
    )
    metrics = fields.String(
        validate=validate.OneOf(METRICS, error=f"must be one of {', '.join(METRICS)}"),
        load_default=_admin.metrics,
        metadata=described(
            "who may read `/metrics` without an admin key: `local` (who asks from this machine), `open` (everybody), "
            "`key` (nobody)"
        ),
    )
