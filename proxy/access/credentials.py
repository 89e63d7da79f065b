"""How callers hand over a credential, and what they are told where it is missing, wrong, or in the wrong place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from proxy.errors import Reject
from proxy.exchange import Exchange

CHALLENGE = {"www-authenticate": "Bearer"}
#: Names of query parameters that hold a credential in one API or another, without case and punctuation.
_NAMES = re.compile(
    r"(?:x?(?:api|goog|openai|litellm))?(?:api)?key|(?:access|api|auth|bearer|id|refresh)?token|authorization|auth|bearer|secret|password"
)
#: What begins like a credential: Lockgate's keys, those of providers, tokens.
_VALUES = re.compile(r"(?:bearer[\s+])?(?:lg_|sk-|eyJ|AIza|gsk_|xai-|pplx-)", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[^a-z]")


def check(headers: Mapping[str, str], query: str) -> None:
    """Raise `Reject` (400) where a credential is in the URL, or where there are two of them.

    A URL is written down by every proxy on the way. Of two headers each reader takes another one: gunicorn joins them
    with a comma, which no bearer token can hold (RFC 6750, 2.1).
    """
    if query and any(_is_credential(name, value) for name, value in _pairs(query)):
        raise Reject(
            400,
            "credential_in_url",
            "A credential does not belong in the URL, where logs keep it: send `Authorization: Bearer <key>`, and have "
            "the one that was sent replaced.",
        )
    sent = headers.get("authorization", "")
    if "," in sent and sent[:7].lower() == "bearer ":
        raise Reject(400, "several_credentials", "Send one `Authorization` header with one bearer token.")


def unauthorized(exchange: Exchange) -> Reject:
    """Return OpenAI's answer to a caller whom no plugin knows: whether there was a credential at all is told apart."""
    if presented(exchange):
        return wrong_credential()
    message = "Missing bearer authentication in header: send `Authorization: Bearer <key>`."
    return Reject(401, None, message, headers=CHALLENGE)


def wrong_credential() -> Reject:
    """Return the one refusal of a credential that is unknown, malformed, revoked or expired.

    It never repeats the credential: what is refused may be a live one with one typo.
    """
    message = "Incorrect API key provided. Ask the people who run this gateway for a valid one."
    return Reject(401, "invalid_api_key", message, headers=CHALLENGE)


def presented(exchange: Exchange) -> bool:
    """Tell whether the request holds something that is meant to be a credential."""
    return "authorization" in exchange.headers


def slowed(wait_s: float) -> Reject:
    """Return the refusal of an address that has been wrong too often."""
    return Reject(
        429,
        "too_many_incorrect_credentials",
        "Too many requests with incorrect credentials came from this address. Correct the credential, then try again.",
        headers={"retry-after": str(max(1, math.ceil(wait_s)))},
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    # Percent-encoded names count; separators are both that have been in use.
    return [pair for part in query.split(";") for pair in parse_qsl(part, keep_blank_values=True)]


def _is_credential(name: str, value: str) -> bool:
    folded = _PUNCTUATION.sub("", name.lower())
    return bool(value) and (_NAMES.fullmatch(folded) is not None or _VALUES.match(value) is not None)
