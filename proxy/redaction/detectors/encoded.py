"""Long runs of characters: secrets in base64, and tokens that nothing begins with."""

from __future__ import annotations

import base64
import binascii
import re

from proxy.redaction.detectors import passwords, shapes
from proxy.redaction.scan import Scan
from proxy.redaction.telling import SECRETS

RUN = r"[A-Za-z0-9+/_\-]{24,}"
"""A run of characters that may be a secret in base64, or have a shape that nothing begins with."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]{24,}={0,2}")
_DISCORD = re.compile(r"[A-Za-z0-9_-]{23,28}\.[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{27,45}(?![A-Za-z0-9_-])")
_PREFIX = re.compile(shapes.PREFIXES)
_NAME = re.compile(SECRETS)


def inspect(scan: Scan, start: int, end: int) -> None:
    """Look at a long run of characters: a token without a prefix, or a secret in base64."""
    text = scan.text
    match = _DISCORD.match(text, start)
    if match and _named_by_number(match[0].split(".")[0]):
        scan.add(match.start(), match.end(), "secret", 0)
        return
    match = _BASE64.match(text, start, end + 2)
    if match is None:
        return
    begin = match.start()
    decoded = _decoded(match[0])
    if decoded is not None and _has_secret(decoded):
        scan.add(begin, match.end(), "secret", 1)


def _named_by_number(first: str) -> bool:
    decoded = _decoded(first)
    return decoded is not None and decoded.isdigit()


def _decoded(run: str) -> str | None:
    """Return what a run of base64 stands for, if it is readable text."""
    plain = run.rstrip("=").replace("-", "+").replace("_", "/")
    if len(plain) % 4 == 1:
        return None
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return None
    if not data.isascii():
        return None
    text = data.decode("ascii")
    return (
        text if text.isprintable() or text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() else None
    )


def _has_secret(text: str) -> bool:
    inner = Scan(text, frozenset(("secret",)))
    for match in _PREFIX.finditer(text):
        shapes.inspect(inner, match.start())
        if inner.found:
            return True
    for match in _NAME.finditer(text):
        passwords.inspect(inner, match.start(), match.end())
        if inner.found:
            return True
    return False
