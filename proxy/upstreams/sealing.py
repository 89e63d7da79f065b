"""What a dialect must carry from turn to turn, sealed into ids that clients return anyway."""

from __future__ import annotations

import base64
import binascii
import hmac
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

#: No id that is longer is looked into.
LONGEST = 1 << 20


class Sealer:
    """Turns bytes into an id that only this gateway, or another with the same secret, can open.

    The same bytes give the same id (AES-SIV, RFC 5297), so that a conversation that is sent again is the same text.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"lockgate sealed ids", "sha512")

    @cached_property
    def _cipher(self) -> AESSIV:
        # Not with this module: a gateway that has sealed nothing need not load the library.
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(self._key)

    def seal(self, payload: bytes, prefix: str = "call_") -> str:
        """Return `prefix` and the sealed payload, which is not empty, in letters, digits, - and _."""
        sealed = self._cipher.encrypt(payload, [prefix.encode()])
        return prefix + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, id: str, prefix: str = "call_") -> bytes | None:
        """Return what was sealed into `id`; `None` where it is any other id, or sealed by somebody else."""
        from cryptography.exceptions import InvalidTag

        text = id.removeprefix(prefix)
        if text == id or len(text) > LONGEST:
            return None
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return self._cipher.decrypt(raw, [prefix.encode()])
        except (binascii.Error, ValueError, InvalidTag):
            return None
