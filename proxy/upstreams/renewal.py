"""Credentials for upstreams that may expire, and the thread that renews them off the path of exchanges."""

from __future__ import annotations

import heapq
import logging
import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import orjson
from marshmallow import ValidationError, fields, validate

from proxy.errors import UpstreamError
from proxy.secrets import SECRET_MASK, Secret, SecretField

log = logging.getLogger("lockgate.renewal")

#: How long a command may take, and the longest wait for a first credential when a worker starts.
COMMAND_S, START_S = 30.0, 10.0
#: The waits after a failure double from the one to the other.
SOONEST_S, LATEST_S = 1.0, 60.0
#: No credential is left alone for longer.
LONGEST_S = 86400.0
#: Of a credential's life this much passes before it is renewed.
RENEWED_AT = 0.8


class Credential:
    """A text that goes into a header or a signature. Thread-safe."""

    def __init__(self, text: str = "", expires: float = math.inf) -> None:
        self._held = (text, expires)

    def __repr__(self) -> str:
        return SECRET_MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Credential is not pickled: it would be written down")

    def __deepcopy__(self, memo: dict[int, Any]) -> Credential:
        return self  # what it is renewed to is for all

    def value(self) -> str:
        """Return the credential; raise `UpstreamError` where there is none that still holds."""
        text, expires = self._held
        if not text or expires <= time.time():
            raise unavailable()
        return text

    def renew(self) -> float | None:
        """Fetch it anew where it can expire; return in how many seconds to do so again. May do I/O and raise."""
        return None


class Command(Credential):
    """The output of a program: the text itself, or JSON with `token` and `expires_in` (s) or `expires_at`.

    Without an expiry in it the text is good for `ttl_s`. `access_token`, `accessToken` and `expiresOn`, as the tools of
    the clouds print, are understood as well.
    """

    def __init__(self, argv: list[str], ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._argv = argv
        self._ttl_s = ttl_s
        self._clock = clock

    def renew(self) -> float:
        """Run the program; raise `OSError` or `ValueError` without its output, which is the secret."""
        began = self._clock()
        try:
            done = subprocess.run(
                self._argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"{self._argv[0]} took longer than {COMMAND_S:.0f} s") from None
        if done.returncode:
            raise ValueError(f"{self._argv[0]} ended with exit code {done.returncode}")
        text, lives_s = said(done.stdout, self._ttl_s, began)
        if not re.fullmatch(r"[\x21-\x7e]+", text):
            raise ValueError(f"{self._argv[0]} printed no credential")
        self._held = (text, began + lives_s)
        return lives_s * RENEWED_AT


def said(output: bytes, ttl_s: float, now: float) -> tuple[str, float]:
    """Return the credential in a program's output and the seconds that it lives; raise `ValueError` for none."""
    try:
        table = orjson.loads(output)
    except ValueError:
        return output.decode("ascii", "replace").strip(), ttl_s
    if not isinstance(table, dict):
        return output.decode("ascii", "replace").strip(), ttl_s
    text = next((table[key] for key in ("token", "access_token", "accessToken") if isinstance(table.get(key), str)), "")
    lives_s: Any = table.get("expires_in")
    if lives_s is None:
        lives_s = ttl_s
    until = table.get("expires_at", table.get("expires_on", table.get("expiresOn")))
    if isinstance(until, str):
        until = float(until) if until.isdecimal() else datetime.fromisoformat(until).timestamp()
    if until is not None:
        lives_s = until - now
    lives_s = float(lives_s)
    if not 0 < lives_s < math.inf:
        raise ValueError("a credential that has expired already")
    return text, lives_s


def unavailable() -> UpstreamError:
    """Return what is said where there is no credential for an upstream."""
    return UpstreamError(503, "upstream_auth_error", "The gateway has no valid credential for the upstream.")


class CredentialField(SecretField):
    """A credential: `{ env = … }`, `{ file = … }` or `{ command = ["…"], ttl = 3600 }`. Loads as a `Credential`.

    `ttl` is in seconds and counts where the command does not say how long its output is good for.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, dict) and "command" in value:
            if value.keys() - {"command", "ttl"}:
                raise ValidationError('must be { command = ["PROGRAM", "ARGUMENT"], ttl = 3600 }')
            words: Any = fields.List(fields.String(validate=validate.Length(min=1)), validate=validate.Length(min=1))
            ttl: Any = fields.Float(validate=validate.Range(min=10, max=30 * 86400))
            return Command(words.deserialize(value["command"]), ttl.deserialize(value.get("ttl", 3600)))
        return Credential(printable(super()._deserialize(value, attr, data, **kwargs)).reveal())


def printable(secret: Secret) -> Secret:
    """Return a secret that goes into a header; raise `ValidationError` for one that cannot.

    Source: RFC 9110, 5.5. `requests` alone would let some control characters through.
    """
    if not re.fullmatch(r"[\x20-\x7e]*", secret.reveal()):
        raise ValidationError("must be printable ASCII on one line")
    return secret


class Renewals:
    """The thread that calls `renew` of whatever has one, by name, as often as it asks for. `start` waits for the first.

    What fails is logged by the type and text of its exception, which never hold the credential, and tried again.
    """

    def __init__(self, renewed: Mapping[str, Callable[[], float | None]], clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._due = [(0.0, name, renew, SOONEST_S) for name, renew in sorted(renewed.items())]
        self._first = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewals", daemon=True)

    def start(self) -> None:
        """Renew everything once, waiting for it a little while, and go on in the background."""
        if self._due:
            self._thread.start()
            self._first.wait(START_S)

    def stop(self) -> None:
        """End the thread; a renewal that is under way is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        waiting = {name for _, name, _, _ in self._due}
        while self._due:
            when, name, renew, pause_s = self._due[0]
            if self._stopped.wait(max(0.0, when - self._clock())):
                return
            heapq.heappop(self._due)
            again_s: float | None
            try:
                again_s = renew()
                pause_s = SOONEST_S
            except Exception as failure:
                log.error("provider %s: no new credential: %s: %s", name, type(failure).__name__, failure)
                again_s, pause_s = pause_s, min(2 * pause_s, LATEST_S)
            if again_s is not None:
                due = self._clock() + min(max(again_s, SOONEST_S), LONGEST_S)
                heapq.heappush(self._due, (due, name, renew, pause_s))
            waiting.discard(name)
            if not waiting:
                self._first.set()
