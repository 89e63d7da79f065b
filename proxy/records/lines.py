"""One record as one line of JSON that no value in it can break."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson

#: Bytes that one write puts into a pipe in one piece (PIPE_BUF of Linux), so that the lines of processes do not mix.
WHOLE = 4096


def json_line(record: Mapping[str, Any], longest: int = WHOLE) -> bytes:
    """Return `record` as one line of JSON with its line feed, at most `longest` bytes for the records Lockgate writes.

    Characters that could break a line, a terminal or a reader (control characters, line separators, text direction
    marks, lone surrogates) are escaped or replaced. Where a line would be too long its strings are cut, then its lists
    and the mappings in it. Values of other types become their text.
    """
    try:
        line = orjson.dumps(record)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, a type that JSON does not have
        line = b""
    if line and line.isascii() and len(line) < longest and b"\x7f" not in line:
        return line + b"\n"
    for most in (256, 64, 16, 4):
        line = orjson.dumps({_plain(str(key), 64): _plain(value, most) for key, value in record.items()}) + b"\n"
        if len(line) <= longest:
            break
    return line


def _plain(value: Any, most: int) -> Any:
    """Return `value` in what orjson can write: printable characters only, texts and collections at most `most` long."""
    if isinstance(value, str):
        text = value[:most]
        return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
    if isinstance(value, Mapping):
        return {_plain(str(key), most): _plain(item, most) for key, item in islice(value.items(), most)}
    if isinstance(value, list | tuple):
        return [_plain(item, most) for item in value[:most]]
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    return _plain(str(value), most)
