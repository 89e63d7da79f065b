"""One exchange in the rig: a client that takes the answer piece by piece, and the scripted upstream's side of it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from urllib3.exceptions import ProtocolError

from proxy.call import Call
from proxy.providers.base import Outgoing
from proxy.settings import Timeouts
from proxy.testing import answers
from proxy.testing.result import Result
from proxy.upstreams.heads import Head
from proxy.upstreams.upstream import Answer


@dataclass
class Script:
    """What the upstream will answer in one exchange, and where it is written down what became of it."""

    answer: answers.Answer
    split: int | Sequence[int]
    result: Result


current: contextvars.ContextVar[Script] = contextvars.ContextVar("script")


class Running:
    """An exchange that has begun: `step()` takes its next piece, `finish()` all of them."""

    def __init__(self, script: Script, app: Any, environ: dict[str, Any]) -> None:
        self.result = script.result
        self._script = script
        self._pieces: Any = self._within(lambda: app(environ, self._start_response))
        self._iterator: Iterator[bytes] = iter(self._pieces)

    def step(self) -> bool:
        """Take one piece; false when there is no more."""
        try:
            self.result.body += self._within(lambda: next(self._iterator))
            return True
        except StopIteration:
            pass
        except ConnectionResetError:
            self.result.cut = True
        return False

    def finish(self) -> Result:
        """Take the rest, end the exchange, and return its result."""
        while self.step():
            pass
        return self.leave()

    def leave(self) -> Result:
        """End the exchange here, as when the client goes away."""
        self._within(self._pieces.close)
        return self.result

    def _within(self, action: Callable[[], Any]) -> Any:
        token = current.set(self._script)
        try:
            return action()
        finally:
            current.reset(token)

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.result.status = int(status[:3])
        self.result.headers = {name.lower(): value for name, value in headers}
        return lambda heartbeat: None


class Upstream:
    """Stands in for `proxy.upstreams.upstream.Upstream`: answers from the script of the exchange that asks."""

    def send(self, call: Call, outgoing: Outgoing, timeouts: Timeouts) -> Answer:
        script = current.get()
        body = orjson.loads(outgoing.body)
        script.result.sent.append(body)
        raw = answers.raw(script.answer, orjson.loads(outgoing.body), script.split)
        told = [f"HTTP/1.1 {raw.status} Scripted", *[f"{name}: {value}" for name, value in raw.headers.items()]]
        return Answer(call, Head("\n".join(told)), _Connection(raw), timeouts, 32 << 20)

    def close(self) -> None:
        pass


class _Connection:
    """Stands in for a connection that delivers a scripted body, a piece a read, and then ends."""

    held = b""

    def __init__(self, raw: answers.Raw) -> None:
        self.inlet: Any = self
        self._pieces = filter(None, raw.body)
        self._cut = raw.cut

    def read(self) -> bytes:
        piece = next(self._pieces, b"")
        if not piece and self._cut:
            raise ProtocolError("cut by the script")
        return piece

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass
