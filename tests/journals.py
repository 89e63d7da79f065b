"""Journals for tests: exchanges, processes that write and are killed, and disks that are full."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

from proxy.exchange import Attempt, Exchange, Identity, Usage
from proxy.records.journal import Journal
from proxy.records.reading import Records

KEY = b"k" * 32


def exchange(id="req_1", **fields):
    """Return one that has just begun."""
    given = {"headers": {"user-agent": "OpenAI/Python 3.54.0"}, "client_address": "10.1.2.3", **fields}
    return Exchange(id, "POST", "/v1/chat/completions", **given)


def asked(id="req_1", **fields):
    """Return one whose upstream is about to be called."""
    known = {"identity": Identity("k1", "app", "search"), "model": "gpt-5.2", "target": "openai/gpt-5.2"}
    return exchange(id, **{**known, "prompt_estimate": 9, "cost_estimate": 700, **fields})


def answered(sent):
    """Return it with an answer and its price."""
    sent.usage, sent.cost = Usage(10, 20, cached_tokens=3, reasoning_tokens=4), 400
    sent.outcome.status, sent.outcome.finish_reasons = 200, {0: "stop", 1: "length"}
    sent.attempts = [Attempt("a/x", 1.0, 503, "overloaded", 0.25), Attempt("openai/gpt-5.2", 2.0, 200, None, 1.0)]
    return sent


def over(sent):
    """Return it with its end."""
    outcome = sent.outcome
    outcome.complete, outcome.bytes_in, outcome.bytes_out = True, 567, 1234
    outcome.first_event_s, outcome.duration_s = 1.5, 1.75
    sent.trace, sent.findings = [("keys", "identified", 31)], {"email.request": 2}
    return sent


def whole(journal, id="req_1"):
    """Write the three lines of one."""
    sent = asked(id)
    journal.start(sent)
    journal.settle(answered(sent))
    journal.end(over(sent))


@contextmanager
def opened(directory, *settings, **options):
    """Open a journal in `directory` and close it."""
    journal = Journal(directory, KEY, *settings, **options)
    try:
        yield journal
    finally:
        journal.close()


def records(path):
    """Return all records of a file whose process has ended."""
    found = Records(path)
    return [*found.read(10**6), *found.rest()]


BEFORE = """
import os, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from journals import *
from proxy.settings import JournalSettings
journal = Journal(Path(sys.argv[1]), KEY)
"""


def child(directory, code):
    """Start a process that writes `journal` in `directory` as `code` says."""
    command = [sys.executable, "-c", BEFORE + code, str(directory), __file__.rpartition("/")[0]]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
