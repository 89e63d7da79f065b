"""The schemas of the file's own sections; every key with its type, default and help."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, validate

from proxy.secrets import PathField, SecretField, resolve
from proxy.serving import address
from proxy.settings import BreakerSettings, Connection, Retry, ServerSettings, Target, Timeouts

WORKERS = ("threads", "gevent")
#: The shortest pepper that is taken, in characters: 128 bits in hexadecimal.
PEPPER_LENGTH = 32

_timeouts = Timeouts()
_connection = Connection()
_breaker = BreakerSettings()
_retry = Retry()
_server = ServerSettings(bind="127.0.0.1:8080", state=Path("var"))


class FlagField(fields.Boolean):
    """True or false and nothing that looks like it: `"no"` would otherwise be read as a word of some language."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class SecondsField(fields.Float):
    """A time in seconds, more than none and at most a day."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(min=0, min_inclusive=False, max=86400), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return float(super()._deserialize(value, attr, data, **kwargs) or 0)


class BindField(fields.String):
    """An address to listen on; the path of a unix socket becomes absolute."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        bind = str(super()._deserialize(value, attr, data, **kwargs))
        try:
            parsed = address.parse(bind)
            if isinstance(parsed, str):
                bind = f"unix:{resolve(parsed)}"
                address.parse(bind)
        except ValueError as failure:
            raise ValidationError(str(failure)) from None
        if isinstance(parsed, str):
            folder = resolve(parsed).parent
            if not os.path.isdir(folder):
                raise ValidationError(f"the folder {folder} does not exist: make it, writable for this user")
        return bind


class ProxyField(fields.Field[str]):
    """The URL of an HTTP proxy; one with a password is a secret: `{ env = "NAME" }` or `{ file = "/path" }`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if isinstance(value, str):
            url = value
        else:
            url = SecretField().deserialize(value, attr, data, **kwargs).reveal()
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValidationError('must be a URL like "http://proxy.example:3128"') from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValidationError('must be a URL like "http://proxy.example:3128"; http and https are spoken')
        if parts.username is not None and isinstance(value, str):
            raise ValidationError('a password is not written here: put the whole URL into { env = "NAME" } or a file')
        return url


def _whole(low: int, high: int | None = None, **kwargs: Any) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=low, max=high), **kwargs)


def _help(text: str, **more: Any) -> dict[str, Any]:
    return {"help": text, **more}


def _texts(help: str, **kwargs: Any) -> fields.List[str]:
    item = fields.String(validate=validate.Length(min=1))
    return fields.List(item, metadata=_help(help), **kwargs)


_TIMEOUTS = {
    "connect": "seconds to connect, TLS included",
    "first_byte": "seconds from the request's end to the first byte of the answer",
    "idle": "seconds between two reads of a stream",
    "total": "seconds for an exchange with its upstreams altogether",
}
#: `timeouts = { … }` of a connection, and of a model, where what is left out stays as it is.
TimeoutsSchema = Schema.from_dict(
    {
        name: SecondsField(load_default=getattr(_timeouts, name), metadata=_help(help))
        for name, help in _TIMEOUTS.items()
    },
    name="TimeoutsSchema",
)
ModelTimeoutsSchema = Schema.from_dict(
    {name: SecondsField(metadata=_help(help)) for name, help in _TIMEOUTS.items()}, name="ModelTimeoutsSchema"
)


class BreakerSchema(Schema):
    """`breaker = { … }` of a connection."""

    failures = _whole(
        0, 1000, load_default=_breaker.failures, metadata=_help("failures in a row that open it; 0 never does")
    )
    open = SecondsField(load_default=_breaker.open, metadata=_help("seconds until one exchange may try again"))


class RetrySchema(Schema):
    """`retry = { … }` of a model."""

    attempts = _whole(
        1, 20, load_default=_retry.attempts, metadata=_help("calls of upstreams in one exchange, at most")
    )
    backoff = SecondsField(
        load_default=_retry.backoff, metadata=_help("the first wait before a target is tried again is drawn up to it")
    )
    longest_wait = SecondsField(
        load_default=_retry.longest_wait,
        metadata=_help("no wait is longer; an upstream that asks for more is not tried again"),
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
        load_default=None, metadata=_help("the HTTP proxy to go through, as a URL; with a password as a secret")
    )
    no_proxy = _texts("hosts, `.domains` and networks that are reached without the proxy", load_default=[])
    ca_file = PathField(
        exists="file",
        load_default=None,
        metadata=_help("certificates to trust, PEM; the system's when left out"),
    )
    client_cert = PathField(
        exists="file", load_default=None, metadata=_help("the certificate to show, PEM; may hold its key")
    )
    client_key = PathField(exists="file", load_default=None, metadata=_help("the key of `client_cert`, PEM"))
    timeouts = fields.Nested(
        TimeoutsSchema, load_default=lambda: TimeoutsSchema().load({}), metadata=_help("how long an upstream may take")
    )
    breaker = fields.Nested(
        BreakerSchema,
        load_default=lambda: BreakerSchema().load({}),
        metadata=_help("when a target that keeps failing is left alone"),
    )
    pool_size = _whole(
        1, 10000, load_default=_connection.pool_size, metadata=_help("idle connections that a worker keeps open")
    )
    max_answer_bytes = _whole(
        1024, load_default=_connection.max_answer_bytes, metadata=_help("the longest answer that is taken, in bytes")
    )
    replay_stale = FlagField(
        load_default=_connection.replay_stale,
        metadata=_help("send a request again when a kept connection turns out to be closed; it may then run twice"),
    )


class ServerSchema(Schema):
    """`[server]`."""

    bind = BindField(load_default=_server.bind, metadata=_help('where to listen: `"HOST:PORT"` or `"unix:/PATH"`'))
    state = PathField(
        load_default=lambda: resolve("var"),
        metadata=_help("folder for database, journal and keys; on a local disk", default="var"),
    )
    insecure = FlagField(
        load_default=_server.insecure, metadata=_help("allow a chain that authenticates nobody; on loopback only")
    )
    worker = fields.String(
        validate=validate.OneOf(WORKERS, error=f"must be one of {', '.join(WORKERS)}"),
        load_default=_server.worker,
        metadata=_help("how a worker serves many at once: `threads` or `gevent`; a change needs a restart"),
    )
    workers = _whole(
        1,
        512,
        load_default=lambda: max(2, len(os.sched_getaffinity(0))),
        metadata=_help("worker processes; one a core, at least 2, when left out"),
    )
    threads = _whole(1, 10000, load_default=_server.threads, metadata=_help("exchanges in flight per worker"))
    plugins_dir = PathField(exists="folder", load_default=None, metadata=_help("folder with plugin files of your own"))
    max_body_bytes = _whole(1024, load_default=_server.max_body_bytes, metadata=_help("the longest request body"))
    max_bodies_bytes = _whole(
        1024, load_default=_server.max_bodies_bytes, metadata=_help("all request bodies in flight in one worker")
    )
    heartbeat = SecondsField(
        load_default=_server.heartbeat, metadata=_help("seconds of silence in a stream before a comment is sent")
    )
    proxied = FlagField(
        load_default=_server.proxied,
        metadata=_help("believe X-Forwarded-For, X-Forwarded-Proto and X-Request-ID: only behind nginx that sets them"),
    )
    target_headers = FlagField(
        load_default=_server.target_headers,
        metadata=_help("tell callers x-lockgate-target and x-lockgate-attempts"),
    )


class KeysSchema(Schema):
    """`[keys]`."""

    pepper = SecretField(
        load_default=None,
        metadata=_help("the secret in every key's digest; made once in the state folder where it is left out"),
    )


class ModelSchema(Schema):
    """`[models.PATTERN]`."""

    targets = fields.List(
        TargetField(),
        required=True,
        validate=validate.Length(min=1),
        metadata=_help(
            'where it is served, tried in order: `"PROVIDER"`, `"PROVIDER/MODEL"`, or `{ to = "…", weight = 2 }`: '
            "of those with a weight one is drawn to be first"
        ),
    )
    chain = _texts("plugins for this model's exchanges; the top-level chain where it is left out", load_default=None)
    public = FlagField(load_default=False, metadata=_help("callers need no credential"))
    web_search = FlagField(load_default=False, metadata=_help("callers may ask for web search"))
    parameters = _texts("request parameters beyond OpenAI's that callers may set; `*` allows all", load_default=[])
    timeouts = fields.Nested(
        ModelTimeoutsSchema, load_default=dict, metadata=_help("instead of the provider's, one by one")
    )
    retry = fields.Nested(
        RetrySchema, load_default=lambda: RetrySchema().load({}), metadata=_help("how often targets are tried")
    )


class FileSchema(Schema):
    """The file's top level."""

    chain = _texts("the plugins that every exchange goes through, in this order", load_default=[])
    server = fields.Nested(ServerSchema, load_default=dict, metadata=_help("how to listen and where to keep things"))
    egress = fields.Nested(ConnectionSchema, load_default=dict, metadata=_help("how upstreams are reached"))
    keys = fields.Nested(KeysSchema, load_default=dict, metadata=_help("API keys"))
    plugins = fields.Dict(keys=fields.String(), load_default=dict, metadata=_help("the plugins by name"))
    providers = fields.Dict(keys=fields.String(), load_default=dict, metadata=_help("the providers by name"))
    models = fields.Dict(keys=fields.String(), load_default=dict, metadata=_help("the models by name or pattern"))
