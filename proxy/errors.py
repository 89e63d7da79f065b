"""The three exceptions of Lockgate, and the OpenAI error object that each becomes."""

from __future__ import annotations

import json
import re
from typing import Any

#: OpenAI's error type for each status where it is not `invalid_request_error`.
#: Source: the error table of OpenAI's API documentation and its SDKs' exception classes.
TYPES = {
    429: "rate_limit_error",
    500: "server_error",
    502: "api_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

#: What a code looks like, and why an answer ended. Other words of an upstream may repeat a caller's, and these two are
#: written down: they are replaced.
CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def type_of(status: int) -> str:
    """Return the OpenAI error type that goes with an HTTP status."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(message: str, type: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the error object that every client of OpenAI's API understands: all four keys, always."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class Reject(Exception):
    """Refuses an exchange, or stops an answer, with an OpenAI-shaped error.

    Plugins raise it from any hook or filter. `message` is shown to the caller as it stands, so it must not
    hold secrets or text taken from an exception. `headers` are added to the response where one can still be sent.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status from 400 to 599, not {status}")
        self.status = status
        self.code = code
        self.message = message
        self.type = type or type_of(status)
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error object."""
        return error_body(self.message, self.type, self.param, self.code)

    def encoded(self) -> bytes:
        """Return the OpenAI error object as JSON, whatever is in its texts."""
        # Not orjson: it refuses lone surrogates, and an error must never fail to be told.
        return json.dumps(self.body(), separators=(",", ":"), default=str).encode()


class UpstreamError(Reject):
    """An upstream failed; built from codes, never from the text of an exception.

    `fallback` says that another target may be tried, `same_target` that this one may be tried again
    (no byte of the request was sent, or the upstream said 429 or 503).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        fallback: bool = True,
        same_target: bool = False,
    ) -> None:
        # Official clients try again on their own by status; said openly where nothing speaks against it.
        told = {"x-should-retry": "true"} if status >= 500 else {}
        super().__init__(status, code, message, type=type, param=param, headers=told | (headers or {}))
        self.fallback = fallback
        self.same_target = same_target


class ConfigError(Exception):
    """The configuration is wrong; `problems` lists every mistake with its path, e.g. `plugins.limits.burts: …`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
