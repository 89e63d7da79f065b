"""Options that several providers have: where the API begins, and further headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import fields, validate

from proxy.secrets import Secret, SecretField
from proxy.upstreams.renewal import printable


class HeaderField(SecretField):
    """The value of a header: a text, or where it is a credential a secret. Loads as a `Secret` either way."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Secret:
        if isinstance(value, str) and re.fullmatch(r"[\x20-\x7e]*", value):
            return Secret(value)
        return printable(super()._deserialize(value, attr, data, **kwargs))


def base_url(help: str, **kwargs: Any) -> fields.Url:
    """Return a field for the URL where an API begins; its host needs no domain."""
    return fields.Url(
        schemes={"http", "https"},
        require_tld=False,
        validate=validate.Regexp(r"[^?#]*$", error="must not have a query or a fragment"),
        metadata={"help": help},
        **kwargs,
    )


def headers(help: str) -> fields.Dict:
    """Return a field for request headers by name."""
    return fields.Dict(
        keys=fields.String(validate=validate.Regexp(r"[A-Za-z0-9-]+\Z")),
        values=HeaderField(),
        load_default=dict,
        metadata={"help": help},
    )
