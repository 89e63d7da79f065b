"""What each host has one of: its name in the ledger, and its shipper."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from proxy.secrets import write_once


def name(state: Path) -> str:
    """Return what this host is called in the ledger: its name, and a random part that `<state>/host` keeps."""
    path = state / "host"
    with suppress(FileNotFoundError):
        return path.read_text("ascii").strip()
    called = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    write_once(path, f"{called}-{secrets.token_hex(4)}\n")
    return path.read_text("ascii").strip()


def lock(state: Path) -> int | None:
    """Become this host's only shipper; return the descriptor that holds the lock, `None` where another one is."""
    descriptor = os.open(state / "shipper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ships(state: Path) -> bool:
    """Say whether this host has a shipper; makes nothing."""
    try:
        descriptor = os.open(state / "shipper.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
