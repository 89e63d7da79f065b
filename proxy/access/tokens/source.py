"""Where an issuer's signing keys come from, and which algorithms they may be used with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: The algorithms that may be allowed, by what kind of key they need. None of them shares a secret with the issuer.
ALGORITHMS = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "OKP",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """Where an issuer's keys are: a file, a URL, or where the issuer's own discovery document says."""

    issuer: str
    url: str | None = None
    file: Path | None = None
    algorithms: frozenset[str] = frozenset()
    refresh_s: float = 300.0
    stale_s: float = 86400.0


def safe(url: str, issuer: str = "") -> bool:
    """Tell whether keys may be fetched from a URL: over TLS, or in clear from this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in ("localhost", "127.0.0.1", "::1") and not issuer.startswith("https:")
    return parts.scheme == "https" and bool(host)
