"""Many streams at once through one gateway, held in their middle by their upstream until a test lets them end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gateways import Gateway
from upstreams import Gate, Request, Step, Upstream, chunked, json_answer, sse, stream_answer, streaming
from wire import PATIENCE_S, Answer, Wire

from proxy.testing import completion, stream

CONFIG = """
chain = ["keys", "sign"]

[plugins.keys]
use = "api_keys"

[plugins.sign]
use = "sign"

[providers.up]
use = "openai"
base_url = "{url}"
timeouts = {{ connect = 5, first_byte = 60, idle = 60 }}

[models.held]
targets = ["up"]

[models.quick]
targets = ["up"]

[models.hidden]
targets = ["up"]

[models.endless]
targets = ["up"]
"""

SIGN = """
import os
from proxy import hookimpl

class Sign:
    name = "sign"

    @hookimpl
    def on_request(self, exchange):
        exchange.response_headers["x-sign"] = "{sign}"
        exchange.response_headers["x-worker"] = str(os.getpid())
"""

Seen = TypeVar("Seen")
FILLER = chunked(sse([stream()[1]], done=False), last=False) * 200


class Holding(Upstream):
    """Answers `quick` at once, `endless` without end, and `held` up to its second event until `gate` is opened."""

    def __init__(self) -> None:
        self.gate = Gate()
        super().__init__(self._script)

    def models(self) -> list[str]:
        """Return what each request so far asked for."""
        return [request.json["model"] for request in self.requests]

    def _script(self, request: Request) -> Iterator[Step]:
        model, events = request.json["model"], stream()
        if model == "held":
            yield streaming() + chunked(sse(events[:2], done=False), last=False)
            yield self.gate
            yield chunked(sse(events[2:]))
        elif model == "endless":
            yield streaming()
            while True:
                yield FILLER
        else:
            yield stream_answer() if request.json.get("stream") else json_answer(completion())


class Crowd:
    """Clients with a held stream each, of which the beginning has been read."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self.wires: list[Wire] = []
        try:
            for _ in range(number):
                self.wires.append(gateway.wire())
                self.wires[-1].request(ask("held"))
            self.heads = [wire.read_until(b"\r\n\r\n").decode() for wire in self.wires]
            for wire, head in zip(self.wires, self.heads, strict=True):
                assert head.startswith("HTTP/1.1 200 "), head
                wire.read_until(b'"Hel')
        except BaseException:
            self.__exit__()
            raise

    def ids(self) -> set[str]:
        """Return the request ids of the streams."""
        return {_field(head, "x-request-id") for head in self.heads}

    def workers(self) -> set[int]:
        """Return the processes that serve the streams."""
        return {int(_field(head, "x-worker")) for head in self.heads}

    def rests(self) -> list[tuple[bytes, bool]]:
        """Read each stream to its end: what came, and whether the terminating chunk did."""
        return [_rest(wire) for wire in self.wires]

    def assert_whole(self) -> None:
        """Each stream comes to its own end."""
        for rest, terminated in self.rests():
            assert terminated and rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), rest

    def assert_cut(self) -> None:
        """Each stream breaks off, and nothing in it looks like an end."""
        for rest, terminated in self.rests():
            assert not terminated and b"[DONE]" not in rest, rest

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self.wires:
            wire.close()


def start(folder: Path, up: Upstream, worker: str, server: dict[str, Any], **options: Any) -> Gateway:
    """Start a gateway in front of `up`; each answer's headers name its worker, and the word in `own/sign.py`."""
    sign(folder, "good")
    server = {"plugins_dir": str(folder / "own"), **server}
    return Gateway(folder, CONFIG.format(url=up.url), worker=worker, server=server, **options)


def sign(folder: Path, word: str) -> None:
    """Write the plugin that puts `word` into a header."""
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "sign.py").write_text(SIGN.format(sign=word))


def ask(model: str, streamed: bool = True, size_bytes: int = 0) -> bytes:
    """Return the body of a request; `size_bytes` pads it."""
    body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": "Hi"}]}
    return json.dumps(body).encode().ljust(size_bytes)


def quick(gateway: Gateway, model: str = "quick", size_bytes: int = 0) -> Answer:
    """Ask for a short answer on a connection of its own."""
    with gateway.wire() as wire:
        return wire.post(ask(model, size_bytes=size_bytes))


def until(look: Callable[[], Seen]) -> Seen:
    """Look again until there is something to see; what `look` does sets the pace."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < give_up_at, "what was waited for did not come"
    return seen


def _field(head: str, name: str) -> str:
    found = re.search(rf"(?i)^{name}: *(\S+)", head, re.M)
    assert found, head
    return found[1]


def _rest(wire: Wire) -> tuple[bytes, bool]:
    try:
        return wire.read_until(b"\r\n0\r\n\r\n"), True
    except EOFError as end:
        return end.args[0], False
    except ConnectionResetError:
        return b"", False
