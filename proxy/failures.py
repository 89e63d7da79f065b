"""What an upstream's refusal becomes for a client of OpenAI's API: status, type, code, wording and retry headers."""

from __future__ import annotations

import email.utils
import re
import time
from typing import Any

import orjson

from proxy.errors import CODE, UpstreamError

#: Bounds of the `Retry-After` that clients are sent, in seconds: OpenAI's Python SDK takes more than 120 as "never",
#: its Node SDK takes 0 as "at once".
RETRY_AFTER_S = (1, 120)

_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (window|length|size)"
    r"|prompt is too long|too many (input )?tokens|input is too long|exceeds? the (available )?context"
    r"|reduce the length",
    re.IGNORECASE,
)
_QUOTA = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
#: OpenAI's sentence with the code repeated in it: the only wording that every known client takes for an overflow.
OVERFLOW = (
    "This model's maximum context length is exceeded: your messages resulted in more tokens than fit. "
    "Please reduce the length of the messages. (code: context_length_exceeded)"
)


def failure(
    status: int,
    headers: dict[str, str],
    message: str = "",
    code: Any = None,
    type: Any = None,
    param: Any = None,
) -> UpstreamError:
    """Return what a client is told of an upstream's error answer.

    `message`, `code`, `type` and `param` are what the upstream said, of whatever type. The client's key is never at
    fault for what an upstream says of the gateway's, so 401 and 403 become 502.
    """
    text = message if isinstance(message, str) else ""
    said = code if isinstance(code, str) and CODE.fullmatch(code) else None
    place = param if isinstance(param, str) else None
    if status in (400, 413, 422) and (said == "context_length_exceeded" or _OVERFLOW.search(text)):
        return UpstreamError(400, "context_length_exceeded", _overflow(text), param="messages", fallback=False)
    if status in (402,) or said in _QUOTA or type == "insufficient_quota":
        return _told(
            429, "insufficient_quota", text or "The upstream's quota is used up.", "insufficient_quota", retry=False
        )
    if status == 429:
        return _told(
            429, "rate_limit_exceeded", text or "The upstream's rate limit is reached.", headers=headers, again=True
        )
    if status in (401, 403):
        return _told(502, "upstream_auth_error", "The upstream refused the gateway's own credentials.", retry=False)
    if status in (400, 422):
        return UpstreamError(
            400, said or "upstream_refused", text or "The upstream refused the request.", param=place, fallback=False
        )
    if status == 404:
        return UpstreamError(404, "model_not_found", "The upstream does not know the model.", fallback=False)
    if status == 409:
        return UpstreamError(409, "conflict", text or "The upstream reported a conflict.")
    if status == 413:
        return UpstreamError(413, "request_too_large", "The request is too large for the upstream.", fallback=False)
    if status == 408:
        return _told(504, "upstream_timeout", "The upstream did not answer in time.", retry=True)
    if status in (498, 503, 529):
        return _told(503, "server_is_overloaded", "The upstream is overloaded.", headers=headers, again=True)
    return _told(502, "upstream_error", "The upstream failed.", retry=True)


def parsed(body: bytes) -> Any:
    """Return the JSON of a whole answer; raise `UpstreamError` where it is none."""
    try:
        return orjson.loads(body)
    except ValueError:
        raise UpstreamError(502, "upstream_malformed", "The upstream's answer is not JSON.") from None


def refusal(body: bytes) -> dict[str, Any]:
    """Return the object that an error answer is; an empty one where it is none."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def empty() -> UpstreamError:
    """Return what is said of a whole answer that has nothing in it."""
    return UpstreamError(502, "upstream_empty_response", "The upstream's answer holds no completion.")


def in_answer(error: Any) -> UpstreamError:
    """Return what an error object means that came inside an answer whose status was 200, in any of its shapes."""
    said = error if isinstance(error, dict) else {"message": error}
    code = said.get("code")
    status = said.get("status") if isinstance(said.get("status"), int) else None
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else _status_of(str(code), str(said.get("type")))
    told = failure(status, {}, said.get("message") or "", code, said.get("type"), said.get("param"))
    told.fallback = told.fallback or told.status >= 500
    return told


def retry_after(value: str | None, default: int) -> int:
    """Return a `Retry-After` for clients, in seconds, from an upstream's seconds or date; else from `default`."""
    seconds: float = default
    if value is not None:
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                seconds = default
    if not seconds == seconds:
        seconds = default
    low, high = RETRY_AFTER_S
    return int(min(max(seconds, low), high) + 0.999) if seconds < high else high


def _told(
    status: int,
    code: str,
    message: str,
    type: str | None = None,
    *,
    retry: bool = True,
    headers: dict[str, str] | None = None,
    again: bool = False,
) -> UpstreamError:
    told = {"x-should-retry": "true" if retry else "false"}
    if headers is not None:
        told["retry-after"] = str(retry_after(headers.get("retry-after"), 1))
    return UpstreamError(status, code, message, type=type, headers=told, same_target=again)


def _overflow(text: str) -> str:
    if "maximum context length is" in text and "context_length_exceeded" in text:
        return text
    if "maximum context length is" in text:
        return f"{text} (code: context_length_exceeded)"
    return OVERFLOW


def _status_of(code: str, type: str) -> int:
    for word in (code, type):
        if word in ("rate_limit_exceeded", "rate_limit_error"):
            return 429
        if word in ("overloaded_error", "server_is_overloaded", "overloaded", "service_unavailable_error"):
            return 503
        if word in ("invalid_request_error", "context_length_exceeded", "content_filter"):
            return 400
    return 500
