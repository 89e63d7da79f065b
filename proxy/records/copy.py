"""The keys and teams as this host last read them, in a file: for workers that start while the database is away."""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

#: Bytes of the seal, which the file begins with.
SEAL = 32


@dataclass(frozen=True, slots=True)
class Held:
    """What a snapshot held at `read`, in seconds since 1970; `teams` are name, grants and limits of each."""

    read: float
    version: int
    records: Mapping[bytes, bytes]
    teams: list[tuple[str, dict[str, Any], dict[str, Any]]]


class Copy:
    """The file at `path`, for its owner alone. It has the keys' digests and no key.

    Sealed with the pepper, so that one that is torn, forged or of another pepper is none; so is one of another database
    than `source`.
    """

    def __init__(self, path: Path, pepper: bytes, source: str) -> None:
        self._path = path
        self._secret = hmac.digest(pepper, b"the copy of the keys", "sha256")
        self._source = source

    def write(self, held: Held, *, unless_s: float | None = None) -> bool:
        """Replace the file, unless another worker did: with the same version, read less than `unless_s` seconds sooner.

        Returns false where another worker is about it: ask again. Raises `OSError`; then there is no file any more,
        rather than one in which a key lives that has been revoked since.
        """
        turn = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if unless_s is None or not self._written(held.version, held.read - unless_s):
                self._replace(held)
            return True
        except BlockingIOError:
            return False
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(turn)

    def read(self) -> Held | None:
        """Return what the file holds, `None` where there is none or none that may be used."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            return None
        if not hmac.compare_digest(raw[:SEAL], self._seal(raw[SEAL:])):
            return None
        head, at = _head(raw)
        if head["source"] != self._source:
            return None
        texts = []
        while at < len(raw):
            begin = at + 4
            at = begin + int.from_bytes(raw[at:begin])
            texts.append(raw[begin:at])
        return Held(head["read"], head["version"], dict(zip(texts[::2], texts[1::2], strict=True)), head["teams"])

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")

    def _written(self, version: int, since: float) -> bool:
        try:
            with self._path.open("rb") as file:
                head, _ = _head(file.read(SEAL) + file.readline())
        except (OSError, ValueError):
            return False
        return bool(head["source"] == self._source and head["version"] == version and head["read"] > since)

    def _replace(self, held: Held) -> None:
        head = {"source": self._source, "read": held.read, "version": held.version, "teams": held.teams}
        texts = (text for pair in held.records.items() for text in pair)
        body = b"".join((orjson.dumps(head), b"\n", *(len(text).to_bytes(4) + text for text in texts)))
        draft = self._path.with_name(f".{self._path.name}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(self._seal(body))
            file.write(body)
        draft.rename(self._path)


def _head(raw: bytes) -> tuple[dict[str, Any], int]:
    end = raw.index(b"\n", SEAL)
    return orjson.loads(raw[SEAL:end]), end + 1
