"""What an upstream is to say, whatever its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upstreams import Step

from proxy.testing import completion, stream, tool_call
from proxy.testing.answers import Message

#: What every answer uses: of the prompt some is cached, of the completion some is reasoning where there is any.
PROMPT, CACHED, COMPLETION, REASONING = 12, 4, 9, 5


@dataclass(frozen=True)
class Said:
    """One answer. `finish` is "stop", "length" or "filter"; `cited` is the piece of the text that has a source.

    `refusal` is said instead of a text, where the upstream has words for it, else it ends as a "filter" does. `broken`
    has the upstream fail after the answer has begun.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    cited: tuple[str, str] | None = None
    broken: bool = False
    refusal: str = ""

    @property
    def end(self) -> str:
        """How it ends where refusals are filtered answers."""
        return "filter" if self.refusal else self.finish

    @property
    def span(self) -> tuple[int, int]:
        """Where in the text the cited piece stands."""
        assert self.cited is not None
        start = self.text.index(self.cited[0])
        return start, start + len(self.cited[0])

    def message(self) -> Message:
        """Return it as OpenAI's message."""
        message: Message = {"content": self.text or None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.refusal:
            message["refusal"] = self.refusal
        if self.calls:
            message["tool_calls"] = [
                tool_call(name, arguments, f"call_{at}") for at, (name, arguments) in enumerate(self.calls)
            ]
        return message

    def events(self) -> list[dict[str, Any]]:
        """Return it as OpenAI would stream it, without usage."""
        finish = {"stop": None, "length": "length", "filter": "content_filter"}[self.finish]
        events = stream(self.message(), finish=finish, usage=None, model="upstream-model")
        if self.cited:
            events[-1]["choices"][0]["delta"] = {"annotations": [self.annotation()]}
        return events

    def completion(self) -> dict[str, Any]:
        """Return it as OpenAI's whole answer, without usage."""
        finish = {"stop": None, "length": "length", "filter": "content_filter"}[self.finish]
        made = completion(self.message(), finish=finish, usage=None, model="upstream-model")
        if self.cited:
            made["choices"][0]["message"]["annotations"] = [self.annotation()]
        return made

    def annotation(self) -> dict[str, Any]:
        """Return OpenAI's citation of the cited piece."""
        assert self.cited is not None
        start, end = self.span
        cited = {"url": self.cited[1], "title": "A title", "start_index": start, "end_index": end}
        return {"type": "url_citation", "url_citation": cited}

    def usage(self) -> dict[str, Any]:
        """Return OpenAI's usage."""
        details = {"completion_tokens_details": {"reasoning_tokens": REASONING}} if self.reasoning else {}
        return {
            "prompt_tokens": PROMPT,
            "completion_tokens": COMPLETION,
            "total_tokens": PROMPT + COMPLETION,
            "prompt_tokens_details": {"cached_tokens": CACHED},
            **details,
        }


@dataclass(frozen=True)
class Speaker:
    """How one upstream speaks: streamed, whole, and where it refuses for its rate limit or a prompt too long."""

    streamed: Callable[[Said], Iterable[Step] | Step]
    whole: Callable[[Said], Step]
    limited: Callable[[], Step]
    overflown: Callable[[], Step]
