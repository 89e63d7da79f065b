"""An identity provider on loopback: discovery, keys that rotate, failures on demand, and tokens of any kind."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

AUDIENCE = "lockgate"
_ALGORITHMS = get_default_algorithms()


def new_key(algorithm: str) -> Any:
    """Make a private key for an algorithm."""
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
    return ec.generate_private_key(curves[algorithm]())


def public_jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """Return the public part of a key as a JWK."""
    jwk: dict[str, Any] = _ALGORITHMS[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**jwk, **more}


class IdentityProvider:
    """Listens from its making until `stop()`. `fault` says how it fails: a status, or bytes instead of its answer.

    `asked` are the paths that were asked for, `keys` the published ones by their `kid`: (algorithm, private key).
    """

    def __init__(self, algorithm: str = "ES256") -> None:
        self.asked: list[str] = []
        self.changed = threading.Condition()
        self.fault: int | bytes | None = None
        self.keys: dict[str, tuple[str, Any]] = {}
        self.extra: list[dict[str, Any]] = []
        idp = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                idp._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.issuer = f"http://127.0.0.1:{self.port}/realm"
        self.jwks_url = f"{self.issuer}/keys"
        self.discovered = self.jwks_url
        self.add("first", algorithm)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, kid: str, algorithm: str = "ES256") -> None:
        """Publish a new key, which signs from now on."""
        self.keys[kid] = (algorithm, new_key(algorithm))
        self.kid = kid

    def claims(self, **more: Any) -> dict[str, Any]:
        """Return good claims with others beside them; `None` leaves one out."""
        now = int(time.time())
        said = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in said.items() if value is not None}

    def token(self, *, kid: str | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a token with the key that is current, or another one."""
        kid = kid or self.kid
        algorithm, key = self.keys[kid]
        return jwt.encode(self.claims(**claims), key, algorithm, {"kid": kid, **(header or {})})

    def jwks(self) -> dict[str, Any]:
        """Return the keys as they are published."""
        published = [public_jwk(key, algorithm, kid=kid, use="sig") for kid, (algorithm, key) in self.keys.items()]
        return {"keys": [*published, *self.extra]}

    def wait_asked(self, count: int, path: str = "/keys", timeout_s: float = 10.0) -> None:
        """Wait until a path was asked for so often."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.count(path) >= count, timeout_s), self.asked

    def count(self, path: str = "/keys") -> int:
        """Return how often a path was asked for."""
        return sum(asked.endswith(path) for asked in self.asked)

    def stop(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.changed:
            self.asked.append(handler.path)
            self.changed.notify_all()
        fault = self.fault
        status, said = 200, b""
        if isinstance(fault, int):
            status = fault
        elif fault is not None:
            said = fault
        elif handler.path.endswith("/keys"):
            said = json.dumps(self.jwks()).encode()
        elif handler.path.endswith("/.well-known/openid-configuration"):
            said = json.dumps({"issuer": self.issuer, "jwks_uri": self.discovered}).encode()
        else:
            status = 404
        handler.send_response(status)
        if status in (301, 302):
            handler.send_header("Location", f"http://127.0.0.1:{self.port}/stolen/keys")
        handler.send_header("Content-Length", str(len(said)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(said)


@contextlib.contextmanager
def identity_provider(algorithm: str = "ES256") -> Iterator[IdentityProvider]:
    """Run an identity provider."""
    made = IdentityProvider(algorithm)
    try:
        yield made
    finally:
        made.stop()
