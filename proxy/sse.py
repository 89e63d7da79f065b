"""Server-sent events: bytes to events and back, incremental, without I/O; and byte tests that save parsing them."""

from __future__ import annotations

import re
from typing import NamedTuple

DONE = b"data: [DONE]\n\n"

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: the value of its `event` field (b"" if none) and its data, lines joined by a newline."""

    name: bytes
    data: bytes


class TooLong(ValueError):
    """A line or an event exceeds its cap; the parser that raised it must not be fed again."""


def encode(payload: bytes) -> bytes:
    """Return the one form of event that every client reads; `payload` is a single line."""
    return b"data: " + payload + b"\n\n"


def comment(text: bytes) -> bytes:
    """Return a comment: the only heartbeat that all official clients take. Line ends in `text` become spaces."""
    return b": " + b" ".join(text.splitlines()) + b"\n\n"


class Parser:
    """Cuts a stream of bytes into events by the rules of the HTML standard (9.2.6), in time linear in its input.

    Lines end with LF, CRLF or CR and nothing else, so U+2028 and U+0085 in data are data. Comments, `id`, `retry` and
    unknown fields are read over. Sizes are in bytes.
    """

    def __init__(self, max_line: int = 8 << 20, max_event: int = 16 << 20) -> None:
        self._max_line = max_line
        self._max_event = max_event
        self._line = bytearray()
        self._first = True
        self._after_cr = False
        self._name = b""
        self._data: bytes | bytearray | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes; those without data, or with nothing but blanks, are left out.

        Raises `TooLong`.
        """
        if self._after_cr and chunk:
            # The CR has already ended its line; waiting for a possible LF would hold back a whole event.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        if lines:
            if self._line:
                self._line += lines[0]
                lines[0] = bytes(self._line)
                self._line.clear()
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(BOM)
            for line in lines:
                self._take(line, events)
        self._line += rest
        if len(self._line) > self._max_line:
            raise TooLong(f"a line of more than {self._max_line} bytes")
        return events

    def end(self) -> bool:
        """Return whether half an event is left over: the stream was cut."""
        return self._data is not None or self._name != b"" or bytes(self._line[:1]) not in (b"", b":")

    @property
    def pending(self) -> bool:
        """Whether anything of an event or a line is kept: what comes next belongs to it."""
        return self._data is not None or self._name != b"" or bool(self._line)

    def _take(self, line: bytes, events: list[Event]) -> None:
        if not line:
            data = self._data
            if data and not data.isspace():
                events.append(Event(self._name, bytes(data)))
            self._data = None
            self._name = b""
        elif len(line) > self._max_line:
            raise TooLong(f"a line of more than {self._max_line} bytes")
        elif line.startswith(b"data:") or line == b"data":
            value = line[6:] if line.startswith(b" ", 5) else line[5:]
            if self._data is None:
                self._data = value
            else:
                if type(self._data) is bytes:
                    # A bytearray grows in place: many short lines stay linear, in time and in memory.
                    self._data = bytearray(self._data)
                self._data += b"\n" + value
            if len(self._data) > self._max_event:
                raise TooLong(f"an event of more than {self._max_event} bytes")
        elif line.startswith(b"event:") or line == b"event":
            self._name = line[7:] if line.startswith(b" ", 6) else line[6:]


def canonical(chunk: bytes) -> bool:
    """Return whether `chunk` may be relayed unparsed: whole `data: {…}` events of a chat stream and nothing else.

    Each event has a list of `"choices"`, none has an `"error"`, or a `"usage"` other than null, and no line ends but
    the two that close it. Inside a JSON string quotes are escaped, so the byte tests can mistake only a whole string
    value for a key, and then the chunk is merely parsed.
    """
    # find and rfind, never `in`, which costs twice as much on bytes; what is looked for stands near the end.
    if not chunk.startswith(b"data: {") or not chunk.endswith(b"}\n\n") or chunk.find(b"\r") >= 0:
        return False
    if chunk.find(b"\n") == len(chunk) - 2:
        at = chunk.rfind(b'"choices"')
        if at < 0 or not chunk.startswith((b":[", b": ["), at + 9):
            return False
    else:
        events = chunk.split(b"}\n\ndata: {")
        if chunk.count(b"\n") != 2 * len(events):
            return False
        for event in events:
            at = event.rfind(b'"choices"')
            if at < 0 or not event.startswith((b":[", b": ["), at + 9):
                return False
    # Also null: there are clients that take it for an error.
    if chunk.rfind(b'"error"') >= 0:
        return False
    at = chunk.rfind(b'"usage"')
    if at < 0 or (chunk.startswith(b":null", at + 7) and chunk.rfind(b'"usage"', 0, at) < 0):
        return True
    return _all_null(chunk, b'"usage"')


def canonical_part(chunk: bytes) -> bytes:
    """Return the longest beginning of `chunk` that is canonical: of events that came together, those before the last.

    The last one is often another: half an event, the usage, `[DONE]`.
    """
    end = chunk.rfind(b"\n\n") + 2
    if 2 <= end < len(chunk) and canonical(chunk[:end]):
        return chunk[:end]
    at = 0
    while (end := chunk.find(b"\n\n", at) + 2) >= 2 and canonical(chunk[at:end]):
        at = end
    return chunk[:at]


def finishes(chunk: bytes) -> list[tuple[int, str]] | None:
    """Return the choice index and finish reason of each event of a canonical chunk that has one, in their order.

    `None` where byte tests cannot tell for certain: the caller parses. An empty reason counts as none.
    """
    found: list[tuple[int, str]] = []
    at = chunk.find(b'"finish_reason"')
    while at >= 0:
        at += 15
        if not chunk.startswith((b":null", b": null"), at):
            event = chunk[chunk.rfind(b"\ndata: ", 0, at) + 1 : chunk.find(b"\n", at)]
            match = _match(event)
            if match is None or event.count(b'"finish_reason"') > 1 or match[1] is None:
                return None
            if match[2]:
                found.append((int(match[1]), match[2].decode()))
        at = chunk.find(b'"finish_reason"', at)
    return found


def indexes(chunk: bytes) -> set[int] | None:
    """Return the indexes of the choices that a canonical chunk speaks of, `None` where byte tests cannot tell."""
    found = set()
    for event in chunk.split(b"\n\n")[:-1]:
        match = _match(event)
        if match is None or match[1] is None:
            return None
        found.add(int(match[1]))
    return found


def _all_null(chunk: bytes, key: bytes) -> bool:
    count = chunk.count(key)
    nulls = chunk.count(key + b":null")
    return count == nulls or count == nulls + chunk.count(key + b": null")


def _match(event: bytes) -> re.Match[bytes] | None:
    # Where a long event does not match, the time to find that out grows faster than its length.
    return _ONE_CHOICE.fullmatch(event) if len(event) <= 4096 else None


def _one_choice() -> re.Pattern[bytes]:
    """Compile a grammar for events with one choice, which knows depth and strings and so cannot be misled.

    Groups: the choice's index, its finish reason. Commas and kinds of brackets are not checked. Only single characters
    are repeated possessively: for groups that is faulty before Python 3.11.5.
    """
    string = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
    key = rb'"[^"\\]*+": ?'
    value = scalar = rb"(?:" + string + rb"|[-+.\w]++)"
    for _ in range(4):
        value = rb"(?:%b|[\[{](?:(?:%b)?%b(?:, ?)?)*[\]}])" % (scalar, key, value)
    index = rb'"index": ?(\d++)'
    reason = rb'"finish_reason": ?(?:null|"([^"\\\x80-\xff]*+)")'
    choice = rb'\{(?:(?:%b|%b|(?!"index"|"finish_reason")%b%b)(?:, ?)?)*\}' % (index, reason, key, value)
    others = rb'(?:(?!"choices")%b%b(?:, ?)?)*' % (key, value)
    return re.compile(rb'data: \{%b"choices": ?\[%b\](?:, ?)?%b\}' % (others, choice, others))


_ONE_CHOICE = _one_choice()
