"""The schemas of the file's own sections; every key with its type, default and help."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from proxy.config.admin import AdminSchema
from proxy.config.counters import CountersSchema
from proxy.config.fields import BindField, FlagField, ProxyField, SecondsField, described, texts, whole
from proxy.config.journal import JournalSchema
from proxy.config.prices import EstimatesSchema
from proxy.config.records import DatabaseSchema, LedgerSchema
from proxy.secrets import SHORTEST, PathField, SecretField, resolve
from proxy.settings import (
    STALE_HOURS,
    AdminSettings,
    BreakerSettings,
    Connection,
    CountersSettings,
    DatabaseSettings,
    EstimatesSettings,
    JournalSettings,
    LedgerSettings,
    Retry,
    ServerSettings,
    Target,
    Timeouts,
)

WORKERS = ("threads", "gevent")
PEPPER_LENGTH = SHORTEST

_timeouts = Timeouts()
_connection = Connection()
_breaker = BreakerSettings()
_retry = Retry()
_server = ServerSettings(bind="127.0.0.1:8080", state=Path("var"))


_TIMEOUTS = {
    "connect": "seconds to connect, TLS included",
    "first_byte": "seconds from the request's end to the first byte of the answer",
    "idle": "seconds between two reads of a stream",
    "total": "seconds for an exchange with its upstreams altogether",
}
#: `timeouts = { … }` of a connection, and of a model, where what is left out stays as it is.
TimeoutsSchema = Schema.from_dict(
    {
        name: SecondsField(load_default=getattr(_timeouts, name), metadata=described(help))
        for name, help in _TIMEOUTS.items()
    },
    name="TimeoutsSchema",
)
ModelTimeoutsSchema = Schema.from_dict(
    {name: SecondsField(metadata=described(help)) for name, help in _TIMEOUTS.items()}, name="ModelTimeoutsSchema"
)


class BreakerSchema(Schema):
    """`breaker = { … }` of a connection."""

    failures = whole(
        0, 1000, load_default=_breaker.failures, metadata=described("failures in a row that open it; 0 never does")
    )
    open = SecondsField(load_default=_breaker.open, metadata=described("seconds until one exchange may try again"))


class RetrySchema(Schema):
    """`retry = { … }` of a model."""

    attempts = whole(
        1, 20, load_default=_retry.attempts, metadata=described("calls of upstreams in one exchange, at most")
    )
    backoff = SecondsField(
        load_default=_retry.backoff,
        metadata=described("the first wait before a target is tried again is drawn up to it"),
    )
    longest_wait = SecondsField(
        load_default=_retry.longest_wait,
        metadata=described("no wait is longer; an upstream that asks for more is not tried again"),
    )


class TargetField(fields.Field[Target]):
    """A target as text, or as a table with a weight."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Target:
        said = value if isinstance(value, dict) else {"to": value}
        to, weight = said.get("to"), said.get("weight")
        if not isinstance(to, str) or not to or said.keys() - {"to", "weight"}:
            raise ValidationError('must be "PROVIDER", "PROVIDER/MODEL" or { to = "PROVIDER/MODEL", weight = 1 }')
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0):
            raise ValidationError("its weight must be a number above 0")
        provider, slash, model = to.partition("/")
        if slash and not model:
            raise ValidationError(f"no model after the slash: {to!r}")
        return Target(provider, model or None, weight)


class ConnectionSchema(Schema):
    """`[egress]`, and the same keys in `[providers.NAME]`."""

    proxy = ProxyField(
        load_default=None, metadata=described("the HTTP proxy to go through, as a URL; with a password as a secret")
    )
    no_proxy = texts("hosts, `.domains` and networks that are reached without the proxy", load_default=[])
    ca_file = PathField(
        exists="file",
        load_default=None,
        metadata=described("certificates to trust, PEM; the system's when left out"),
    )
    client_cert = PathField(
        exists="file", load_default=None, metadata=described("the certificate to show, PEM; may hold its key")
    )
    client_key = PathField(exists="file", load_default=None, metadata=described("the key of `client_cert`, PEM"))
    timeouts = fields.Nested(
        TimeoutsSchema,
        load_default=lambda: TimeoutsSchema().load({}),
        metadata=described("how long an upstream may take"),
    )
    breaker = fields.Nested(
        BreakerSchema,
        load_default=lambda: BreakerSchema().load({}),
        metadata=described("when a target that keeps failing is left alone"),
    )
    pool_size = whole(
        1, 10000, load_default=_connection.pool_size, metadata=described("idle connections that a worker keeps open")
    )
    max_answer_bytes = whole(
        1024,
        load_default=_connection.max_answer_bytes,
        metadata=described("the longest answer that is taken, in bytes"),
    )
    replay_stale = FlagField(
        load_default=_connection.replay_stale,
        metadata=described("send a request again when a kept connection turns out to be closed; it may then run twice"),
    )


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


class ModelSchema(Schema):
    """`[models.PATTERN]`."""

    targets = fields.List(
        TargetField(),
        required=True,
        validate=validate.Length(min=1),
        metadata=described(
            'where it is served, tried in order: `"PROVIDER"`, `"PROVIDER/MODEL"`, or `{ to = "…", weight = 2 }`: '
            "of those with a weight one is drawn to be first"
        ),
    )
    chain = texts("plugins for this model's exchanges; the top-level chain where it is left out", load_default=None)
    public = FlagField(load_default=False, metadata=described("callers need no credential"))
    web_search = FlagField(load_default=False, metadata=described("callers may ask for web search"))
    strict = FlagField(
        load_default=False,
        metadata=described("refuse parameters that the target does not know, instead of dropping them"),
    )
    parameters = texts("request parameters beyond OpenAI's that callers may set; `*` allows all", load_default=[])
    timeouts = fields.Nested(
        ModelTimeoutsSchema, load_default=dict, metadata=described("instead of the provider's, one by one")
    )
    retry = fields.Nested(
        RetrySchema, load_default=lambda: RetrySchema().load({}), metadata=described("how often targets are tried")
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
