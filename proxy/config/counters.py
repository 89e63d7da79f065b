"""The section about where limits and budgets are counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.config.fields import FlagField, UrlOrSecretField, described, texts, whole
from proxy.secrets import PathField, SecretField
from proxy.settings import CountersSettings

EXAMPLE = "rediss://:PASSWORD@HOST:6379/0"
_counters = CountersSettings()


class RedisUrlField(UrlOrSecretField):
    """The URL of a Redis."""

    def has_password(self, url: str) -> bool:
        """Tell whether a password is in the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValidationError(f"must be a URL like {EXAMPLE}") from None
        # What the client's library takes from a query would undo the time-outs.
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0 or parts.query:
            raise ValidationError(f"must be a URL like {EXAMPLE}; redis and rediss (TLS) are spoken")
        if not re.fullmatch(r"(/\d*)?", parts.path):
            raise ValidationError("its path is the number of a database, such as /0")
        return parts.password is not None


class CountersSchema(Schema):
    """Where requests, tokens and money are counted."""

    store = fields.String(
        validate=validate.OneOf(("lmdb", "redis"), error="must be lmdb or redis"),
        load_default=_counters.store,
        metadata=described("`lmdb`: a file in the state folder, for one machine; `redis`: for several"),
    )
    size_mib = whole(
        1, 65536, load_default=_counters.size_mib, metadata=described("lmdb: what is set aside on the disk; full: 503")
    )
    url = RedisUrlField(
        load_default=None,
        metadata=described(f"redis: where it is, `{EXAMPLE}`, as a secret; `rediss` checks its certificate"),
    )
    ca_file = PathField(
        exists="file", load_default=None, metadata=described("redis: certificates to trust, PEM; else the system's")
    )
    cluster = FlagField(load_default=_counters.cluster, metadata=described("redis: it is a cluster"))
    sentinels = texts(
        "redis: `HOST:PORT` of Sentinels that say where it is; `url` then has user, password and database",
        load_default=[],
    )
    master = fields.String(
        validate=validate.Length(min=1),
        load_default=_counters.master,
        metadata=described("redis: its name at the Sentinels"),
    )
    sentinel_password = SecretField(load_default=None, metadata=described("redis: the Sentinels' password"))
    hosts = whole(
        1,
        10000,
        load_default=_counters.hosts,
        metadata=described("redis: how many machines share it; while it is out of reach, each counts its share"),
    )
    wait_ms = whole(
        10,
        1000,
        load_default=_counters.wait_ms,
        metadata=described("redis: the longest that an exchange waits for it in all, in milliseconds"),
    )

    @validates_schema
    def check(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse what would not be used, and what is missing."""
        problems: dict[str, list[str]] = {}
        if data["store"] == "redis":
            if data["url"] is None:
                problems["url"] = ["missing: where is the Redis?"]
            if find_spec("redis") is None:
                problems["store"] = ["Redis needs an extra: pip install 'lockgate[redis]'"]
        elif data["url"] is not None:
            problems["url"] = ['is not used: add store = "redis"']
        if data["cluster"] and data["sentinels"]:
            problems["sentinels"] = ["a cluster has none"]
        for entry in data["sentinels"]:
            if not re.fullmatch(r".+:\d{1,5}", entry):
                problems["sentinels"] = [f"{entry!r} is not HOST:PORT"]
        if problems:
            raise ValidationError(problems)
