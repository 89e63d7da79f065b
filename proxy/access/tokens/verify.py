"""From a bearer token to an identity: signature and claims checked, what was verified remembered."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
import requests
from jwt.utils import base64url_decode

from proxy.access.credentials import CHALLENGE, wrong_credential
from proxy.access.tokens.claims import Claims
from proxy.access.tokens.keys import SigningKeys
from proxy.access.tokens.source import Source
from proxy.errors import Reject
from proxy.exchange import Identity

#: No header that gets here is longer, and what is longer needs no look.
LONGEST_TOKEN = 32 << 10
#: Verified tokens that are remembered; the one that was used longest ago goes first.
REMEMBERED = 10_000
#: What all tokens begin with: `{"` in base64.
BEGINNING = "eyJ"
REQUIRED = ["exp", "iss", "aud"]


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens are taken: for which audiences, by which keys, and what its claims mean."""

    keys: SigningKeys
    audience: tuple[str, ...]
    claims: Claims
    leeway_s: float = 30.0


class Tokens:
    """Verifies tokens of some issuers. `known` tells whether there is a team of a name.

    A token that was verified is known by the SHA-256 of the whole of it, until it expires or its issuer's keys change.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        known: Callable[[str], bool],
        *,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {issuer.keys.source.issuer: issuer for issuer in issuers}
        self._known = known
        self._most = remembered
        self._clock = clock
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, tuple[Identity, SigningKeys, int]] = OrderedDict()

    @classmethod
    def configured(
        cls, config: Mapping[str, Any], http: Callable[[], requests.Session], known: Callable[[str], bool]
    ) -> Tokens:
        """Make it of what `TokensSchema` loads; keys are fetched through the sessions that `http` makes."""
        issuers = []
        for own in config["issuers"]:
            where = Source(
                own["issuer"],
                own["jwks_url"],
                own["jwks_file"],
                frozenset(own["algorithms"]),
                config["refresh"],
                config["stale"],
            )
            claims = Claims(**{name: own[name] for name in Claims.__slots__})
            issuers.append(Issuer(SigningKeys(where, http), tuple(own["audience"]), claims, config["leeway"]))
        return cls(issuers, known)

    def start(self, wait_s: float = 0.0) -> None:
        """Begin to fetch the keys of all issuers, and wait up to `wait_s` seconds for them."""
        until = time.monotonic() + wait_s
        for issuer in self._issuers.values():
            issuer.keys.start()
        for issuer in self._issuers.values():
            issuer.keys.loaded.wait(max(0.0, until - time.monotonic()))

    def stop(self) -> None:
        """Stop to fetch keys."""
        for issuer in self._issuers.values():
            issuer.keys.stop()

    def identify(self, token: str) -> Identity | None:
        """Return who holds a token, `None` where it is no token of these issuers.

        Raises `Reject`: 401 in the words for any wrong credential, or with the reason where the signature is right;
        403 where its claims do not do; 503 where its issuer's keys are not known.
        """
        if not token.startswith(BEGINNING) or len(token) > LONGEST_TOKEN:
            return None
        try:
            digest = hashlib.sha256(token.encode("ascii")).digest()
        except UnicodeEncodeError:
            return None
        identity = self._recall(digest)
        return identity if identity is not None else self._verify(token, digest)

    def _recall(self, digest: bytes) -> Identity | None:
        with self._lock:
            found = self._verified.get(digest)
            if found is None:
                return None
            identity, keys, generation = found
            live = identity.expires is not None and self._clock() < identity.expires
            if live and generation == keys.generation and (identity.team is None or self._known(identity.team)):
                self._verified.move_to_end(digest)
                return identity
            del self._verified[digest]
            return None

    def _verify(self, token: str, digest: bytes) -> Identity | None:
        try:
            header, claims = _unverified(token)
        except ValueError:
            return None
        said = claims.get("iss")
        issuer = self._issuers.get(said) if type(said) is str else None
        if issuer is None:
            return None
        algorithm: Any = header.get("alg")
        kid: Any = header.get("kid")
        # From the list of the configuration, never from the token alone; no extension of the header is understood.
        allowed = type(algorithm) is str and algorithm in issuer.keys.source.algorithms and "crit" not in header
        if not allowed or not (kid is None or type(kid) is str):
            raise wrong_credential()
        generation = issuer.keys.generation
        key = issuer.keys.find(kid, algorithm)
        if key is None:
            raise wrong_credential()
        claims = _decoded(token, key.public, algorithm, issuer)
        identity = issuer.claims.identity(issuer.keys.source.issuer, claims, self._known)
        if identity.expires is not None and self._clock() < identity.expires:
            with self._lock:
                self._verified[digest] = (identity, issuer.keys, generation)
                if len(self._verified) > self._most:
                    self._verified.popitem(last=False)
        return identity


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims as they are said; raises `ValueError` where it is no signed token."""
    header, claims, _ = token.split(".")
    # orjson: nothing in it recurses, unlike the parser that PyJWT uses.
    said = [orjson.loads(base64url_decode(part)) for part in (header, claims)]
    if not all(type(part) is dict for part in said):
        raise ValueError("no token")
    return said[0], said[1]


def _decoded(token: str, key: Any, algorithm: str, issuer: Issuer) -> dict[str, Any]:
    source = issuer.keys.source
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=issuer.audience,
            issuer=source.issuer,
            leeway=issuer.leeway_s,
            options={"require": REQUIRED},
        )
    # PyJWT looks at the claims only when the signature is right: who sent these has the token, and may know.
    except jwt.ExpiredSignatureError:
        raise _genuine("The token has expired.") from None
    except jwt.ImmatureSignatureError:
        raise _genuine("The token is not valid yet.") from None
    except jwt.InvalidAudienceError:
        raise _genuine("The token is for another audience.") from None
    except jwt.MissingRequiredClaimError as missing:
        raise _genuine(f"The token has no '{missing.claim}'.") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise wrong_credential() from None


def _genuine(reason: str) -> Reject:
    challenge = f'Bearer error="invalid_token", error_description="{reason}"'
    return Reject(401, "invalid_api_key", reason, headers=CHALLENGE | {"www-authenticate": challenge})
