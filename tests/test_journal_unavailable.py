"""An answer whose settle line cannot be written never looks complete, unless the gateway may go on without."""

from __future__ import annotations

import json
import resource

import pytest
from crowds import ask, until
from gateways import UP
from journals import records
from upstreams import Gate, chunked, sse, streaming

from proxy.records.reading import files
from proxy.testing import completion, stream

HELD = (
    UP
    + """
[models.held]
targets = ["up"]

[journal]
when_full = "{when_full}"
"""
)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("when_full", ["refuse", "continue"])
def test_an_answer_that_cannot_be_recorded_is_refused_or_goes_on(start_gateway, upstream, worker, streamed, when_full):
    gate, events = Gate(), stream()

    def script(_):
        if streamed:
            yield streaming() + chunked(sse(events[:2], done=False), last=False)
            yield gate
            yield chunked(sse(events[2:]))
        else:
            yield gate
            body = json.dumps(completion()).encode()
            yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    upstream.scripts = [script]
    gateway = start_gateway(HELD.format(url=upstream.url, when_full=when_full), worker=worker)
    with gateway.wire() as wire:
        wire.request(ask("held", streamed))
        upstream.wait_request()
        if streamed:
            wire.read_until(b'"Hel')
        [pid] = gateway.worker_pids()
        # The next write to any file fails, as it does where no room could be set aside.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        gate.open()
        if not streamed:
            answer = wire.answer()
            if when_full == "continue":
                assert answer.status == 200 and answer.json["choices"]
            else:
                assert (answer.status, answer.json["error"]["code"]) == (503, "journal_unavailable")
        elif when_full == "continue":
            assert wire.read_until(b"\r\n0\r\n\r\n").endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            with pytest.raises(EOFError) as end:
                wire.read_until(b"\r\n0\r\n\r\n")
            assert b"journal_unavailable" in end.value.args[0] and b"[DONE]" not in end.value.args[0]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        [path] = files(gateway.folder / "var" / "journal")
        [record] = until(lambda: [one for one in records(path) if one["state"] == "ended"])
    assert record["complete"] is (when_full == "continue") and record["usage"]["completion"] > 0
    assert record["code"] == (None if when_full == "continue" else "journal_unavailable")
