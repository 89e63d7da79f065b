"""API keys: their form, their digest, and the rows that say what each may do."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, case, func, insert, select, update

from proxy import mac
from proxy.access.pepper import agreed, settle
from proxy.records.database import Database, explained, location
from proxy.records.tables import LONGEST, keys, retired, versions

if TYPE_CHECKING:
    from proxy.settings import Settings

PREFIX = "lg_"
ID_LENGTH = 12
SECRET_LENGTH = 43  # of 62 characters: 256 bits

Clock = Callable[[], float]


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


def new_id() -> str:
    """Return a new id of a key."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(ID_LENGTH))


def new_key(id: str | None = None) -> tuple[str, str]:
    """Return an id, new if not given, and the key `lg_<id>_<secret>`. The secret has 256 random bits, no underscore."""
    id = id or new_id()
    secret = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(SECRET_LENGTH))
    return id, f"{PREFIX}{id}_{secret}"


def digest(pepper: bytes, key: str) -> bytes:
    """Return the 32 bytes under which a key is kept and found: HMAC-SHA256 of any text, legal key or not.

    A fast digest is right here: a key is 256 random bits, which nobody finds by trying, unlike a password.
    """
    return mac.digest(pepper, key.encode("utf-8", "surrogatepass"))


def printable(**texts: str | None) -> None:
    """Raise `ValueError` for a name, team, owner or note that is empty, too long, or cannot be printed."""
    for column, text in texts.items():
        if text is not None and not (text.strip() and text.isprintable() and len(text) <= LONGEST[column]):
            raise ValueError(f"{column}: 1 to {LONGEST[column]} printable characters are needed")


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
    clock: Clock = time.time,
) -> tuple[Key, str]:
    """Make a key; return its row and the key itself, which is not kept anywhere and cannot be shown again.

    `connection` is one of `Database.write`, `grants` and `limits` are as their schemas load them. Raises `ValueError`
    as `printable` does.
    """
    printable(name=name, team=team, owner=owner, note=note)
    id, text = new_key()
    key = Key(
        id=id,
        digest=digest(pepper, text),
        name=name,
        team=team,
        owner=owner,
        note=note,
        grants=dict(grants or {}),
        limits=dict(limits or {}),
        created=clock(),
        expires=expires,
        revoked=None,
        version=next_version(connection),
    )
    add_all(connection, pepper, [key])
    return key, text


def add_all(connection: Connection, pepper: bytes, rows: list[Key]) -> None:
    """Insert rows, whose digests were made with `pepper`. All of them may have the same version, if it is the next."""
    settle(connection, pepper)
    if rows:
        connection.execute(insert(keys), [{name: getattr(row, name) for name in Key.__slots__} for row in rows])


def read_all(connection: Connection) -> list[Key]:
    """Return every key, revoked ones too, in the order in which they were made."""
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created, keys.c.id))]


def read(connection: Connection, id: str) -> Key:
    """Return one key; raises `KeyError` if it is unknown."""
    found = connection.execute(select(keys).where(keys.c.id == id)).one_or_none()
    if found is None:
        raise KeyError(id)
    return _key(found)


def retiring(connection: Connection, id: str, now: float) -> list[float]:
    """Return when each of the earlier secrets of a key ends that are still good at `now`, the first one first."""
    ends = select(retired.c.ends).where(retired.c.key == id, retired.c.ends > now).order_by(retired.c.ends)
    return list(connection.execute(ends).scalars())


def change(connection: Connection, id: str, **changes: Any) -> Key:
    """Change name, team, owner, note, grants, limits or expiry; every worker knows within 2 s.

    Raises `KeyError` if the key is unknown, `ValueError` if it is revoked and as `printable` does.
    """
    _live(connection, id)
    printable(**{name: text for name, text in changes.items() if name in LONGEST})
    return _changed(connection, id, changes)


def rotate(
    connection: Connection, pepper: bytes, id: str, *, grace_s: float, clock: Clock = time.time
) -> tuple[Key, str]:
    """Give a key a new secret; return its row and the key itself. The earlier one is good for `grace_s` seconds more.

    So are the ones before it, if they do not end sooner. Raises `KeyError` if the key is unknown, `ValueError` if it
    is revoked or expired.
    """
    now = clock()
    old = _live(connection, id)
    if old.state(now) == "expired":
        raise ValueError(f"the key {id} has expired: give it a later end first")
    end = now + grace_s
    sooner = case((retired.c.ends > end, end), else_=retired.c.ends)
    connection.execute(update(retired).where(retired.c.key == id).values(ends=sooner))
    connection.execute(insert(retired).values(digest=old.digest, key=id, ends=end))
    _, text = new_key(id)
    settle(connection, pepper)
    return _changed(connection, id, {"digest": digest(pepper, text)}), text


def revoke(connection: Connection, id: str, *, clock: Clock = time.time) -> Key:
    """End a key for good; every worker knows within 2 s. A revoked one stays as it is. Raises `KeyError` if unknown.

    `connection` is one of `Database.write`.
    """
    found = read(connection, id)
    return found if found.revoked is not None else _changed(connection, id, {"revoked": clock()})


def revoke_all(connection: Connection, *, clock: Clock = time.time) -> int:
    """End every key for good; return how many."""
    ended = update(keys).where(keys.c.revoked.is_(None))
    return connection.execute(ended.values(revoked=clock(), version=next_version(connection))).rowcount


def ensure_first_key(settings: Settings) -> str | None:
    """Make the key `first` in a database that never had any, and return it; `None` when there was one.

    Of several processes at once only one gets a key. Raises `ConfigError` when the database cannot be used.
    """
    with closing(Database(location(settings))) as database, explained(database):
        pepper = agreed(settings, database)
        with database.write() as connection:
            if connection.execute(select(func.count()).select_from(keys)).scalar_one():
                return None
            return create(connection, pepper, name="first")[1]


def next_version(connection: Connection) -> int:
    """Take the next version of the database, for the rows that this transaction changes."""
    bump = update(versions).values(version=versions.c.version + 1).returning(versions.c.version)
    return int(connection.execute(bump).scalar_one())


def _live(connection: Connection, id: str) -> Key:
    found = read(connection, id)
    if found.revoked is not None:
        raise ValueError(f"the key {id} is revoked, for good: make another")
    return found


def _changed(connection: Connection, id: str, values: Mapping[str, Any]) -> Key:
    changed = update(keys).where(keys.c.id == id).values(**values, version=next_version(connection))
    return _key(connection.execute(changed.returning(*keys.c)).one())


def _key(row: Row[Any]) -> Key:
    return Key(**row._mapping)
