"""The pepper: the secret in every key's digest, and how it is told that it is still the same."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select, update

from proxy.errors import ConfigError
from proxy.records.database import Database
from proxy.records.tables import versions
from proxy.secrets import kept

if TYPE_CHECKING:
    from proxy.settings import Settings


def pepper(settings: Settings) -> bytes:
    """Return the configured pepper, else that of `<state>/pepper`, which is made when missing.

    Raises `ConfigError` when it is too short or the file is open to others. Where keys depend on it, ask `agreed`.
    """
    return kept(settings.pepper, "keys.pepper", _path(settings))


def agreed(settings: Settings, database: Database) -> bytes:
    """Return the pepper after making sure that it is the one that the database's keys were made with.

    The first one that asks settles it. Raises what `vet` and `pepper` raise, and one of `Database.failures`.
    """
    if not vet(settings, database):
        with database.write() as connection:
            settle(connection, pepper(settings))
        # Another process, with another pepper, may have been the first.
        vet(settings, database)
    return pepper(settings)


def known(settings: Settings) -> bytes:
    """Return the pepper, and make none where it is missing; raises `ConfigError` there, and as `pepper` does."""
    if settings.pepper is None and not _path(settings).exists():
        raise _unusable(f"{_path(settings)} is missing")
    return pepper(settings)


def vet(settings: Settings, database: Database) -> bool:
    """Tell whether the database knows its pepper; raises `ConfigError` where that is not this one. Makes nothing."""
    with database.read() as connection:
        noted = connection.execute(select(versions.c.pepper)).scalar_one()
    if noted is None:
        return False
    if not hmac.compare_digest(noted, fingerprint(known(settings))):
        where = "keys.pepper" if settings.pepper is not None else str(_path(settings))
        raise _unusable(f"{where} is not the pepper that the keys were made with")
    return True


def settle(connection: Connection, pepper: bytes, *, anew: bool = False) -> None:
    """Note whose digests the database holds, if it is not noted yet; `anew` overwrites it."""
    noted = update(versions).values(pepper=fingerprint(pepper))
    connection.execute(noted if anew else noted.where(versions.c.pepper.is_(None)))


def fingerprint(pepper: bytes) -> bytes:
    """Return 32 bytes that tell one pepper from another, and nothing about it. No key has this text."""
    return hmac.digest(pepper, b"the fingerprint of the pepper", "sha256")


def _unusable(what: str) -> ConfigError:
    return ConfigError(
        [
            f"{what}, and without that no key can be recognised: restore it from a backup, or copy it from a host "
            "that uses the same database; if it is lost, `lockgate keys reset` revokes every key and begins anew"
        ]
    )


def _path(settings: Settings) -> Path:
    return settings.server.state / "pepper"
