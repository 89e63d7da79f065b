"""One record as one line of JSON that no value in it can break."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

#: Bytes that one write puts into a pipe in one piece (PIPE_BUF of Linux), so that the lines of processes do not mix.
WHOLE = 4096


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return `record` as one line of JSON with its line feed, at most 4096 bytes for the records Lockgate writes.

    Characters that could break a line, a terminal or a reader (control characters, line separators, text direction
    marks, lone surrogates) are escaped or replaced; long strings are cut. Values of other types become their text.
    """
    try:
        line = orjson.dumps(record)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, a type that JSON does not have
        line = b""
    if line and line.isascii() and len(line) < WHOLE and b"\x7f" not in line:
        return line + b"\n"
    for longest in (256, 64, 16):
        line = orjson.dumps(_plain(record, longest)) + b"\n"
        if len(line) <= WHOLE:
            break
    return line


def _plain(value: Any, longest: int) -> Any:
    """Return `value` in what orjson can write, with strings of printable characters only and at most `longest` long."""
    if isinstance(value, str):
        text = value[:longest]
        return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
    if isinstance(value, Mapping):
        return {_plain(str(key), longest): _plain(item, longest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, longest) for item in value]
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    return _plain(str(value), longest)
