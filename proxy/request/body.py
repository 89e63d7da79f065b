"""The request body: strict JSON from bytes, or an OpenAI-shaped refusal."""

from __future__ import annotations

import re
from typing import Any, Never

import orjson

from proxy.errors import Reject

MAX_DEPTH = 64
"""Levels of objects and arrays; the outermost one is the first."""

_LOW, _HIGH = -(2**63), 2**64 - 1
_EDGE = 2.0**63

# Possessive throughout, so that no input makes it step back. A string matches without a group.
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(-?[0-9]++)(\.[0-9]++)?([eE][+-]?[0-9]++)?')

_NAMES = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", type(None): "null"}


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that `raw` holds; raise `Reject` (400) where it holds anything else.

    UTF-8 without a byte order mark, no NaN or Infinity, no lone surrogates, at most `MAX_DEPTH` levels, integers of at
    most 64 bits, floats within a double. Of duplicate keys the last one wins and is all that is kept.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse_syntax(raw, error)
    if type(document) is not dict:
        _refuse(f"The top level must be an object, but it is {_NAMES[type(document)]}.")
    if _has_huge_floats(document):
        _refuse_huge_integers(raw)
    return document


def _has_huge_floats(document: dict[str, Any]) -> bool:
    """Say whether a float is too large for a 64-bit integer; raise `Reject` where nesting is too deep.

    One look at each value of the tree and none at the bytes: a megabyte of base64 in one string costs nothing.
    """
    found = False
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for node in level:
            for value in node.values() if type(node) is dict else node:
                kind = type(value)
                if kind is str or kind is int:
                    continue
                if kind is dict or kind is list:
                    inner.append(value)
                elif kind is float and not -_EDGE < value < _EDGE:
                    found = True
        if not inner:
            return found
        level = inner
    _refuse(f"It is nested deeper than {MAX_DEPTH} levels.")


def _refuse_huge_integers(raw: bytes) -> None:
    """Raise `Reject` at the first integer beyond 64 bits: orjson has silently turned it into a float."""
    for match in _STRING_OR_NUMBER.finditer(raw):
        digits, fraction, exponent = match.groups()
        if digits is None or fraction is not None or exponent is not None:
            continue
        if not _LOW <= int(digits) <= _HIGH:
            shown = digits[:40].decode() + ("…" if len(digits) > 40 else "")
            _refuse(f"The integer {shown} does not fit into 64 bits: {_position(raw, match.start())}.")


def _refuse_syntax(raw: bytes, error: orjson.JSONDecodeError) -> Never:
    if not raw.strip(b" \t\r\n"):
        _refuse("The body is empty.")
    if raw.startswith(b"\xef\xbb\xbf"):
        _refuse("It begins with a byte order mark (BOM): send UTF-8 without one.")
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        _refuse(f"It is not valid UTF-8: byte {wrong.start}.")
    if "depth" in error.msg:
        _refuse(f"It is nested deeper than {MAX_DEPTH} levels.")
    # orjson's reasons are fixed phrases: they quote nothing of the body.
    _refuse(f"{error.msg[:1].upper()}{error.msg[1:]}: line {error.lineno}, column {error.colno}.")


def _position(raw: bytes, start: int) -> str:
    line_start = raw.rfind(b"\n", 0, start) + 1
    line, column = raw.count(b"\n", 0, start) + 1, len(raw[line_start:start].decode()) + 1
    return f"line {line}, column {column}"


def _refuse(reason: str) -> Never:
    raise Reject(400, None, f"We could not parse the JSON body of your request. {reason}") from None
