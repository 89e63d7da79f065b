"""An upstream that bills for what it served, with arithmetic of its own; it shares no code with Lockgate's."""

from __future__ import annotations

import json
import random
import threading
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from upstreams import FIN, Request, chunked, json_answer, sse, streaming

#: Dollars for a million tokens.
TARIFFS = {
    "one": {"input": "2.50", "cached": "1.25", "output": "10.00"},
    "two": {"input": "0.15", "cached": "0.075", "output": "0.60"},
}
#: What happens to an exchange, and how often. The order is part of a failing test's seed.
FATES = {
    "served": 40,
    "no usage": 10,
    "cut": 8,
    "error event": 8,
    "client leaves": 8,
    "refused": 6,
    "retried": 8,
    "falls back": 8,
    "all fail": 4,
    "breaks": 8,
    "all break": 4,
}


class Biller:
    """One provider, `name` in `TARIFFS`: give `script` to its upstream. `bills` are micro-dollars by exchange.

    What is asked for is in the message: `{"at": NUMBER, "fate": …, "prompt": …, "cached": …, "completion": …}`, in
    tokens. `reported` is what of the bills it told the usage of.
    """

    def __init__(self, name: str) -> None:
        self._tariff = {kind: Decimal(price) for kind, price in TARIFFS[name].items()}
        self._name = name
        self._lock = threading.Lock()
        self._asked: dict[int, int] = {}
        self.bills: dict[int, int] = {}
        self.reported: dict[int, int] = {}

    def script(self, request: Request) -> Any:
        """Answer as the plan in the message says, and bill."""
        body = request.json
        plan = json.loads(body["messages"][0]["content"])
        with self._lock:
            attempt = self._asked[plan["at"]] = self._asked.get(plan["at"], 0) + 1
        fate = plan["fate"]
        if fate == "refused":
            return json_answer({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
        if fate == "all fail" or (fate == "falls back" and self._name == "one"):
            return json_answer({"error": {"message": "broken", "type": "server_error"}}, 500)
        if fate == "retried" and attempt == 1:
            return json_answer({"error": {"message": "slow down"}}, 429, retry_after=0)
        if fate == "all break" or (fate == "breaks" and self._name == "one"):
            return self._broken(body, plan)
        return self._stream(body, plan) if body.get("stream") else self._whole(body, plan)

    def _broken(self, body: dict[str, Any], plan: dict[str, Any]) -> Any:
        """Accept, do all the work, and break off before anything of it can be handed on."""
        yield streaming() if body.get("stream") else self._whole(body, plan, told=False)[:-40]
        if body.get("stream"):
            self._bill(plan, plan["completion"], told=False)
        yield FIN

    def _whole(self, body: dict[str, Any], plan: dict[str, Any], told: bool = True) -> bytes:
        choices = [
            {"index": at, "message": {"role": "assistant", "content": "word " * 8}, "finish_reason": "stop"}
            for at in range(body.get("n", 1))
        ]
        told = told and plan["fate"] != "no usage"
        self._bill(plan, plan["completion"], told)
        return json_answer(_head("chat.completion") | {"choices": choices} | ({"usage": _usage(plan)} if told else {}))

    def _stream(self, body: dict[str, Any], plan: dict[str, Any]) -> Any:
        many = body.get("n", 1)
        events = [
            _head("chat.completion.chunk")
            | {"choices": [{"index": at, "delta": {"content": "word "}, "finish_reason": None}]}
            for _ in range(plan["completion"] // many)
            for at in range(many)
        ]
        yield streaming()
        fate = plan["fate"]
        if fate in ("cut", "error event", "client leaves"):
            served = max(1, len(events) // 2)
            self._bill(plan, served, told=False)
            yield chunked(sse(events[:served], done=False), last=False)
            if fate == "error event":
                yield chunked(sse([{"error": {"message": "broken", "type": "server_error"}}], done=False))
            elif fate == "client leaves":
                # Until the client's leaving has come here: what is sent into the void is nobody's.
                while True:
                    yield chunked(b": waiting\n\n", last=False)
                    threading.Event().wait(0.02)
            yield FIN
        else:
            ends = [
                _head("chat.completion.chunk") | {"choices": [{"index": at, "delta": {}, "finish_reason": "stop"}]}
                for at in range(many)
            ]
            told = fate != "no usage" and body.get("stream_options", {}).get("include_usage", False)
            last = [_head("chat.completion.chunk") | {"choices": [], "usage": _usage(plan)}] if told else []
            self._bill(plan, plan["completion"], told)
            yield chunked(sse([*events, *ends, *last]))

    def _bill(self, plan: dict[str, Any], completion: int, told: bool) -> None:
        """Add to the bill: exact, and rounded once."""
        dollars = (
            (plan["prompt"] - plan["cached"]) * self._tariff["input"]
            + plan["cached"] * self._tariff["cached"]
            + completion * self._tariff["output"]
        ) / 1_000_000
        with self._lock:
            micro = int((dollars * 1_000_000).to_integral_value(ROUND_HALF_UP))
            self.bills[plan["at"]] = self.bills.get(plan["at"], 0) + micro
            if told:
                self.reported[plan["at"]] = self.reported.get(plan["at"], 0) + micro


def plans(count: int, seed: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return so many plans with the request that asks for each."""
    draw = random.Random(seed)
    made = []
    for at in range(count):
        fate = draw.choices(list(FATES), list(FATES.values()))[0]
        prompt = draw.randrange(1, 4000)
        many = draw.choice([1, 1, 1, 2, 4])
        plan = {
            "at": at,
            "fate": fate,
            "prompt": prompt,
            "cached": draw.choice([0, 0, draw.randrange(prompt + 1)]),
            "completion": many * draw.randrange(2, 20),
        }
        streamed = fate in ("cut", "error event", "client leaves") or draw.random() < 0.5
        request: dict[str, Any] = {
            "model": "gpt-5",
            "messages": [{"role": "user", "content": json.dumps(plan)}],
            "max_tokens": draw.choice([50, 500, 5000]),
            "n": many,
        }
        if streamed:
            request["stream"] = True
        if streamed and draw.random() < 0.3:
            request["stream_options"] = {"include_usage": True}
        made.append((plan, request))
    return made


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1700000000, "model": "gpt-5"}


def _usage(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": plan["prompt"],
        "completion_tokens": plan["completion"],
        "total_tokens": plan["prompt"] + plan["completion"],
        "prompt_tokens_details": {"cached_tokens": plan["cached"]},
    }
