"""The schemas of the file's own sections; every key with its type, default and help."""

from __future__ import annotations

import os
from pathlib import Path

from marshmallow import Schema, fields, validate

from proxy.config.admin import AdminSchema
from proxy.config.connection import ConnectionSchema
from proxy.config.counters import CountersSchema
from proxy.config.fields import BindField, FlagField, SecondsField, described, texts, whole
from proxy.config.journal import JournalSchema
from proxy.config.prices import EstimatesSchema
from proxy.config.records import DatabaseSchema, LedgerSchema
from proxy.secrets import SHORTEST, PathField, SecretField, resolve
from proxy.settings import (
    STALE_HOURS,
    AdminSettings,
    CountersSettings,
    DatabaseSettings,
    EstimatesSettings,
    JournalSettings,
    LedgerSettings,
    ServerSettings,
)

WORKERS = ("threads", "gevent")
PEPPER_LENGTH = SHORTEST

_server = ServerSettings(bind="127.0.0.1:8080", state=Path("var"))


class ServerSchema(Schema):
    """`[server]`."""

    bind = BindField(load_default=_server.bind, metadata=described('where to listen: `"HOST:PORT"` or `"unix:/PATH"`'))
    state = PathField(
        load_default=lambda: resolve("var"),
        metadata=described("folder for database, journal and keys; on a local disk", default="var"),
    )
    insecure = FlagField(
        load_default=_server.insecure, metadata=described("allow a chain that authenticates nobody; on loopback only")
    )
    worker = fields.String(
        validate=validate.OneOf(WORKERS, error=f"must be one of {', '.join(WORKERS)}"),
        load_default=_server.worker,
        metadata=described("how a worker serves many at once: `threads` or `gevent`; a change needs a restart"),
    )
    workers = whole(
        1,
        512,
        load_default=lambda: max(2, len(os.sched_getaffinity(0))),
        metadata=described("worker processes; one a core, at least 2, when left out"),
    )
    threads = whole(1, 10000, load_default=_server.threads, metadata=described("exchanges in flight per worker"))
    plugins_dir = PathField(
        exists="folder", load_default=None, metadata=described("folder with plugin files of your own")
    )
    max_body_bytes = whole(1024, load_default=_server.max_body_bytes, metadata=described("the longest request body"))
    max_bodies_bytes = whole(
        1024, load_default=_server.max_bodies_bytes, metadata=described("all request bodies in flight in one worker")
    )
    heartbeat = SecondsField(
        load_default=_server.heartbeat, metadata=described("seconds of silence in a stream before a comment is sent")
    )
    proxied = FlagField(
        load_default=_server.proxied,
        metadata=described(
            "believe X-Forwarded-For, X-Forwarded-Proto and X-Request-ID: only behind nginx that sets them"
        ),
    )
    target_headers = FlagField(
        load_default=_server.target_headers,
        metadata=described("tell callers x-lockgate-target and x-lockgate-attempts"),
    )
    docs = FlagField(
        load_default=_server.docs, metadata=described("serve the API's reference: /docs and /openapi.json")
    )


class KeysSchema(Schema):
    """`[keys]`."""

    pepper = SecretField(
        load_default=None,
        metadata=described("the secret in every key's digest; made once in the state folder where it is left out"),
    )
    stale_hours = fields.Float(
        validate=validate.Range(min=0, min_inclusive=False, max=8760),
        load_default=STALE_HOURS,
        metadata=described("hours that keys go on being valid while the database cannot be read; then they get a 503"),
    )


#: The sections that are one table each: the schema, and the part of `Settings` with the section's name that it fills.
SIMPLE: dict[str, tuple[type[Schema], type]] = {
    "admin": (AdminSchema, AdminSettings),
    "database": (DatabaseSchema, DatabaseSettings),
    "ledger": (LedgerSchema, LedgerSettings),
    "counters": (CountersSchema, CountersSettings),
    "estimates": (EstimatesSchema, EstimatesSettings),
    "journal": (JournalSchema, JournalSettings),
}


class TopSchema(Schema):
    """The file's top level without the sections of `SIMPLE`."""

    chain = texts("the plugins that every exchange goes through, in this order", load_default=[])
    server = fields.Nested(
        ServerSchema, load_default=dict, metadata=described("how to listen and where to keep things")
    )
    egress = fields.Nested(ConnectionSchema, load_default=dict, metadata=described("how upstreams are reached"))
    keys = fields.Nested(KeysSchema, load_default=dict, metadata=described("API keys"))
    plugins = fields.Dict(keys=fields.String(), load_default=dict, metadata=described("the plugins by name"))
    providers = fields.Dict(keys=fields.String(), load_default=dict, metadata=described("the providers by name"))
    models = fields.Dict(keys=fields.String(), load_default=dict, metadata=described("the models by name or pattern"))
    teams = fields.Dict(keys=fields.String(), load_default=dict, metadata=described("the teams by name"))
    prices = fields.Dict(keys=fields.String(), load_default=dict, metadata=described("the prices of targets"))


FileSchema = TopSchema.from_dict(
    {
        name: fields.Nested(schema, load_default=dict, metadata=described(schema.__doc__ or ""))
        for name, (schema, _) in SIMPLE.items()
    },
    name="FileSchema",
)
