"""Filters for the text of answers that are right for every split of every event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from proxy.exchange import Event
from proxy.fold import another_call

FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
"""Text fields of a delta, beside the arguments of its calls."""

CALLS = (("function", "arguments"), ("custom", "input"))
"""Where the two kinds of tool call keep their text."""


def rewrite_text(
    events: Iterable[Event],
    pattern: Any,
    replacement: str | Callable[[Any], str],
    longest: int,
) -> Iterator[Event]:
    r"""Substitute in the text of an answer as `pattern.sub(replacement, text)` would in each of its whole texts.

    Texts are a choice's `content`, `refusal`, `reasoning_content` (and `reasoning`, as some engines call it) and the
    arguments or input of each call. `pattern` is compiled, by `re` or anything with its `finditer(text, pos)` and
    matches with `expand`. `replacement` is a template as for `re.sub`, or gets the match; only the match's groups mean
    anything, not its positions.

    `longest`, in characters and at least 1, bounds a match together with what it looks ahead at (anchors, `\b` and a
    single character of look-ahead need not be counted). Look-behind may reach back as far, or 64 characters. One
    character more than `longest` is held back; what is held for a choice comes out in or right before its finish event,
    and is dropped if the stream ends without one. Events left without anything to say are dropped.

    Log probabilities and token ids would tell the original text: `logprobs` becomes null and `token_ids` is taken off
    every event, whether or not anything matched. Events are changed in place.
    """
    if longest < 1:
        raise ValueError("longest is a number of characters, at least 1")
    if isinstance(replacement, str):
        template = replacement
        expand = (lambda match: match.expand(template)) if "\\" in template else lambda match: template
    else:
        expand = replacement
    return each_text(events, lambda *_: _Rewrite(pattern, expand, longest), tokens=False)


def hold(events: Iterable[Event], may_start: Callable[[str], int], resolve: Callable[[str], str]) -> Iterator[Event]:
    """Replace known tokens, such as placeholders, and hold back only what could still become one.

    `may_start(text)` gets text that has not been released, and returns the smallest index from which on it could be
    the unfinished beginning of a token if more text followed, or `len(text)`. It must not lie inside a token that is
    complete, and must move on once the text is too long for a token, for all behind it is held. `resolve(text)`
    returns the text with its tokens replaced; it gets released pieces, so it must not look beyond a token's ends.
    Then the outcome is `resolve` of each whole text, for every split; texts, finish and cuts are as for `rewrite_text`.

    Log probabilities are left alone: they tell the tokens, not what these stand for. Events are changed in place.
    """
    return each_text(events, lambda *_: _Hold(may_start, resolve), tokens=True)


class Window(Protocol):
    """One text on its way through a filter."""

    def take(self, text: str, last: bool) -> str:
        """Add text, return what can be released; all that is left if it is the last."""


class _Rewrite:
    """Released context, then held text. A match that starts before the last `longest` characters is certain."""

    __slots__ = ("_pattern", "_expand", "_longest", "_text", "_done")

    def __init__(self, pattern: Any, expand: Callable[[Any], str], longest: int) -> None:
        self._pattern = pattern
        self._expand = expand
        self._longest = longest
        self._text = ""
        self._done = 0

    def take(self, text: str, last: bool) -> str:
        text = self._text + text
        done = self._done
        # One more than longest: `$` also matches before a newline that ends the text.
        limit = len(text) if last else len(text) - self._longest - 1
        if done == len(text) or (limit <= done and not last):
            self._text = text
            return ""
        released: list[str] = []
        for match in self._pattern.finditer(text, done):
            start = match.start()
            if start >= limit and not last:
                break
            released += text[done:start], self._expand(match)
            done = match.end()
        if done < limit:
            released.append(text[done:limit])
            done = limit
        # With something before it a text does not begin here, for `^` and `\A`.
        trim = max(0, done - max(self._longest, 64))
        self._text = text[trim:]
        self._done = done - trim
        return "".join(released)


class _Hold:
    __slots__ = ("_may_start", "_resolve", "_text")

    def __init__(self, may_start: Callable[[str], int], resolve: Callable[[str], str]) -> None:
        self._may_start = may_start
        self._resolve = resolve
        self._text = ""

    def take(self, text: str, last: bool) -> str:
        text = self._text + text
        start = len(text) if last else self._may_start(text)
        self._text = text[start:]
        return self._resolve(text[:start]) if start else ""


class _Texts:
    """The texts of one choice, each with its window: by field, and for tool calls by kind and index."""

    __slots__ = ("_new", "_choice", "_windows", "_ids", "_seen", "_held")

    def __init__(self, new: Callable[[int, str], Window], choice: int) -> None:
        self._new = new
        self._choice = choice
        self._windows: dict[tuple[str, int | None], Window] = {}
        self._ids: dict[int, str] = {}
        self._seen: set[tuple[str, int | None]] = set()
        self._held = False

    def through(self, delta: dict[str, Any], last: bool) -> tuple[bool, dict[str, Any]]:
        """Change a delta's texts; return whether one is held back whole, and a delta of what else `last` brings out."""
        self._seen.clear()
        self._held = False
        for field in FIELDS:
            if field in delta:
                self._take(field, None, delta, field, last)
        if delta.get("function_call"):
            self._take("function_call", None, delta["function_call"], "arguments", last)
        if delta.get("tool_calls"):
            delta["tool_calls"] = self._calls(delta["tool_calls"], last)
        due: dict[str, Any] = {}
        if last:
            for kind, index in self._windows:
                if (kind, index) not in self._seen:
                    _put(due, kind, index, self._windows[kind, index].take("", True))
        return self._held, due

    def _take(self, kind: str, index: int | None, part: dict[str, Any], name: str, last: bool) -> None:
        text = part.get(name)
        if isinstance(text, str) and (text or last):
            window = self._windows.get((kind, index))
            if window is None:
                window = self._windows[kind, index] = self._new(self._choice, kind)
            part[name] = window.take(text, last)
            self._seen.add((kind, index))
            self._held |= bool(text) and not part[name]

    def _calls(self, calls: list[dict[str, Any]], last: bool) -> list[dict[str, Any]]:
        passed: list[dict[str, Any]] = []
        for position, call in enumerate(calls):
            index = call.get("index", position)
            if another_call({"id": self._ids.get(index)}, call):
                # Its index was another call's so far, whose end has to come out before it.
                due: dict[str, Any] = {}
                for kind, _ in CALLS:
                    if window := self._windows.pop((kind, index), None):
                        _put(due, kind, index, window.take("", True))
                passed += due.get("tool_calls", ())
                self._ids[index] = call["id"]
            elif call.get("id"):
                self._ids.setdefault(index, call["id"])
            for kind, name in CALLS:
                if call.get(kind):
                    self._take(kind, index, call[kind], name, last)
            passed.append(call)
        return passed


def _put(delta: dict[str, Any], kind: str, index: int | None, text: str) -> None:
    if not text:
        return
    if index is not None:
        name = dict(CALLS)[kind]
        delta.setdefault("tool_calls", []).append({"index": index, kind: {name: text}})
    elif kind == "function_call":
        delta[kind] = {"arguments": text}
    else:
        delta[kind] = text


def each_text(events: Iterable[Event], window: Callable[[int, str], Window], tokens: bool) -> Iterator[Event]:
    """Send every text of `events` through a window of its own; `tokens` says whether to keep what tells of tokens.

    `window(choice, field)` makes one: the field is of `FIELDS`, or `function`, `custom` or `function_call` for the text
    of a call. Texts, finish and cuts are as for `rewrite_text`. Events are changed in place.
    """
    answers: dict[int, _Texts] = {}
    for event in events:
        # Padding that hides the length of a delta's text: it is of another text now.
        event.pop("obfuscation", None)
        held = False
        for choice in event.get("choices") or ():
            index = choice.get("index") or 0
            if not tokens:
                choice["logprobs"] = None
                choice.pop("token_ids", None)
            texts = answers.get(index)
            if texts is None:
                texts = answers[index] = _Texts(window, index)
            some, due = texts.through(choice.get("delta") or {}, bool(choice.get("finish_reason")))
            held |= some
            if due:
                before = {"index": index, "delta": due, "logprobs": None, "finish_reason": None}
                yield {key: value for key, value in event.items() if key != "usage"} | {"choices": [before]}
        if not held or _trim(event):
            yield event


def _trim(event: Event) -> bool:
    """Take tool calls off that say nothing any more; return whether the event as a whole says anything."""
    if event.get("usage"):
        return True
    for choice in event["choices"]:
        if choice.get("finish_reason") or choice.get("logprobs"):
            return True
        delta = choice.get("delta") or {}
        if delta.get("tool_calls"):
            delta["tool_calls"] = [call for call in delta["tool_calls"] if not _empty(call, "index", "type")]
            if not delta["tool_calls"]:
                del delta["tool_calls"]
        if not _empty(delta):
            return True
    return False


def _empty(part: dict[str, Any], *beside: str) -> bool:
    return not any(
        not _empty(value) if isinstance(value, dict) else value for key, value in part.items() if key not in beside
    )
