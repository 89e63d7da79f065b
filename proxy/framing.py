"""How an upstream's body is cut out of its connection: all that has arrived at once, whatever its chunks are."""

from __future__ import annotations

import re
from typing import Any

from urllib3.exceptions import ProtocolError

#: The most that one read takes from the connection.
READ_BYTES = 65536
#: The longest line of a chunk's size, with its extensions, or of all trailers together.
LINE_BYTES = 16384

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;|\Z)")


class Body:
    """The body of a urllib3 response, decoded, read as it arrives; `ended` says that all of it has been read.

    The connection goes back to its pool at the end. Raises what urllib3 raises.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.ended = False

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        # read1: the only reader that is immediate on close-delimited and compressed bodies alike.
        data: bytes = self._raw.read1(READ_BYTES, decode_content=True)
        if not data:
            self.ended = True
        return data


class Chunked(Body):
    """A chunked body (RFC 9112, 7.1). Many chunks that have arrived together are one read.

    `http.client` takes two system calls' worth of Python for each chunk and hands each over alone, and a stream has a
    chunk for each event: most of what a burst of events costs.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self._fp = raw._original_response.fp
        self._rest = b""
        self._left = 0  # bytes of the chunk that have not arrived, the line end behind it included
        self._trailers = False
        self._broken: ProtocolError | None = None

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        while not self.ended:
            if self._broken is not None:
                raise self._broken
            arrived = self._fp.read1(READ_BYTES)
            if not arrived:
                raise ProtocolError("the body was cut")
            parts: list[bytes] = []
            try:
                self._cut(self._rest + arrived if self._rest else arrived, parts)
            except ProtocolError as broken:
                # What came before it was well formed, and is handed on first.
                self._broken = broken
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
                length = data.find(b"\r\n", at)
                if length < 0:
                    break
                self._begin(data[at:length])
                at = length + 2
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
        self.ended = True
        self._rest = b""
        if end == len(rest):
            self._raw._original_response.close()
            self._raw.release_conn()
        else:
            # Something comes behind the end that nobody asked for: no answer of the next request may begin with it.
            self._raw.close()


def body(raw: Any) -> Body:
    """Return the reader for the body of a urllib3 response."""
    encoded = raw.headers.get("content-encoding", "identity").lower() != "identity"
    if encoded or not raw.chunked or raw._original_response.fp is None:
        return Body(raw)
    return Chunked(raw)
