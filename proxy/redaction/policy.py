"""What one `redact` instance does: its detectors, its actions, and the exchanges that it is applied to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from proxy.errors import Reject
from proxy.exchange import Event, Exchange
from proxy.redaction import answer, placeholders, request
from proxy.redaction.kinds import LABELS, LITERAL
from proxy.redaction.names import Names
from proxy.redaction.placeholders import Known, Placeholders
from proxy.redaction.restoring import Restorer
from proxy.redaction.scanner import Finder, Scanner

log = logging.getLogger("lockgate.redact")

CODE = "sensitive_data"


class Policy:
    """Made once from a checked configuration, shared by threads. `up` and `down` are actions by kind."""

    def __init__(
        self,
        up: Mapping[str, str],
        down: Mapping[str, str],
        finders: Sequence[Finder],
        labels: Mapping[str, str],
        allowed: frozenset[str] = frozenset(),
        allowed_pattern: Any = None,
        names: Names | None = None,
        log_hashes: bool = False,
    ) -> None:
        self.up = {kind: action for kind, action in up.items() if action != "off"}
        self.down = {kind: action for kind, action in down.items() if action != "off"}
        self.labels = {**labels, LITERAL: LITERAL}
        self._allowed = allowed
        self._allowed_pattern = allowed_pattern
        self._names = names
        self._log_hashes = log_hashes
        check = self._is_allowed if allowed or allowed_pattern is not None else None
        every = placeholders.all_labels(labels.values())
        self.scanner = Scanner(
            LABELS.keys() & self.up.keys(), [one for one in finders if one.kind in self.up], check, every
        )
        built_in = LABELS.keys() & self.down.keys()
        self._answers = Scanner(built_in, (), check, every) if built_in else None
        self._finders = [one for one in finders if one.kind in self.down]
        self._holding = any(action != "observe" for action in self.down.values())

    def _is_allowed(self, value: str) -> bool:
        return value in self._allowed or (
            self._allowed_pattern is not None and self._allowed_pattern.fullmatch(value) is not None
        )

    def inspect(self, body: dict[str, Any]) -> request.Taken:
        """Return what is found in a chat request, which is not changed; raises `Reject` (503) where names come late."""
        if self._names is None:
            return request.inspect(body, self.scanner.find)
        return request.inspect(body, self._names.beside(self.scanner.find, list(request.slots(body)), self._is_allowed))

    def take(self, exchange: Exchange, key: bytes) -> Known:
        """Take the values out of an exchange's request, in place; return those that its answer may have back.

        Raises `Reject` (400), naming kinds and never values, where one is to be blocked; the request is then unchanged.
        """
        taken = self.inspect(exchange.body)
        known = Known(Placeholders(key, placeholders.tenant(exchange.identity)))
        if taken.replacing:
            for kind, count in taken.counts.items():
                _count(exchange, f"{kind}.request", count)
            self._log(exchange, taken, known)
            blocked = sorted(kind for kind in taken.counts if self.up[kind] == "block")
            if blocked:
                raise refusal("request", blocked)
            request.replace(taken, self.up, self.labels, known)
        return known

    def filter(self, exchange: Exchange, known: Known) -> Any:
        """Return the filter for an exchange's answer, or `None` if there is nothing to do."""
        inspection = None
        if self.down:
            inspection = answer.Inspection(self._answers, self._finders, self._decide(exchange, known), self._holding)
        restorer = Restorer(known.values) if known else None
        if inspection is None and restorer is None:
            return None
        form = exchange.body.get("response_format")
        json = type(form) is dict and form.get("type") in ("json_object", "json_schema")

        def redacted(events: Iterable[Event]) -> Iterator[Event]:
            source = _Source(events)
            try:
                yield from answer.changed(source, inspection, restorer, json)
            except Reject:
                raise
            except Exception as error:
                if source.failed:
                    raise
                # Its text, and those that it came from, may hold what was being looked at.
                raise RuntimeError(f"redaction of an answer failed with {type(error).__name__}") from None

        return redacted

    def _decide(self, exchange: Exchange, known: Known) -> Any:
        def decide(kind: str, value: str) -> str | None:
            if kind == LITERAL:
                return None
            action = self.down[kind]
            _count(exchange, f"{kind}.response", 1)
            if self._log_hashes:
                log.info("%s: %s in the answer: %s", exchange.id, kind, known.name(self.labels[kind], value, False))
            if action == "block":
                raise refusal("answer", [kind])
            return f"[{known.name(self.labels[kind], value, False)}]" if action == "mask" else None

        return decide

    def _log(self, exchange: Exchange, taken: request.Taken, known: Known) -> None:
        if self._log_hashes:
            for _, made in taken.replacing:
                for edit in made:
                    if edit.kind != LITERAL:
                        name = known.name(self.labels[edit.kind], edit.value, False)
                        log.info("%s: %s in the request: %s", exchange.id, edit.kind, name)


class _Source:
    """The events of an upstream; remembers whether it was they that failed."""

    __slots__ = ("_events", "failed")

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self.failed = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except StopIteration:
            raise
        except BaseException:
            self.failed = True
            raise


def refusal(where: str, kinds: Sequence[str]) -> Reject:
    """Return the refusal that names the kinds of what was found in a `request` or an `answer`."""
    return Reject(400, CODE, f"The {where} holds what must not be passed on: {', '.join(kinds)}.")


def _count(exchange: Exchange, label: str, count: int) -> None:
    exchange.findings[label] = exchange.findings.get(label, 0) + count
