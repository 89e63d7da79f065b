"""Whether the certificates that the configuration names can be used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.settings import Connection


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


def expired(connection: Connection, where: str) -> list[str]:
    """Return which certificate files of one connection are out of date, a line each.

    Of authorities one that holds is enough: while they are renewed, a file has the old one and the new one.
    """
    import _ssl
    import ssl

    lines = []
    if connection.ca_file is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(connection.ca_file)
        authorities = context.get_ca_certs()
        if authorities and not any(_holds(authority) for authority in authorities):
            lines.append(f"{where}.ca_file: every certificate in {connection.ca_file} has expired")
    if connection.client_cert is not None:
        # The one way of the standard library to read a certificate that is not an authority's.
        mine = _ssl._test_decode_cert(str(connection.client_cert))  # type: ignore[attr-defined]
        if not _holds(mine):
            lines.append(f"{where}.client_cert: {connection.client_cert} has expired (valid until {mine['notAfter']})")
    return lines


def _holds(certificate: Mapping[str, Any]) -> bool:
    import ssl

    return time.time() < ssl.cert_time_to_seconds(certificate["notAfter"])


def _pair(cert: Path | None, key: Path | None) -> str:
    if key is None:
        return f"{cert} must hold a certificate and its key (or name the key as client_key)"
    return f"{cert} and {key} must be a certificate and its key"
