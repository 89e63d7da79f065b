"""What became of one exchange in the rig."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.exchange import Event, Exchange, Outcome
from proxy.fold import Fold, unfold


@dataclass
class Result:
    """What became of one exchange: `status`, `headers` (lower-case names) and `body` as the client got them.

    `cut` says that the answer was broken off. `sent` are the bodies that reached the upstream, in order.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    sent: list[dict[str, Any]] = field(default_factory=list)
    exchange: Exchange | None = None

    @property
    def outcome(self) -> Outcome:
        """How the exchange ended, as plugins see it in `on_complete`."""
        assert self.exchange is not None, "the exchange is not over"
        return self.exchange.outcome

    @property
    def upstream_body(self) -> dict[str, Any] | None:
        """The last body that reached the upstream; `None` where none did."""
        return self.sent[-1] if self.sent else None

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def json(self) -> Any:
        """The body of an answer that is not a stream: a completion, or `{"error": …}`."""
        return orjson.loads(self.body)

    @property
    def datas(self) -> list[bytes]:
        """The data of a stream's events, `[DONE]` included; each event must be one `data:` line and a blank one."""
        blocks = [block for block in self.body.split(b"\n\n") if block and not block.startswith(b":")]
        assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks), self.body
        return [block[6:] for block in blocks]

    @property
    def events(self) -> list[Event]:
        """The chunks of a stream, without `[DONE]` and errors; a whole answer as its single event."""
        if not self.streamed:
            return [unfold(self.json)] if "choices" in self.json else []
        parsed = [orjson.loads(data) for data in self.datas if data != b"[DONE]"]
        return [event for event in parsed if "error" not in event]

    @property
    def complete(self) -> bool:
        """Whether the client can tell that this is a whole answer."""
        if self.streamed:
            return not self.cut and self.datas[-1:] == [b"[DONE]"]
        return not self.cut and self.status == 200

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object, whether it came as a status or as an event."""
        if not self.streamed:
            error: dict[str, Any] | None = self.json.get("error")
            return error
        errors = [orjson.loads(data)["error"] for data in self.datas if data.startswith(b'{"error"')]
        return errors[-1] if errors else None

    @property
    def completion(self) -> dict[str, Any]:
        """The answer as one completion, however it came, and however much of it."""
        fold = Fold()
        for event in self.events:
            fold.add(event)
        return fold.completion()

    @property
    def messages(self) -> dict[int, dict[str, Any]]:
        """The message of each choice."""
        return {choice["index"]: choice["message"] for choice in self.completion["choices"]}

    @property
    def text(self) -> str:
        """The content of the first choice, `""` where it has none."""
        return self.messages.get(0, {}).get("content") or ""
