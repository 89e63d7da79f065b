"""How an upstream's answer is read off its connection: its head, and its body as it arrives."""

from __future__ import annotations

import http.client
import io
import re
from typing import Any

from urllib3.exceptions import ProtocolError

#: The most that one read takes from the connection.
READ_BYTES = 65536
#: The longest line of a chunk's size, with its extensions, or of all trailers together.
LINE_BYTES = 16384
#: The longest line of a head, and the most lines in one.
HEADER_BYTES, HEADERS = 65536, 100

#: The name of a header (RFC 9110, 5.1).
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;|\Z)")


class Silent(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer; `reused` tells whether it had served before."""

    reused = False


class Response(http.client.HTTPResponse):
    """`http.client`'s response with a head that is read faster: its own goes through the parser for e-mails."""

    def begin(self) -> None:
        """Read the head; called again it does nothing."""
        if self.headers is not None:
            return
        # Later nobody could tell whether half a status line had come. It is the read that follows anyhow.
        try:
            begun = self.fp.peek(1)
        except ConnectionError as error:
            raise Silent("reset") from error
        if not begun:
            raise Silent("closed")
        version, status, reason = self._read_status()
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version == "HTTP/1.0" else 11
        self.headers = self.msg = _headers(self.fp)
        coding = (self.headers.get("transfer-encoding") or "").lower()
        self.chunked = coding == "chunked"
        self.chunk_left = None
        self.length = None
        length = self.headers.get("content-length")
        # Where two may read the head in two ways, nobody knows where the body ends: no other answer comes after it.
        doubtful = bool(self.headers.defects) or bool(coding) and not (self.chunked and length is None)
        self.will_close = doubtful or self._check_close()
        if status in (204, 304):
            self.length = 0
        elif length is not None and not self.chunked and length.isdecimal() and len(length) < 20:
            self.length = int(length)
        elif not self.chunked:
            self.will_close = True

    def _read_status(self) -> tuple[str, int, str]:
        # http.client takes 103 for the answer, and then the answer for that of the connection's next request.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not version.startswith("HTTP/1."):
                raise http.client.UnknownProtocol(version)
            if status == 101:
                raise http.client.BadStatusLine("101 without having been asked to switch")
            if not 100 <= status < 200:
                return version, status, reason
            _headers(self.fp)


def _headers(fp: Any) -> http.client.HTTPMessage:
    lines: list[bytes] = []
    while (line := fp.readline(HEADER_BYTES + 1)) not in (b"\r\n", b"\n"):
        if not line:
            raise http.client.RemoteDisconnected("the head was cut")
        if len(line) > HEADER_BYTES or len(lines) == HEADERS:
            raise http.client.HTTPException("the head is too large")
        lines.append(line)
    headers = http.client.HTTPMessage()
    for line in lines:
        name, _, value = line.decode("iso-8859-1").partition(":")
        if not NAME.fullmatch(name):
            # Folded lines, which nobody may send any more, and worse.
            return http.client.parse_headers(io.BytesIO(b"".join(lines) + b"\r\n"))
        headers[name] = value.strip(" \t\r\n")
    return headers


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

    def _free(self) -> None:
        """Give the connection back to its pool: the body has been read."""
        self.ended = True
        self._raw._original_response.close()
        self._raw.release_conn()

    def _drop(self) -> None:
        """Close the connection: something follows the body that nobody asked for, and no other answer begins so."""
        self.ended = True
        self._raw.close()


class Sized(Body):
    """A body whose length was said before it: the last of it ends it, without another read."""

    def __init__(self, raw: Any, size_bytes: int) -> None:
        super().__init__(raw)
        self._fp = raw._original_response.fp
        self._left = size_bytes

    def read(self) -> bytes:
        """Return the next bytes as soon as there are any, `b""` at the end."""
        if self.ended:
            return b""
        data: bytes = self._fp.read1(READ_BYTES)
        if not data:
            raise ProtocolError("the body was cut")
        self._left -= len(data)
        if self._left < 0:
            data = data[: self._left]
            self._drop()
        elif not self._left:
            self._free()
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
        if end == len(rest):
            self._free()
        else:
            self._drop()


def body(raw: Any) -> Body:
    """Return the reader for the body of a urllib3 response."""
    if raw.headers.get("content-encoding", "identity").lower() == "identity" and raw._original_response.fp is not None:
        if raw.chunked:
            return Chunked(raw)
        if raw.length_remaining:
            return Sized(raw, raw.length_remaining)
    return Body(raw)
