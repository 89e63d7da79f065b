"""Chained lines: each ends with an HMAC over itself and the one before, so that none can be changed or taken out."""

from __future__ import annotations

import hmac
import os
from binascii import hexlify
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from proxy import mac

#: Half of SHA-256, which RFC 2104 (section 5) allows, in hexadecimal.
MAC_LENGTH = 32
_MAC = b',"mac":"'
_SEAL = len(_MAC) + MAC_LENGTH + len(b'"}\n')
#: What numbering and sealing adds to a line, at most.
ADDED = len(b'"seq":,') + 19 + _SEAL - len(b"}\n")


def seed(key: bytes, name: str) -> bytes:
    """Return what stands before the first line of the file called `name`: no file passes for another one."""
    return hexlify(mac.digest(key, b"lockgate journal file " + name.encode()))[:MAC_LENGTH]


def sealed(key: bytes, before: bytes, seq: int, line: bytes) -> tuple[bytes, bytes]:
    """Return a line of JSON (an object, with its line feed) numbered and chained to `before`, and its own MAC."""
    body = b'{"seq":%d,%b' % (seq, line[1:-2])
    seal = hexlify(mac.digest(key, before + body))[:MAC_LENGTH]
    return b'%b,"mac":"%b"}\n' % (body, seal), seal


@dataclass(slots=True)
class Link:
    """One whole line as it was found. `follows` says that it is what was written, after what stands before it."""

    raw: bytes
    line: dict[str, Any]
    mac: bytes
    follows: bool

    @property
    def seq(self) -> int | None:
        """The number that it was given, or `None` where it has none."""
        seq = self.line.get("seq")
        return seq if isinstance(seq, int) else None


def links(path: Path, key: bytes) -> Iterator[Link]:
    """Yield the whole lines of a chained file; one that does not follow breaks the chain only once."""
    before = seed(key, path.name)
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            body, ending = raw[:-_SEAL], raw[-_SEAL:]
            said = ending[len(_MAC) : -3]
            right = hexlify(mac.digest(key, before + body))[:MAC_LENGTH]
            follows = hmac.compare_digest(b'%b%b"}\n' % (_MAC, right), ending)
            yield Link(raw, _parsed(raw), said, follows)
            before = said


def tail(descriptor: int, size_bytes: int) -> tuple[bytes, int]:
    """Return the last whole line of an open file (nothing where there is none), and the offset behind it."""
    step, have = 1 << 16, b""
    start = size_bytes
    while start > 0:
        start = max(0, start - step)
        have = os.pread(descriptor, size_bytes - start, start)
        end = have.rfind(b"\n") + 1
        begin = have.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if end and (begin or start == 0):
            return have[begin:end], start + end
        step *= 2
    return b"", 0


def end(raw: bytes, key: bytes, name: str) -> tuple[int, bytes]:
    """Return the number and the MAC of the last whole line of the file called `name`, for the next one."""
    line = _parsed(raw)
    seal, seq = line.get("mac"), line.get("seq")
    if isinstance(seq, int) and isinstance(seal, str):
        return seq, seal.encode()
    return 0, seed(key, name)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return line if isinstance(line, dict) else {}
