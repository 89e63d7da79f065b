"""Admin keys: what opens the admin application, in a file of their own so that they need no database."""

from __future__ import annotations

import fcntl
import hmac
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from proxy.access.keys import new_key
from proxy.access.pepper import pepper
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.settings import Settings

PREFIX = "lga_"
#: No key is half as long; what is longer is cut before it is digested, which makes it no key either.
LONGEST = 128


@dataclass(frozen=True, slots=True)
class AdminKey:
    """One line of the file. `created` is seconds since 1970; `digest` is hexadecimal and never shown."""

    id: str
    name: str
    created: float
    digest: str = field(repr=False)


class AdminKeys:
    """The keys in `<state>/admin-keys`. What goes wrong with the file raises `ConfigError`."""

    def __init__(self, settings: Settings) -> None:
        self.path: Path = settings.server.state / "admin-keys"
        self._settings = settings

    def create(self, id: str, name: str) -> str:
        """Make a key and return it; it is not kept and cannot be shown again."""
        text = PREFIX + new_key(id)[1].partition("_")[2]
        with self._changing() as known:
            known.append(AdminKey(id, name, time.time(), self._digest(text)))
        return text

    def revoke(self, id: str) -> None:
        """End the key with this id, if there is one, at once."""
        with self._changing() as known:
            known[:] = [key for key in known if key.id != id]

    def opens(self, text: str) -> bool:
        """Say whether `text` is a key, in the same time whatever of it is right."""
        digest = self._digest(text[:LONGEST])
        # All of them, and no early end.
        return sum(hmac.compare_digest(digest, key.digest) for key in self.read()) > 0

    def read(self) -> list[AdminKey]:
        """Return the keys; none where there is no file."""
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise ConfigError([f"{self.path} is open to other users (mode {mode:04o}): chmod 600 {self.path}"])
                return [AdminKey(**orjson.loads(line)) for line in file]
        except FileNotFoundError:
            return []
        except OSError as failure:
            raise ConfigError([f"{self.path}: {failure.strerror}"]) from failure
        except (ValueError, TypeError) as failure:
            raise ConfigError([f"{self.path}: damaged: remove it and make new keys"]) from failure

    def _digest(self, text: str) -> str:
        # With words in front: no digest of a caller's key is one of an admin key.
        return hmac.digest(pepper(self._settings), b"admin key: " + text.encode("utf-8", "replace"), "sha256").hex()

    @contextmanager
    def _changing(self) -> Iterator[list[AdminKey]]:
        """Read the keys and write what the block makes of them, alone and all or nothing."""
        folder, draft = self.path.parent, self.path.with_name(".admin-keys")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            turn = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise ConfigError([f"{folder}: {failure.strerror}"]) from failure
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            known = self.read()
            yield known
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(b"".join(orjson.dumps(asdict(key)) + b"\n" for key in known))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.path)
        except OSError as failure:
            raise ConfigError([f"{self.path}: {failure.strerror}"]) from failure
        finally:
            os.close(turn)
