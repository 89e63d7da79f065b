"""What was asked and answered, encrypted: a folder for each day, in it a file for each process."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

logger = logging.getLogger("lockgate")

#: A file begins with these bytes, its salt, and what tells its key from another.
MAGIC = b"LGCONT1\n"
SALT_BYTES, NONCE_BYTES = 16, 12
_HEAD = len(MAGIC) + SALT_BYTES + 8
#: Before each record: how long its id and its text are, in bytes.
_FRAME = struct.Struct(">HI")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class WrongKey(ValueError):
    """A file was written with another key."""


class ContentStore:
    """Encrypted records in `folder`, kept for `days` days (UTC), the day of their writing included; 0 keeps them all.

    Each file has a key of its own, derived from `key` (HKDF-SHA256) with the file's salt; each record is sealed with
    AES-256-GCM, its id and place bound into it, under a nonce of its own. Only ids and lengths can be read without it.
    """

    def __init__(self, folder: Path, key: str, days: int = 30, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._key = key.encode()
        self._days = days
        self._clock = clock
        self._lock = threading.Lock()
        self._day: date | None = None
        self._file = -1
        self._cipher = AESGCM(bytes(32))
        self._head = b""
        self._number = 0
        self._size = 0

    def write(self, id: str, record: dict[str, Any]) -> None:
        """Append a record; raises `OSError` where the disk does not take it, and then leaves nothing of it."""
        text = orjson.dumps(record)
        name = id.encode("utf-8", "replace")[:256]
        with self._lock:
            today = datetime.fromtimestamp(self._clock(), UTC).date()
            if today != self._day:
                self._open(today)
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed = self._cipher.encrypt(nonce, text, _bound(self._head, self._number, name))
            frame = _FRAME.pack(len(name), len(nonce) + len(sealed)) + name + nonce + sealed
            try:
                left = memoryview(frame)
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError:
                os.ftruncate(self._file, self._size)
                raise
            self._size += len(frame)
            self._number += 1

    def find(self, id: str) -> Iterator[dict[str, Any]]:
        """Yield the records of an id, latest day first; raises `WrongKey`, or `ValueError` where one was changed."""
        wanted = id.encode("utf-8", "replace")[:256]
        for day in sorted(self.days(), reverse=True):
            for path in sorted((self.folder / day).glob("*.lgc")):
                yield from self._found(path, wanted)

    def days(self) -> list[str]:
        """Return the days of which there is something, as `2026-01-31`."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _DAY.fullmatch(path.name))

    def purge(self, before: date) -> list[str]:
        """Remove all days before that one, and return them."""
        gone = [day for day in self.days() if day < before.isoformat()]
        for day in gone:
            # Another process may be at it as well.
            shutil.rmtree(self.folder / day, ignore_errors=True)
        return gone

    def close(self) -> None:
        """Close the file that is being written."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file, self._day = -1, None

    def _open(self, today: date) -> None:
        """Begin the file of a day, and remove what is too old by now."""
        if self._days:
            self.purge(today - timedelta(days=self._days - 1))
        folder = self.folder / today.isoformat()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        salt = secrets.token_bytes(SALT_BYTES)
        cipher, mark = self._derived(salt)
        head = MAGIC + salt + mark
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}.lgc"
        made = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(made, head)
        except OSError:
            os.close(made)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._day, self._cipher, self._head = made, today, cipher, head
        self._number, self._size = 0, len(head)

    def _derived(self, salt: bytes) -> tuple[AESGCM, bytes]:
        made = HKDF(SHA256(), 40, salt, b"lockgate contents").derive(self._key)
        return AESGCM(made[:32]), made[32:]

    def _found(self, path: Path, wanted: bytes) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if len(head) < _HEAD or not head.startswith(MAGIC):
                logger.warning("%s: not a file of contents, left out", path)
                return
            cipher: AESGCM | None = None
            number = 0
            while len(frame := file.read(_FRAME.size)) == _FRAME.size:
                name_bytes, size = _FRAME.unpack(frame)
                name = file.read(name_bytes)
                if name != wanted:
                    file.seek(size, os.SEEK_CUR)
                else:
                    if cipher is None:
                        cipher, mark = self._derived(head[len(MAGIC) : len(MAGIC) + SALT_BYTES])
                        if mark != head[-8:]:
                            raise WrongKey(f"{path} was written with another key")
                    sealed = file.read(size)
                    if len(sealed) < size:
                        return  # torn: the process was killed while it wrote
                    try:
                        text = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(head, number, name))
                    except InvalidTag:
                        raise ValueError(f"{path}: record {number + 1} was changed") from None
                    yield orjson.loads(text)
                number += 1


def _bound(head: bytes, number: int, name: bytes) -> bytes:
    """What a record is bound to: its file, its place in it, and its id."""
    return head + struct.pack(">Q", number) + name
