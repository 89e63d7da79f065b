"""Whether the certificates that the configuration names can be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def trouble(connection: Mapping[str, Any], where: str) -> list[str]:
    """Return what is wrong with the certificate files of one connection, a line each."""
    ca, cert, key = (connection.get(name) for name in ("ca_file", "client_cert", "client_key"))
    if key is not None and cert is None:
        return [f"{where}.client_key: has no client_cert to go with"]
    if ca is None and cert is None:
        return []
    import ssl  # only those who have certificates of their own pay for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lines = []
    try:
        if ca is not None:
            context.load_verify_locations(ca)
            if not context.cert_store_stats()["x509"]:
                lines.append(f"{where}.ca_file: {ca} holds no certificate")
    except (ssl.SSLError, OSError):
        lines.append(f"{where}.ca_file: {ca} does not hold certificates in PEM form")
    try:
        if cert is not None:
            # An empty password: without one OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError):
        lines.append(f"{where}.client_cert: {_pair(cert, key)} in PEM form, the key without a password")
    return lines


def _pair(cert: Path | None, key: Path | None) -> str:
    if key is None:
        return f"{cert} must hold a certificate and its key (or name the key as client_key)"
    return f"{cert} and {key} must be a certificate and its key"
