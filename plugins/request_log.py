"""Prints one line of JSON per exchange to standard output: who called what, and how it went; never what was said."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime

from proxy import Exchange, hookimpl, json_line

STDOUT = 1


class RequestLog:
    """One line per exchange, when it is over. Several workers may share the standard output."""

    name = "request_log"

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        identity, usage, outcome = exchange.identity, exchange.usage, exchange.outcome
        line = json_line(
            {
                "time": datetime.fromtimestamp(exchange.received, UTC).isoformat(timespec="milliseconds"),
                "id": exchange.id,
                "subject": identity and identity.subject,
                "team": identity and identity.team,
                "path": exchange.path[:256],
                "model": exchange.model and exchange.model[:256],
                "target": exchange.target,
                "attempts": len(exchange.attempts),
                "stream": exchange.stream,
                "status": outcome.status,
                "code": outcome.code,
                "complete": outcome.complete,
                "client_gone": outcome.client_gone,
                "finish": list(outcome.finish_reasons.values()),
                "prompt_tokens": usage and usage.prompt_tokens,
                "completion_tokens": usage and usage.completion_tokens,
                "first_event_s": outcome.first_event_s,
                "duration_s": outcome.duration_s,
                "bytes_out": outcome.bytes_out,
                "agent": exchange.headers.get("user-agent", "")[:256],
                "client": exchange.client_address,
            }
        )
        with self._lock:
            # A write of up to 4096 bytes is not mixed with other processes'; print() would buffer and cut at will.
            while line:
                line = line[os.write(STDOUT, line) :]
