"""Every error that the gateway answers with: what its status means, its codes, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass

_OPERATOR = "Nothing in the request is wrong: tell the people who run the gateway, with the request's id."
_AGAIN = "Try again after the time that `Retry-After` says, or a few seconds; official SDKs do so by themselves."
_VALUE = "Correct the parameter that `param` names."


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status: what it means, an example's message and `param`, and by code what its receiver should do."""

    meaning: str
    message: str
    codes: dict[str, str]
    param: str | None = None
    headers: tuple[str, ...] = ()


REFUSALS: dict[int, Refusal] = {
    400: Refusal(
        "The request, or a parameter in it, is not valid.",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 5 instead.",
        {
            "decimal_above_max_value": _VALUE,
            "decimal_below_min_value": _VALUE,
            "integer_above_max_value": _VALUE,
            "integer_below_min_value": _VALUE,
            "invalid_type": _VALUE,
            "invalid_value": _VALUE,
            "empty_array": _VALUE,
            "empty_string": _VALUE,
            "array_above_max_length": _VALUE,
            "string_above_max_length": _VALUE,
            "object_above_max_properties": _VALUE,
            "property_name_above_max_length": _VALUE,
            "missing_required_parameter": "Add the parameter that `param` names.",
            "unknown_parameter": "Leave the parameter out, or have it allowed for this model.",
            "unsupported_parameter": "Leave the parameter out, or ask another model: no upstream of this one takes it.",
            "unsupported_value": "Say something else there, or ask another model: no upstream of this one takes it.",
            "context_length_exceeded": "Shorten the conversation, or ask a model with a larger context.",
            "content_filter": "Change what is asked: the provider does not answer this.",
            "sensitive_data": "Take out what the message names: it must not leave the company.",
            "upstream_refused": "The message is the provider's own; change what it names.",
            "credential_in_url": "Send the key in the header `Authorization`, and have this one replaced.",
            "several_credentials": "Send one `Authorization` header.",
            "incomplete_body": "Send the whole body, as long as `Content-Length` says.",
            "invalid_image_url": "Send the image itself, as a `data:` URL, or fewer of them.",
            "invalid_limit": "Ask for 1 to 100 requests.",
            "invalid_cursor": "Pass what the page before gave as `next_cursor`, or nothing.",
            "bad_request": "Send well-formed HTTP/1.1.",
        },
        param="temperature",
    ),
    401: Refusal(
        "There is no credential, or it is not valid: unknown, revoked and expired keys are not told apart.",
        "Incorrect API key provided. Ask the people who run this gateway for a valid one.",
        {"invalid_api_key": "Check that all of the key was sent. If it has expired or was revoked, get a new one."},
        headers=("www-authenticate",),
    ),
    403: Refusal(
        "The caller is known and may not do this.",
        "This key may not use tools.",
        {
            "capability_not_allowed": "Leave out what `param` names, or have the capability granted.",
            "model_unpriced": "Ask another model: this one has no price, and the caller has a budget.",
            "no_team": "Have yourself made a member of a team that may use the gateway.",
            "unknown_team": "The key's team is gone: ask the people who run the gateway.",
            "token_not_usable": "The token lacks a claim: ask the people who run the gateway.",
            "insecure_gateway": "This gateway serves its own machine alone: call it from there, directly.",
        },
        param="tools",
    ),
    404: Refusal(
        "The model does not exist or the caller may not use it, or there is nothing at this URL.",
        "The model `gpt-0` does not exist or you do not have access to it.",
        {
            "model_not_found": "Choose a model that `GET /v1/models` lists for this key.",
            "unknown_url": "Check the URL; the base URL of SDKs ends in /v1.",
        },
    ),
    405: Refusal(
        "The URL exists, but not for this method.",
        "Not allowed: GET /v1/chat/completions.",
        {"method_not_allowed": "Use a method that the header `Allow` names."},
        headers=("allow",),
    ),
    408: Refusal(
        "The request did not arrive in time.",
        "The request's body did not come in time.",
        {"request_timeout": "Send it again, on a better connection if it happens often."},
    ),
    409: Refusal(
        "The provider reports a conflict.",
        "The upstream reported a conflict.",
        {"conflict": _AGAIN},
    ),
    413: Refusal(
        "The body is too large.",
        "The request's body is larger than 33554432 bytes.",
        {"request_too_large": "Send less: images and files smaller, or by URL or id."},
    ),
    414: Refusal("The URL is too long.", "The request line is too long.", {"uri_too_long": "Shorten the URL."}),
    415: Refusal(
        "The body is not plain JSON by its headers.",
        "The request needs the header `Content-Type: application/json`.",
        {
            "unsupported_media_type": "Send the header `Content-Type: application/json`.",
            "unsupported_content_encoding": "Send the body as it is, without `Content-Encoding`.",
        },
    ),
    417: Refusal(
        "The request expects something that is not done here.",
        "The only supported expectation is 100-continue.",
        {"expectation_failed": "Leave the header `Expect` out."},
    ),
    429: Refusal(
        "A limit is reached, or a budget or quota is used up.",
        "Rate limit reached: 60 requests a minute, counted by key. Try again in 12s.",
        {
            "rate_limit_exceeded": _AGAIN,
            "insufficient_quota": "Wait for the next day, week or month, or have the budget raised.",
            "too_many_incorrect_credentials": "Correct the credential, then wait as `Retry-After` says.",
        },
        headers=("retry-after", "x-should-retry", "x-lockgate-limit"),
    ),
    431: Refusal(
        "The headers are too large.",
        "The headers are too many or too large.",
        {"request_header_fields_too_large": "Send fewer or shorter headers; a token has at most 32 KiB."},
    ),
    500: Refusal(
        "The gateway failed.",
        "The gateway failed; its log says more.",
        {"internal_error": _OPERATOR, "plugin_error": _OPERATOR},
    ),
    501: Refusal(
        "The request's transfer coding is not supported.",
        "The transfer coding is not supported.",
        {"unsupported_transfer_coding": "Send the body chunked or with `Content-Length`."},
    ),
    502: Refusal(
        "The provider failed, or its answer is none.",
        "The upstream failed.",
        {
            "upstream_error": _AGAIN,
            "upstream_connection_lost": _AGAIN,
            "upstream_stream_cut": "The answer is not complete: throw it away and ask again.",
            "upstream_malformed": _AGAIN,
            "upstream_malformed_output": "Ask again, or in another way: the model made something that cannot be used.",
            "upstream_unsupported_output": "Ask for text: this kind of output has no place in the answer.",
            "upstream_empty_response": _AGAIN,
            "upstream_answer_too_large": "Ask for a shorter answer, with `max_completion_tokens`.",
            "upstream_unreachable": _OPERATOR,
            "upstream_dns_error": _OPERATOR,
            "upstream_tls_error": _OPERATOR,
            "upstream_proxy_error": _OPERATOR,
            "upstream_auth_error": _OPERATOR,
        },
        headers=("retry-after", "x-should-retry"),
    ),
    503: Refusal(
        "The gateway, the provider, or what the gateway stands on cannot take the request now.",
        "The gateway is full: every place for a request is taken. Try again shortly.",
        {
            "server_is_overloaded": _AGAIN,
            "web_search_unavailable": "Try again, or ask without `web_search_options`.",
            "redaction_late": "Send less at once, or try again.",
            "keys_unavailable": _AGAIN,
            "signing_keys_unavailable": _AGAIN,
            "counters_unavailable": _AGAIN,
            "journal_unavailable": _AGAIN,
            "upstream_auth_error": _OPERATOR,
        },
        headers=("retry-after", "x-should-retry"),
    ),
    504: Refusal(
        "The provider did not answer in time.",
        "The upstream did not answer in time.",
        {
            "upstream_timeout": "Ask for less or with `stream`, which shows what has come; else try again.",
            "upstream_connect_timeout": _AGAIN,
        },
        headers=("x-should-retry",),
    ),
}
"""By status; a stream that has begun tells the same errors in an event."""
