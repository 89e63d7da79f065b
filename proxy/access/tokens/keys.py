"""The public keys with which one issuer signs: fetched in the background, kept while the issuer is down."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
import requests

from proxy.access.tokens.source import ALGORITHMS, Source, safe
from proxy.errors import Reject

log = logging.getLogger("lockgate.tokens")

#: A token with a key that is not known has the keys fetched again, but not sooner than this after the last time.
COOLDOWN_S = 30.0
#: How long a fetch may take, and how large what it brings may be.
PATIENCE_S = 5.0
LONGEST_BYTES = 1 << 20
MOST_KEYS = 200
DISCOVERY = "/.well-known/openid-configuration"
SMALLEST_RSA = 2048


@dataclass(frozen=True, slots=True)
class Key:
    """One public key and the algorithms that it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    public: Any


class SigningKeys:
    """The keys of one issuer. `find` looks into memory alone; a thread fetches, from `start` to `stop`.

    They are fetched every `refresh_s` seconds, and when a token names one that is not known. While that fails those
    that were fetched last stay, for `stale_s` seconds. `generation` counts the changes.
    """

    def __init__(
        self, source: Source, http: Callable[[], requests.Session], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        self.generation = 0
        self._http = http
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._said: Any = None
        self._good: float | None = None  # when the keys were last fetched,
        self._tried: float | None = None  # and when that was last tried
        self._failing = False
        self._wanted = threading.Event()
        self.loaded = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._follow, name="signing-keys", daemon=True)

    def start(self) -> None:
        """Begin to fetch; `loaded` is set when the first keys are there, without which tokens get a 503."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a fetch that is under way is not waited for."""
        self._stopped = True
        self._wanted.set()

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key that a token names, `None` if the issuer has no such key for this algorithm.

        Without a name the issuer's only key for the algorithm is meant. Raises `Reject` (503) while it is not known
        which keys the issuer has.
        """
        now = self._clock()
        if self._good is None or now - self._good > self.source.stale_s:
            raise unavailable()
        fitting = [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]
        if len(fitting) == 1:
            return fitting[0]
        if kid is None or fitting:
            return None
        if self._failing:
            raise unavailable()
        if self._tried is None or now - self._tried >= COOLDOWN_S:
            # Perhaps a new key that the issuer has begun to sign with: asked now, known in a moment.
            self._wanted.set()
            raise unavailable(1)
        return None

    def refresh(self) -> None:
        """Fetch the keys and take them over; a failure is logged once, until it is over."""
        self._tried = self._clock()
        try:
            said = self._read()
            keys = parsed(said, self.source.algorithms)
            if not keys:
                raise ValueError("holds no key that may be used")
        # Whatever it is: the thread must go on, and the keys that are known with it.
        except Exception as failure:
            if not self._failing:
                # Not its text: requests puts whole URLs into it.
                what = str(failure) if type(failure) is ValueError else type(failure).__name__
                log.error("signing keys of %s cannot be had: %s", self.source.issuer, what)
            self._failing = True
            return
        if self._failing or self._good is None:
            log.info("signing keys of %s: %d", self.source.issuer, len(keys))
        self._failing = False
        if said != self._said:
            self._said, self._keys = said, keys
            self.generation += 1
        self._good = self._clock()
        self.loaded.set()

    def _follow(self) -> None:
        while not self._stopped:
            self._wanted.clear()
            self.refresh()
            # Sooner where there are none yet; not all workers at the same moment.
            pause = self.source.refresh_s if self._good is not None and not self._failing else COOLDOWN_S / 6
            self._wanted.wait(min(pause, self.source.refresh_s) * random.uniform(0.9, 1.1))

    def _read(self) -> Any:
        if self.source.file is not None:
            with self.source.file.open("rb") as file:
                return _document(file.read(LONGEST_BYTES + 1))
        url = self.source.url
        with self._http() as session:
            if url is None:
                said = self._get(session, self.source.issuer.rstrip("/") + DISCOVERY)
                if said.get("issuer") != self.source.issuer:
                    raise ValueError("the discovery document is another issuer's")
                url = said.get("jwks_uri")
                if not isinstance(url, str) or not safe(url, self.source.issuer):
                    raise ValueError("the discovery document names no safe jwks_uri")
            return self._get(session, url)

    def _get(self, session: requests.Session, url: str) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        headers = {"accept": "application/json"}
        with session.get(url, headers=headers, timeout=PATIENCE_S, stream=True, allow_redirects=False) as response:
            if response.status_code != 200:
                raise ValueError(f"the issuer answered {response.status_code}")
            got = b""
            while part := response.raw.read1(65536, decode_content=True):
                got += part
                if len(got) > LONGEST_BYTES or time.monotonic() > until:
                    raise ValueError("the issuer's answer is too long or too slow")
        return _document(got)


def unavailable(wait_s: int = 5) -> Reject:
    """Return the refusal of a token that cannot be checked at the moment: closed, but worth another try."""
    return Reject(
        503,
        "signing_keys_unavailable",
        "The gateway cannot check this token at the moment. Try again shortly.",
        headers={"retry-after": str(wait_s), "x-should-retry": "true"},
    )


def parsed(said: Any, algorithms: frozenset[str]) -> tuple[Key, ...]:
    """Return the public keys of a JWK set (RFC 7517) that may verify with one of `algorithms`; others are left out.

    Raises `ValueError` where it is no set.
    """
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError("is no JWK set")
    found = (_key(jwk, algorithms) for jwk in listed if isinstance(jwk, dict))
    return tuple(key for key in found if key is not None)


def _key(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> Key | None:
    kind = jwk.get("crv") if jwk.get("kty") == "EC" else jwk.get("kty")
    fitting = frozenset(name for name in algorithms if ALGORITHMS[name] == kind)
    if jwk.get("alg") is not None:
        fitting &= {jwk["alg"]} if isinstance(jwk["alg"], str) else frozenset()
    operations = jwk.get("key_ops")
    signs = jwk.get("use") in (None, "sig") and (not isinstance(operations, list) or "verify" in operations)
    if not fitting or not signs:
        return None
    # Only what makes a public key: nothing in it may lead elsewhere, and a private part stays unread.
    public = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
    try:
        made = jwt.PyJWK(public, algorithm=min(fitting)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and made.key_size < SMALLEST_RSA:
        return None
    kid = jwk.get("kid")
    return Key(kid if isinstance(kid, str) else None, fitting, made)


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_BYTES:
        raise ValueError("is too long")
    try:
        said = orjson.loads(raw)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(said, dict):
        raise ValueError("is no JSON object")
    return said
