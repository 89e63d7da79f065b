"""How the body of an upstream's answer is read off its connection as it arrives."""

from __future__ import annotations

import io
import re
from typing import Any, Protocol

from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError

from proxy.upstreams.heads import READ_BYTES, Head, Inlet

#: The longest line of a chunk's size, with its extensions, or of all trailers together.
LINE_BYTES = 16384

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;|\Z)")


class Carrier(Protocol):
    """A connection that a body comes over."""

    inlet: Inlet

    def release(self) -> None:
        """Take the connection back: it can serve another call."""

    def close(self) -> None:
        """Close the connection."""


class Body:
    """The body of an answer, which goes on until the connection ends; `ended` says that all of it has been read.

    At the end the connection is released, or closed where no other answer can come over it. Raises `ProtocolError`
    where the body is cut or malformed, `OSError` where the connection fails.
    """

    def __init__(self, carrier: Carrier, closes: bool = True) -> None:
        self._carrier = carrier
        self._read = carrier.inlet.read
        self._closes = closes
        self.ended = False

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        data = b"" if self.ended else self._read()
        if not data:
            self._end()
        return data

    def _end(self, rest: bytes = b"") -> None:
        """End the body; `rest` is what has come behind it that nobody asked for: no other answer begins so."""
        if not self.ended:
            self.ended = True
            if rest or self._closes or self._carrier.inlet.held:
                self._carrier.close()
            else:
                self._carrier.release()


class Sized(Body):
    """A body whose length was said before it: the last of it ends it, without another read."""

    def __init__(self, carrier: Carrier, closes: bool, size_bytes: int) -> None:
        super().__init__(carrier, closes)
        self._left = size_bytes
        if not size_bytes:
            self._end()

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        if self.ended:
            return b""
        data = self._read()
        if not data:
            raise ProtocolError("the body was cut")
        self._left -= len(data)
        if self._left <= 0:
            end = len(data) + self._left
            self._end(data[end:])
            return data[:end]
        return data


class Chunked(Body):
    """A chunked body (RFC 9112, 7.1). Many chunks that have arrived together are one read.

    `http.client` takes two system calls' worth of Python for each chunk and hands each over alone, and a stream has a
    chunk for each event: most of what a burst of events costs.
    """

    def __init__(self, carrier: Carrier, closes: bool) -> None:
        super().__init__(carrier, closes)
        self._rest = b""
        self._left = 0  # bytes of the chunk that have not arrived, the line end behind it included
        self._trailers = False
        self._broken = ""

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        while not self.ended:
            if self._broken:
                raise ProtocolError(self._broken)
            arrived = self._read()
            if not arrived:
                raise ProtocolError("the body was cut")
            parts: list[bytes] = []
            try:
                self._cut(self._rest + arrived if self._rest else arrived, parts)
            except ProtocolError as broken:
                # What came before it was well formed, and is handed on first. An exception holds who raised it.
                self._broken = str(broken)
            if parts:
                return parts[0] if len(parts) == 1 else b"".join(parts)
        return b""

    def _cut(self, data: bytes, parts: list[bytes]) -> None:
        """Append the data in what has arrived to `parts`; what belongs to what comes next is kept."""
        at, size = 0, len(data)
        self._rest = b""
        while at < size and not self._trailers:
            left = self._left
            if left > 2:
                taken = min(left - 2, size - at)
                parts.append(data[at : at + taken])
                self._left = left - taken
                at += taken
            elif left:
                end = data[at : at + left]
                if end != b"\r\n"[2 - left :][: len(end)]:
                    raise ProtocolError("a chunk is longer than it says")
                self._left = left - len(end)
                at += len(end)
            else:
                end_of_line = data.find(b"\n", at)
                if end_of_line < 0:
                    break
                if not data.endswith(b"\r", at, end_of_line):
                    raise ProtocolError("a line of the chunked body ends otherwise than with CRLF")
                self._begin(data[at : end_of_line - 1])
                at = end_of_line + 1
        self._rest = data[at:]
        if self._trailers:
            self._finish()
        if len(self._rest) > LINE_BYTES:
            raise ProtocolError("a line of the chunked body is too long")

    def _begin(self, line: bytes) -> None:
        """Take the line before a chunk."""
        size = _SIZE.match(line)
        if size is None:
            raise ProtocolError("a chunk without a size")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailers = True

    def _finish(self) -> None:
        """Look for the end of the trailers; there the connection is free for another request."""
        rest = self._rest
        if rest.startswith(b"\r\n"):
            end = 2
        else:
            end = rest.find(b"\r\n\r\n") + 4
            if end < 4:
                return
        self._rest = b""
        self._end(rest[end:])


class Decoded:
    """A body that is compressed although nobody asked for that, decoded by urllib3 as it arrives."""

    def __init__(self, body: Body, coding: str) -> None:
        self._body = body
        file = io.BufferedReader(_File(body), READ_BYTES)
        self._decoder = HTTPResponse(file, {"content-encoding": coding}, preload_content=False)

    @property
    def ended(self) -> bool:
        """Whether all of the body has been read."""
        return self._body.ended

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end. Raises urllib3's `HTTPError`."""
        data: bytes = self._decoder.read1(READ_BYTES, decode_content=True)
        return data


class _File(io.RawIOBase):
    def __init__(self, body: Body) -> None:
        self._body = body
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._body.read()
        taken = min(len(data), len(buffer))
        buffer[:taken], self._rest = data[:taken], data[taken:]
        return taken


def body(head: Head, carrier: Carrier) -> Body | Decoded:
    """Return the reader for the body behind a head that has come over `carrier`."""
    if head.chunked:
        found: Body = Chunked(carrier, head.closes)
    elif head.length is not None:
        found = Sized(carrier, head.closes, head.length)
    else:
        found = Body(carrier)
    coding = head.headers.get("content-encoding", "identity").lower()
    return found if coding == "identity" else Decoded(found, coding)
