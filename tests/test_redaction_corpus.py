"""What the detectors find in the labelled corpus, and what the report says of it."""

from __future__ import annotations

import re

from corpus import load, report

from proxy.redaction.kinds import LABELS
from proxy.redaction.scanner import Scanner


def test_every_kind_reaches_its_floors():
    assert report.below(report.figures("first")) == []


def test_the_report_says_what_the_second_half_gives():
    written = dict(
        re.findall(r"^\| `(\w+)` \| (\d+ \| \d+ \| \d+) ", report.REPORT.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert written == {
        kind: f"{own.labels} | {own.found} | {own.false}" for kind, own in report.figures("second").items()
    }


def test_a_text_in_which_all_stands_is_not_read_otherwise_than_its_sentences():
    scanner = Scanner(LABELS)
    sentences = [sentence for sentence in load("first") if "\n" not in sentence.text]
    expected = set()
    joined = ""
    for sentence in sentences:
        expected |= {(len(joined) + one.start, len(joined) + one.end, one.kind) for one in scanner.find(sentence.text)}
        joined += sentence.text + "\n\n"
    assert {(one.start, one.end, one.kind) for one in scanner.find(joined)} == expected
