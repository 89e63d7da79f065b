"""What the core counts of every exchange, of its targets and of its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.errors import CODE
from proxy.exchange import Attempt, Exchange
from proxy.metrics.registry import OTHER, Registry

if TYPE_CHECKING:
    from proxy.gateway import Gateway
    from proxy.routing import Breaker

TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning", "audio")
#: Upper bounds in seconds for the longest silence within a stream.
GAPS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BREAKER_STATES = ("closed", "open", "half-open")


class Metrics(Registry):
    """The registry of one worker, with the core's own metrics. Of models only the configured patterns are labels."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        model = ("model", "stream")
        self._requests = self.counter(
            "lockgate_requests_total", "Exchanges that ended, by what the client was told.", ("model", "status", "code")
        )
        self._in_flight = self.gauge("lockgate_requests_in_flight", "Exchanges that have not ended.")
        self._seconds = self.histogram("lockgate_request_seconds", "How long exchanges took.", model)
        self._first = self.histogram("lockgate_first_event_seconds", "How long until the answer began.", model)
        self._longest_gap = self.histogram(
            "lockgate_stream_longest_gap_seconds", "The longest silence within a stream.", ("model",), GAPS
        )
        self._gaps = self.counter("lockgate_stream_gaps_total", "Gaps between the events of streams.", ("model",))
        self._gap_seconds = self.counter(
            "lockgate_stream_gap_seconds_total", "All gaps between the events of streams together.", ("model",)
        )
        self._tokens = self.counter(
            "lockgate_tokens_total",
            "Tokens: cached ones are among the prompt's, reasoning among the completion's.",
            ("model", "kind"),
        )
        self._cost = self.counter("lockgate_cost_dollars_total", "What exchanges cost, where it is known.", ("model",))
        self._attempts = self.counter(
            "lockgate_upstream_attempts_total", "Calls of targets; without a code they went well.", ("target", "code")
        )
        self._attempt_seconds = self.histogram(
            "lockgate_upstream_attempt_seconds", "How long until targets began to answer, or failed.", ("target",)
        )
        self._findings = self.counter("lockgate_findings_total", "What plugins found, by their labels.", ("finding",))
        self._failures = self.counter("lockgate_plugin_failures_total", "Hooks and filters that raised.", ("plugin",))
        self.add, self._begun = self.slot.add, ((self._in_flight.at, 1.0),)

    def begun(self, exchange: Exchange) -> None:
        """Count an exchange that begins; `ended` must follow."""
        self.add(self._begun)

    def ended(self, exchange: Exchange, pattern: str | None) -> None:
        """Count all of an exchange that has ended, whose model was configured as `pattern`."""
        outcome, usage = exchange.outcome, exchange.usage
        model, stream = pattern or "", "true" if exchange.stream else "false"
        code = outcome.code
        changes = [
            (self._in_flight.at, -1.0),
            (self._requests.labels(model, outcome.status, _code(code)).at, 1.0),
            *self._seconds.labels(model, stream).changes(outcome.duration_s),
        ]
        if outcome.first_event_s is not None:
            changes += self._first.labels(model, stream).changes(outcome.first_event_s)
        if outcome.gaps:
            changes += self._longest_gap.labels(model).changes(outcome.longest_gap_s)
            changes.append((self._gaps.labels(model).at, outcome.gaps))
            changes.append((self._gap_seconds.labels(model).at, outcome.gaps_s))
        if usage is not None:
            for kind in TOKENS:
                tokens = getattr(usage, f"{kind}_tokens")
                if tokens:
                    changes.append((self._tokens.labels(model, kind).at, tokens))
        if exchange.cost:
            changes.append((self._cost.labels(model).at, exchange.cost / 1e6))
        for attempt in exchange.attempts:
            changes += self._tried(attempt)
        for finding, count in exchange.findings.items():
            changes.append((self._findings.labels(finding).at, count))
        if outcome.culprit is not None:
            changes.append((self._failures.labels(outcome.culprit).at, 1.0))
        self.add(changes)

    def failed(self, plugin: str) -> None:
        """Count a plugin that could not take the end of an exchange."""
        self._failures.labels(plugin).inc()

    def watch(self, gateway: Gateway) -> None:
        """Follow the state of a worker's parts, from now on."""
        server = gateway.settings.server
        threads = self.gauge("lockgate_threads", "Exchanges that the workers can have in flight.")
        threads.set(server.threads)
        room = self.gauge("lockgate_bodies_limit_bytes", "Request bodies that the workers can have in flight.")
        room.set(server.max_bodies_bytes)
        bodies = self.gauge("lockgate_bodies_bytes", "Request bodies in flight.")
        bodies.set_function(lambda: gateway.bodies.held_bytes)
        writable = self.gauge("lockgate_journals_writable", "Workers whose journal takes lines.")
        writable.set_function(lambda: gateway.journal.writable)
        for name, help, count in (
            ("journal_failures", "Lines that were not journalled in time.", lambda: gateway.journal.failures),
            ("journal_lost", "Lines that were not journalled at all.", lambda: gateway.journal.lost),
            ("wrong_credentials", "Credentials that were wrong.", lambda: gateway.throttle.refused),
            ("slowed_credentials", "Wrong ones that were told to wait.", lambda: gateway.throttle.slowed),
        ):
            self.counter(f"lockgate_{name}", help).set_function(count)
        states = self.gauge(
            "lockgate_breakers", "Workers in which the target's breaker is in this state.", ("target", "state")
        )
        for model in gateway.models.values():
            for target in model.targets:
                for state in BREAKER_STATES:
                    states.labels(target.label, state).set_function(_is(target.breaker, state))
        self.start()

    def serve(self, worker: Any) -> None:
        """Follow the server around the application: its `busy` threads, and the requests that it has `turned_away`."""
        busy = self.gauge("lockgate_threads_busy", "Threads, or greenlets, that serve a request.")
        busy.set_function(lambda: worker.busy)
        away = self.counter("lockgate_turned_away_total", "Requests that were answered 503 because no thread was free.")
        away.set_function(lambda: worker.turned_away)

    def _tried(self, attempt: Attempt) -> Iterable[tuple[int, float]]:
        yield self._attempts.labels(attempt.target, _code(attempt.code)).at, 1.0
        if attempt.seconds is not None:
            yield from self._attempt_seconds.labels(attempt.target).changes(attempt.seconds)


def _is(breaker: Breaker, state: str) -> Callable[[], float]:
    return lambda: float(breaker.state == state)


def _code(code: str | None) -> str:
    return "" if code is None else code if CODE.fullmatch(code) else OTHER
