"""What comes in over an upstream's connection, up to the body: the head of its answer."""

from __future__ import annotations

import re
from typing import Any

from urllib3.exceptions import ProtocolError

#: The most that one read takes from the connection.
READ_BYTES = 65536
#: The longest head, those of the informational answers before it included, and the most lines in one.
HEAD_BYTES, HEADERS = 65536, 100

#: The name of a header (RFC 9110, 5.1).
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS = re.compile(r"HTTP/1\.([0-9]) +([1-9][0-9]{2})(?: [^\r\n]*)?\Z")
#: Nobody may end lines with LF alone, and some do (RFC 9112, 2.2).
_END = re.compile(rb"\n\r?\n")


class Silent(ProtocolError):
    """The connection ended before the first byte of an answer; `reused` tells whether it had served before."""

    def __init__(self, how: str, reused: bool) -> None:
        super().__init__(how)
        self.reused = reused


class Inlet:
    """What comes in over a connection; what was read and not asked for yet is kept.

    `http.client` reads a head line by line and through the parser for e-mails: half of what a request costs.
    """

    __slots__ = ("_recv", "held", "reused")

    def __init__(self, sock: Any) -> None:
        self._recv = sock.recv
        self.held = b""
        self.reused = False

    def read(self) -> bytes:
        """Return what has come, or comes next; `b""` at the end. Raises `OSError`."""
        held = self.held
        if held:
            self.held = b""
            return held
        data: bytes = self._recv(READ_BYTES)
        return data

    def head(self) -> Head:
        """Read the head of an answer; what is not the answer yet (RFC 9110, 15.2) is passed over.

        Raises `Silent`, `ProtocolError`, `OSError`.
        """
        try:
            data = self._recv(READ_BYTES)
        except ConnectionError as error:
            raise Silent("reset", self.reused) from error
        if not data:
            raise Silent("closed", self.reused)
        room = HEAD_BYTES
        while True:
            found = _END.search(data)
            end = found.end() if found else len(data)
            if end > room:
                raise ProtocolError("the head is too large")
            if found:
                head = Head(data[:end].decode("iso-8859-1"))
                data = data[end:]
                if head.status >= 200:
                    self.held = data
                    return head
                room -= end
                continue
            more = self._recv(READ_BYTES)
            if not more:
                raise ProtocolError("the head was cut")
            data += more


class Head:
    """Status and headers of an answer, and how its body is delimited.

    `headers` are by lower-case name, those of one name joined. The body is `chunked`, or `length` bytes, or (`None`)
    all that comes. Where two may read the head in two ways, nobody knows where the body ends: `closes` says that no
    other answer comes after it.
    """

    __slots__ = ("chunked", "closes", "headers", "length", "status")

    def __init__(self, text: str) -> None:
        first, *lines = text.rstrip("\r\n").split("\n")
        status = _STATUS.match(first.rstrip("\r"))
        if status is None or len(lines) > HEADERS:
            raise ProtocolError("no answer begins like this")
        self.status = int(status[2])
        if self.status == 101:
            raise ProtocolError("101 without having been asked to switch")
        self.headers: dict[str, str] = {}
        # A CR on its own ends a line for some (RFC 9112, 2.2).
        doubtful = self._take(lines) or text.count("\r") not in (0, text.count("\n"))
        coding = self.headers.get("transfer-encoding", "").lower()
        said = self.headers.get("content-length")
        self.chunked = coding == "chunked"
        doubtful = doubtful or bool(coding) and not (self.chunked and said is None)
        self.length: int | None = None
        if self.status in (204, 304):
            # What it says of a body is wrong or not of this answer, and some send one nevertheless.
            doubtful = doubtful or self.chunked or said not in (None, "0")
            self.chunked, self.length = False, 0
        elif said is not None and not self.chunked:
            one, *others = {length.strip(" \t") for length in said.split(",")}
            if others:
                raise ProtocolError("the body has two lengths")
            if one.isascii() and one.isdecimal() and len(one) < 20:
                self.length = int(one)
        # HTTP/1.0 keeps a connection where both say so, and Lockgate does not.
        asked = self.headers.get("connection", "").lower()
        self.closes = doubtful or status[1] == "0" or "close" in asked or not self.chunked and self.length is None

    def _take(self, lines: list[str]) -> bool:
        """Take the header lines; tell whether one of them is none."""
        headers, last, doubtful = self.headers, "", False
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not NAME.fullmatch(name):
                if last and line[0] in " \t":
                    # Folded, which nobody may send any more.
                    headers[last] = f"{headers[last]} {line.strip()}".lstrip()
                else:
                    doubtful = True
                continue
            last, value = name.lower(), value.strip(" \t\r")
            headers[last] = f"{headers[last]}, {value}" if last in headers else value
        return doubtful
