"""How upstreams are reached: the keys of `[egress]`, and those of a provider's own over them."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from proxy.config.fields import FlagField, ProxyField, SecondsField, described, texts, whole
from proxy.secrets import PathField
from proxy.settings import BreakerSettings, Connection, Timeouts

_timeouts = Timeouts()
_connection = Connection()
_breaker = BreakerSettings()

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


def over(egress: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return what a provider writes over what `[egress]` has, both as they are written."""
    merged = egress | own
    for table in ("timeouts", "breaker"):
        if isinstance(own.get(table), dict):
            merged[table] = egress.get(table, {}) | own[table]
    if "client_cert" in own and "client_key" not in own:  # a key belongs to its certificate
        merged.pop("client_key", None)
    return merged


def made(loaded: dict[str, Any]) -> Connection:
    """Return the settings of what the schema has loaded; what is missing there was wrong, and is as by default."""
    proxy = loaded.get("proxy")
    own = {
        "proxy": None if proxy is None else proxy.reveal(),
        "timeouts": Timeouts(**loaded.get("timeouts", {})),
        "breaker": BreakerSettings(**loaded.get("breaker", {})),
        "no_proxy": tuple(loaded.get("no_proxy", ())),
    }
    return Connection(**loaded | own)
