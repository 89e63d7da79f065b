"""The types of the configuration's values, and how a key is described."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

from proxy.secrets import Secret, SecretField, resolve
from proxy.serving import address


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


class UrlOrSecretField(fields.Field[Secret]):
    """A URL as text; one with a password is a secret: `{ env = "NAME" }` or `{ file = "/path" }`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Secret:
        plain = isinstance(value, str)
        secret = Secret(value) if plain else SecretField().deserialize(value, attr, data, **kwargs)
        if self.has_password(secret.reveal()) and plain:
            raise ValidationError('a password is not written here: put the whole URL into { env = "NAME" } or a file')
        return secret

    def has_password(self, url: str) -> bool:
        """Tell whether a password is in a URL; raise `ValidationError` where it is none of this kind."""
        raise NotImplementedError


class ProxyField(UrlOrSecretField):
    """The URL of an HTTP proxy."""

    def has_password(self, url: str) -> bool:
        """Tell whether a user is named, who may have one."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValidationError('must be a URL like "http://proxy.example:3128"') from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValidationError('must be a URL like "http://proxy.example:3128"; http and https are spoken')
        return parts.username is not None


def whole(low: int, high: int | None = None, **kwargs: Any) -> fields.Integer:
    """Return a field for a whole number from `low` to `high`."""
    return fields.Integer(strict=True, validate=validate.Range(min=low, max=high), **kwargs)


def described(text: str, **more: Any) -> dict[str, Any]:
    """Return the metadata of a key: what it is for, as the reference says it."""
    return {"help": text, **more}


def texts(help: str, **kwargs: Any) -> fields.List[str]:
    """Return a field for a list of texts, none of them empty."""
    item = fields.String(validate=(validate.Length(min=1), _encodable))
    return fields.List(item, metadata=described(help), **kwargs)


def _encodable(text: str) -> None:
    # On the command line, what is not UTF-8 becomes half a surrogate pair, which no database takes.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError("must be Unicode text") from None
