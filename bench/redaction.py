"""What redaction adds to a request, to an event and to the first token."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

WORDS = (
    "the committee met again on Tuesday to talk about what had been left open after the summer and nobody was in a "
    "hurry to vote because the weather was fine"
).split()
KEY = b"k" * 32


def prose(size: int) -> str:
    """Return plain prose of so many characters."""
    chance = random.Random(1)
    words = [chance.choice(WORDS) + (".\n" if at % 60 == 59 else "") for at in range(size // 3)]
    return " ".join(words)[:size]


def table(rows: int) -> str:
    """Return rows of numbers, of which some look like this and some like that."""
    chance = random.Random(2)
    return "\n".join(
        f"{chance.randrange(10**9)},{chance.randrange(10**11)},{chance.random():.6f},{chance.randrange(10**5)}"
        for _ in range(rows)
    )


def redaction(best_us: Callable[..., float]) -> Iterable[str]:
    """Yield the figures, each with its goal where there is one."""
    from proxy.exchange import Exchange
    from proxy.redaction.redaction import Redaction
    from proxy.redaction.schema import RedactionSchema

    class Key:
        def reveal(self) -> str:
            return KEY.decode()

    def made(**options: Any) -> Redaction:
        return Redaction({**RedactionSchema().load(options), "key": Key()})

    def exchange(text: str) -> Exchange:
        begun = Exchange("req_bench", "POST", "/v1/chat/completions", {}, "127.0.0.1")
        begun.body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        return begun

    plain = made()
    for size, goal in ((1_000, 30), (10_000, 60), (100_000, 400)):
        sent = exchange(prose(size))
        took = best_us(lambda sent=sent: plain.take(sent), repeats=2_000_000 // (size + 10_000))
        yield f"a prompt of {size // 1000} kB of prose: {took:.0f} µs (goal {goal})"
    for rows in (100, 1_000):
        text = table(rows)
        took = best_us(lambda text=text: plain.take(exchange(text)), repeats=3_000 // rows, rounds=3)
        yield f"a table of {len(text) / 1000:.0f} kB of digits: {took / len(text) * 1000:.0f} µs a kB"
    values = exchange("Write to jo.doe@example.com and charge 4111 1111 1111 1111.")
    body = dict(values.body)

    def restored() -> None:
        values.body = {**body, "messages": [dict(body["messages"][0])]}
        plain.take(values)

    yield f"a prompt with two values: {best_us(restored):.0f} µs"
    for label, instance in (
        ("restored", plain),
        ("inspected, masked and restored", made(response={"default": "mask"})),
    ):
        yield f"an event that is {label}: {_event_us(instance, values):.1f} µs (goal 20)"
    values.body = {**body, "messages": [{"role": "user", "content": "I am jo.doe@example.com"}]}
    began = time.perf_counter()
    known = plain.take(values)
    next(iter(plain.filter(values, known)(iter([_event("Hello ")]))))
    yield f"the first token: {(time.perf_counter() - began) * 1e6:.0f} µs later (goal 1,000)"


def _event(text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
    }


def _event_us(instance: Any, exchange: Any) -> float:
    texts = [f" {word}" for word in prose(30_000).split()]
    fastest = float("inf")
    for _ in range(5):
        exchange.body = {"messages": [{"role": "user", "content": "I am jo.doe@example.com"}]}
        known = instance.take(exchange)
        through = instance.filter(exchange, known)
        events = [_event(text) for text in texts]
        began = time.thread_time()
        for _ in through(iter(events)):
            pass
        fastest = min(fastest, time.thread_time() - began)
    return fastest / len(texts) * 1e6
