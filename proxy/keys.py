"""API keys: their form, their digest, and the rows that say what each may do."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import string
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, insert, select, update

from proxy.config.sections import PEPPER_LENGTH
from proxy.errors import ConfigError
from proxy.records.database import Database, explained, location
from proxy.records.tables import LONGEST, keys, versions

if TYPE_CHECKING:
    from proxy.settings import Settings

PREFIX = "lg_"
ID_LENGTH = 12
SECRET_LENGTH = 43  # of 62 characters: 256 bits


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table. Times are seconds since 1970; `digest` is never shown."""

    id: str
    digest: bytes = field(repr=False)
    name: str
    team: str | None
    owner: str | None
    note: str | None
    grants: Mapping[str, Any]
    limits: Mapping[str, Any]
    created: float
    expires: float | None
    revoked: float | None
    version: int

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def new_key() -> tuple[str, str]:
    """Return a new id and the key `lg_<id>_<secret>` with it. The secret has 256 random bits and no underscore."""
    id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(SECRET_LENGTH))
    return id, f"{PREFIX}{id}_{secret}"


def digest(pepper: bytes, key: str) -> bytes:
    """Return the 32 bytes under which a key is kept and found: HMAC-SHA256 of any text, legal key or not.

    A fast digest is right here: a key is 256 random bits, which nobody finds by trying, unlike a password.
    """
    return hmac.digest(pepper, key.encode("utf-8", "surrogatepass"), "sha256")


def pepper(settings: Settings) -> bytes:
    """Return the secret that goes into every digest: the configured one, else `<state>/pepper`, made when missing.

    Raises `ConfigError` when it is too short or the file is open to others. Losing it makes every key unknown.
    """
    if settings.pepper is not None:
        return _long_enough(settings.pepper.reveal(), "keys.pepper")
    path = settings.server.state / "pepper"
    try:
        if not path.exists():
            _write_once(path, secrets.token_hex(32) + "\n")
        with path.open(encoding="utf-8", errors="replace") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError([f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"])
            return _long_enough(file.read(), str(path))
    except OSError as failure:
        raise ConfigError([f"{path}: {failure.strerror}: the file must be readable for this user"]) from failure


def _long_enough(text: str, where: str) -> bytes:
    text = text.strip()
    if len(text) < PEPPER_LENGTH:
        raise ConfigError([f"{where}: must have at least {PEPPER_LENGTH} characters, e.g. from `openssl rand -hex 32`"])
    return text.encode()


def _write_once(path: Path, text: str) -> None:
    """Make the file whole and for its owner alone; where another process was faster, its file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # unlike a rename, refuses to replace
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def create(
    connection: Connection,
    pepper: bytes,
    *,
    name: str,
    team: str | None = None,
    owner: str | None = None,
    note: str | None = None,
    grants: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    expires: float | None = None,
    clock: Callable[[], float] = time.time,
) -> tuple[Key, str]:
    """Make a key; return its row and the key itself, which is not kept anywhere and cannot be shown again.

    `connection` is one of `Database.write`. Raises `ValueError` for a name, team, owner or note that is empty, too
    long, or cannot be printed.
    """
    texts = {"name": name, "team": team, "owner": owner, "note": note}
    for column, text in texts.items():
        if text is not None and not (text.strip() and text.isprintable() and len(text) <= LONGEST[column]):
            raise ValueError(f"{column}: 1 to {LONGEST[column]} printable characters are needed")
    id, key = new_key()
    row: dict[str, Any] = {
        "id": id,
        "digest": digest(pepper, key),
        **texts,
        "grants": dict(grants or {}),
        "limits": dict(limits or {}),
        "created": clock(),
        "expires": expires,
        "revoked": None,
        "version": _next_version(connection),
    }
    connection.execute(insert(keys).values(row))
    return Key(**row), key


def read_all(connection: Connection) -> list[Key]:
    """Return every key, revoked ones too, in the order in which they were made."""
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created, keys.c.id))]


def revoke(connection: Connection, id: str, *, clock: Callable[[], float] = time.time) -> Key:
    """End a key for good; every worker knows within 2 s. A revoked one stays as it is. Raises `KeyError` if unknown.

    `connection` is one of `Database.write`.
    """
    found = connection.execute(select(keys).where(keys.c.id == id)).one_or_none()
    if found is None:
        raise KeyError(id)
    if found.revoked is not None:
        return _key(found)
    change = update(keys).where(keys.c.id == id).values(revoked=clock(), version=_next_version(connection))
    return _key(connection.execute(change.returning(*keys.c)).one())


def ensure_first_key(settings: Settings) -> str | None:
    """Make the key `first` in a database that never had any, and return it; `None` when there was one.

    Of several processes at once only one gets a key. Raises `ConfigError` when the database cannot be used.
    """
    with closing(Database(location(settings))) as database, explained(database), database.write() as connection:
        if connection.execute(select(func.count()).select_from(keys)).scalar_one():
            return None
        return create(connection, pepper(settings), name="first")[1]


def _next_version(connection: Connection) -> int:
    bump = update(versions).values(version=versions.c.version + 1).returning(versions.c.version)
    return int(connection.execute(bump).scalar_one())


def _key(row: Row[Any]) -> Key:
    return Key(**row._mapping)
