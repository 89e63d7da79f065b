"""A client of bare bytes, for what no library would send, or would hide."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it came. `headers` has lower-case names; `whole` is false where it was cut before its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream that is as it must be: `data: …`, comments, blank lines; `[DONE]` stays a string."""
        data = [block for block in self.body.decode().split("\n\n") if block and not block.startswith(":")]
        assert all(block.startswith("data: ") and "\n" not in block for block in data), self.body
        return [block[6:] if block == "data: [DONE]" else json.loads(block[6:]) for block in data]


class Wire:
    """One connection to a gateway, at the level of bytes."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self.key = key
        self.socket = socket.create_connection(address, timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def request(
        self, body: Any, path: str = "/v1/chat/completions", method: str = "POST", **headers: str | None
    ) -> None:
        """Send a request with a JSON body, or bytes; `content_type="…"` sets a header, `None` leaves it out."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {
            "host": "gateway",
            "authorization": f"Bearer {self.key}",
            "content_type": "application/json",
            "content_length": str(len(raw)),
            **headers,
        }
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + raw)

    def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str | None) -> Answer:
        """Send a request and read its answer."""
        self.request(body, path, "POST", **headers)
        return self.answer()

    def get(self, path: str, method: str = "GET", **headers: str | None) -> Answer:
        """Send a request without a body and read its answer."""
        self.request(b"", path=path, method=method, content_type=None, **headers)
        return self.answer(bodiless=method == "HEAD")

    def read_until(self, mark: bytes) -> bytes:
        """Read up to and with a mark; raise `EOFError` where the connection ends before it."""
        while mark not in self._buffer:
            self._fill()
        end = self._buffer.index(mark) + len(mark)
        return self._cut(end)

    def answer(self, bodiless: bool = False) -> Answer:
        """Read one answer; one that is cut is returned with what came of it, `whole` false."""
        line, *lines = self.read_until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        status = int(line.split()[1])
        if status // 100 == 1:
            return self.answer(bodiless)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, whole = [], False
        with contextlib.suppress(EOFError, ConnectionResetError):
            if bodiless or status in (204, 304):
                whole = True
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(self.read_until(b"\r\n"), 16):
                    body.append(self.read(size + 2)[:-2])
                whole = self.read(2) == b"\r\n"
            elif "content-length" in headers:
                body.append(self.read(int(headers["content-length"])))
                whole = True
            else:
                with contextlib.suppress(EOFError):
                    self.read_until(b"\r\nnever\r\n")
                body, whole = [self._buffer], True
        return Answer(status, headers, b"".join(body), whole)

    def read(self, size: int) -> bytes:
        """Read so many bytes; raise `EOFError` where there are fewer."""
        while len(self._buffer) < size:
            self._fill()
        return self._cut(size)

    def ended(self) -> bool:
        """Wait for the connection to end; true if nothing else came before."""
        with contextlib.suppress(ConnectionResetError):
            return not self._buffer and not self.socket.recv(1)
        return True

    def close(self, reset: bool = False) -> None:
        """Leave, politely or not."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data
