"""What the detectors find in the labelled corpus, and what the report says of it."""

from __future__ import annotations

import re

import pytest
from corpus import SETS, load, report

from proxy.redaction.kinds import LABELS
from proxy.redaction.scanner import Scanner


@pytest.mark.parametrize("name", SETS)
def test_every_kind_reaches_its_floors(name):
    assert report.below(report.figures(name)) == []


def test_the_report_says_what_the_set_that_nobody_reads_gives():
    written = dict(
        re.findall(r"^\| `(\w+)` \| (\d+ \| \d+ \| \d+) ", report.REPORT.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert written == {
        kind: f"{own.labels} | {own.found} | {own.false}" for kind, own in report.figures(report.PUBLISHED).items()
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Licence no. MORGA657054SM9IJ", "MORGA657054SM9IJ"),
        ("DL #: D1234567", "D1234567"),
        ("Führerscheinnummer: B072RRE2I55", "B072RRE2I55"),
        ("Mon permis (13AA00002) a été volé", "13AA00002"),
        ("Permiso B n.º 434997788", "434997788"),
        ("la mia patente è U1A12B345C", "U1A12B345C"),
        ("het rijbewijs van Jan heeft nummer 5512345678", "5512345678"),
        ("Mam prawko 00123/15/1061", "00123/15/1061"),
        ("Habilitação (CNH) categoria B: 04512345678", "04512345678"),
        ("ड्राइविंग लाइसेंस नंबर MH12 20110012345", "MH12 20110012345"),
        ("我的驾照号码是110101199003078515", "110101199003078515"),
        ("運転免許証番号：第301234567890号", "301234567890"),
        ('{"driverLicenseNumber":"D1234567"}', "D1234567"),
        ("driver,dl_number,state\nAnn,D1234567,CA", "D1234567"),
        ("My driving licence was issued 12 03 2019.", None),
        ("Driving licence renewal: order number 12345678", None),
        ("Software licence number: 12345678", None),
        ("Le permis de séjour n° 9912345678", None),
        ("la patente EP1234567 è stata concessa", None),
        ("glucose 95 mg/dL, sample 12345678", None),
    ],
)
def test_numbers_of_driving_licences_are_told_from_what_stands_beside_the_same_words(text, value):
    assert [text[one.start : one.end] for one in Scanner(["driving_licence"]).find(text)] == ([value] if value else [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("curl -u admin:hunter22x https://api.example.com", "admin:hunter22x"),
        ("curl -X POST --user 'svc:p4ss w0rd' https://api.example.com", "svc:p4ss w0rd"),
        ("sshpass -p 'S3cr3tPw' ssh root@host", "S3cr3tPw"),
        ("mysql -u root -pS3cr3tPw db", "S3cr3tPw"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("curl -u $USER:$PASS https://api.example.com", None),
        ("docker run -p 8080:80 -u 1000:1000 app", None),
        ('tokenizer = "cl100k_base"', None),
        ("-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----", None),
    ],
)
def test_passwords_on_command_lines_are_found_and_what_only_looks_so_is_not(text, value):
    assert [text[one.start : one.end] for one in Scanner(["secret"]).find(text)] == ([value] if value else [])
