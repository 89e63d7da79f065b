"""Secrets without a shape: what stands behind a word that names it, and is random enough or in quotes."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter

from proxy.redaction.detectors.addresses import PLACEHOLDER
from proxy.redaction.scan import Scan
from proxy.redaction.telling import PASSWORDS

_NOT_A_VALUE = re.compile(
    r"(?i)^(?:i[sz](?:e|ation|ing|er)|ar(?:y|ies|iat)|(?:ord)?less|(?:ords?|orte?)?[ _-]?(?:s?_?(?:"
    r"count|type|types|url|uri|id|ids|path|name|names|expir\w*|limit|length|len|file|ttl|hash|"
    r"policy|field|hint|prompt|label|min|max|usage|used|size|rate|format|header|index|version|arn|ref|encoding|bucket|"
    r"class|provider|manager|reset|rotation|rule|rules|budget|endpoint|location|store|dir|list|per|price|cost|window|"
    r"algorithm|alg)))(?![a-z])"
)
_PUBLIC = re.compile(
    r"(?i)(?:public|pub|max|min|num|total|prompt|completion|input|output|cached|page|next|continuation|sync|design|"
    r"foreign|primary|cache|partition|sort|idempotency|publishable|csrf|xsrf)[_ -]?$"
)
_IS = (
    "is|was|are|ist|war|lautet|lauten|est|était|es|era|è|é|foi|to|jest|brzmi|luidt|hai|tha|equals|becomes|should be|"
    "será|sarà|is now|ist jetzt|is het|was het|now|called"
)
_VALUE = re.compile(
    # what is left of the name, its quotes, and what it is for
    r"(?:(?=[はがを是为為])|[\w.\-]{0,40})[\"'`\]>)*]{0,3}"
    # what parts it from its value
    r"(?:(?:[ ][^\W\d_]{1,15}){0,5}[ \t]{0,4}(?:=>|:=|==?|[:：]|->|\|)[ \t]{0,4}\n?[ \t]{0,8}|"
    rf"(?:[ ][^\W\d_]{{1,15}}){{0,5}}[ ](?:{_IS})[ ]{{1,2}}|"
    r"[ \t,]{1,2}(?:(?:von|of|für|for|the|now|old|new|here)[ ]{1,2}){0,2}|"
    r"(?:は|が|を|是|为|為|이|가)?[ ]?)"
    r"(?:(?:(?:Bearer|Basic|Token|token|Digest)[ ]{1,2}))?"
    r"(?:\b[bru](?=[\"']))?[\"'`«»„“”‘’「『(\[*]{0,3}"
    r"([^\s\"'`«»„“”‘’「」『』<>,;|、。，；@&][^\s\"'`«»„“”‘’「」『』<>,;|、。，；]{5,511})"
)
_USER = re.compile(r"://[^\s/?#@\"']*$")
_INNER = re.compile(r"[A-Za-z_][\w.-]{0,30}=(?=[^=&]{6})")
_BEYOND = re.compile(r"(?<=[\x21-\x7e])[\u3041-\u30ff\u3400-\u9fff]+$")
_ENDS = ".:)]}*…"


def inspect(scan: Scan, start: int, end: int) -> None:
    """Look behind a telling name at `text[start:end]` for the value that it names."""
    text = scan.text
    if start < scan.named:
        return
    name = text[start:end].lower()
    if _PUBLIC.search(text[max(0, start - 14) : start]) or _NOT_A_VALUE.match(text[end : end + 16]):
        return
    begin = end - 1 if name.endswith(("=", "_", " ")) else end
    if _USER.search(text, max(0, start - 64), start):
        return  # within the credentials of a URL, which are looked at as such
    match = _VALUE.match(text, begin, begin + 640)
    if match is None:
        return
    value, start = match[1], match.start(1)
    between = text[begin:start]
    inner = _INNER.match(value)
    if inner:
        # A name within: `connection string AccountKey=…`.
        value, start, between = value[inner.end() :], start + inner.end(), "="
    while value and value[-1] in _ENDS and not (value.endswith(")") and "(" in value):
        value = value[:-1]
    if "&" in value and "=" in value[value.index("&") :]:
        value = value[: value.index("&")]
    if beyond := _BEYOND.search(value):
        value = value[: beyond.start()]  # words follow without a blank
    scan.named = start + len(value)
    assigned = any(sign in between for sign in "=:：|>") or between.endswith(('"', "'", "`"))
    if _BASIC.search(text, max(0, start - 8), start) and _is_login(value):
        scan.add(start, start + len(value), "secret", 1)
    elif _is_secret(value, any(word in name for word in PASSWORDS), assigned):
        scan.add(start, start + len(value), "secret", 1)


_BASIC = re.compile(r"(?i)\bbasic +$")


def _is_login(value: str) -> bool:
    """Tell whether a value is base64 of a name and a password (RFC 7617)."""
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    return decoded.isprintable() and ":" in decoded[1:-1]


_URL = re.compile(
    r"(?i)^(?:[a-z][a-z0-9+.-]*://|ssh-|ecdsa-|sha(?:1|256|384|512)[:-]|md5:|arn:|urn:|/|\.{0,2}/|~|[a-z]:\\)"
)
_CODE = re.compile(
    r"[()\[\]{}$]|\w\.\w+\(|^\w+\.\w+\.\w+$|^(?:os|process|env|self|this|config|settings|secrets|vault|keyring|var)[.:]|^!\w+$|/secrets/"
)


def _is_secret(value: str, password: bool, assigned: bool) -> bool:
    if (
        len(value) < (6 if password and assigned else 8)
        or _URL.match(value)
        or PLACEHOLDER.search(value)
        or _ALGORITHM.fullmatch(value)
    ):
        return False
    if _CODE.search(value) and not (password and assigned and re.search("[0-9]", value) and not _CALL.search(value)):
        return False
    if not assigned and not password and _UUID.fullmatch(value):
        return False
    if value.isdigit():
        return password and assigned
    kinds = _classes(value)
    letters = any(map(str.isalpha, value))
    digits = any(map(str.isdigit, value))
    if password and assigned:
        return kinds >= 2 and (digits or _STRONG.search(value) is not None) and len(set(value)) >= 4
    if password and letters and digits and len(value) >= 8 and _entropy(value) >= 2.5 and not _wordlike(value):
        return True
    if not (letters and digits):
        # A long value of letters alone: mixed case, and no word.
        return kinds >= 2 and len(value) >= 20 and _entropy(value) >= 3.5 and not _wordlike(value)
    least = 2.8 if assigned else 3.0
    return _entropy(value) >= least and len(value) >= (8 if assigned else 10) and not _wordlike(value)


#: What is in passwords and not in prose.
_ALGORITHM = re.compile(
    r"(?i)(?:pbkdf2|bcrypt|scrypt|argon2|hmac|sha-?[0-9]|md5|aes|rsa|ecdsa|ed25519|x25519|chacha20|[hrep]s[235]|cl100k|o200k|"
    r"[pr]50k|client_secret)(?:[_-]?(?:sha|md5|hmac|with|and|gcm|cbc|ctr|ecb|oaep|pkcs|pss|poly|base|edit|harmony|basic|post|jwt|"
    r"id|d|i|v|[0-9]{1,5}))*"
)
_STRONG = re.compile(r"[!#$%^&+=~@?]")
_UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CALL = re.compile(r"\w\(|\$[({A-Z]|\{\{")


def _classes(value: str) -> int:
    return (
        any(map(str.islower, value))
        + any(map(str.isupper, value))
        + any(map(str.isdigit, value))
        + any(not character.isalnum() for character in value)
    )


def _wordlike(value: str) -> bool:
    """Tell whether a value is made of words: `my-service-2`, `gpt-4o-mini`, `2024-01-31`."""
    parts = re.split(r"[-_./:]", value)
    return len(parts) > 1 and all(
        part.isdigit()
        and len(part) <= 4
        or re.fullmatch(r"v?[0-9]{0,4}[a-z]{0,12}[0-9]{0,2}|[A-Z]{1,12}|[A-Z][a-z]{1,12}", part)
        for part in parts
    )


def _entropy(value: str) -> float:
    """Return the bits that a character of `value` tells, by how often each occurs in it."""
    length = len(value)
    return -sum(count / length * math.log2(count / length) for count in Counter(value).values())
