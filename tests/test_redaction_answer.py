"""Answers are inspected and restored alike, however their text is cut on its way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import Reject
from proxy.redaction.inspecting import Ahead, Inspecting
from proxy.redaction.kinds import LABELS
from proxy.redaction.patterns import Pattern
from proxy.redaction.restoring import Restorer, Restoring
from proxy.redaction.scanner import Scanner
from proxy.redaction.words import Words

SCANNER = Scanner(LABELS)
VALUES = {
    "EMAIL_7K2Q9DHT": "a@example.com",
    "IP_22222222": "192.0.2.7",
    "SECRET_BCDFGHJK": 'x"y\nz\\',
    "CARD_55555555": "4111111111111111",
}
RESTORER = Restorer(VALUES)

#: Values that detectors find wherever they stand between blanks, each with a piece of it that must not get through.
FOUND = {
    "jo.doe@example.com": "doe@",
    "4111 1111 1111 1111": "1111",
    "DE89 3704 0044 0532 0130 00": "0532",
    "192.0.2.200": "2.200",
    "+44 20 7946 0958": "7946",
    "514-94-8703": "94-87",
    "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": "bp4aM",
    "password: hunter2!x": "hunter2",
    "-----BEGIN PRIVATE KEY-----\nECMRUYj/etwXAdjRBoO3GFv9\nVmXA+031\n-----END PRIVATE KEY-----": "etwX",
}
WORDS = st.sampled_from(
    ["the", "answer", "is", "a", "list,", "of:", "3", "items.", "ünder", "订单号", "(see", "x1)", "\n", "\n\n", " ",
     '"', "{", "}", "Key", "token", "May", "II", "E", "[", "]", "\\"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(WORDS, st.sampled_from(sorted(FOUND))), max_size=12).map(" ".join)
TOKENS = st.sampled_from(
    ["[", "]", "\\", "EMAIL", "email", "_", "7K2Q9DHT", "7k2q9dht", "IP_22222222", "[IP_22222222]",
     "\\[IP\\_22222222\\]", "%5B", "%5D", "SECRET_BCDFGHJK",
     "[CARD 55555555]", "【CARD-55555555】", "[SECRET_BCDFGHJK]", "[EMAIL_22222222]",
     " ", "x", "E", "%", "5", "B", '"', "4", "\n", "{"]
)  # fmt: skip


def mask(kind: str, value: str) -> str:
    return f"<{kind}>"


def through(window, text: str, cuts) -> str:
    out, at = "", 0
    for cut in [*cuts, len(text)]:
        out += window.take(text[at:cut], False)
        at = cut
    return out + window.take("", True)


def cut(data: st.DataObject, text: str) -> list[int]:
    return sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))


@settings(max_examples=150)
@given(TEXTS, st.booleans(), st.data())
def test_what_is_found_in_a_text_does_not_depend_on_how_it_was_cut(
    text: str, quoted: bool, data: st.DataObject
) -> None:
    whole = Inspecting(SCANNER, mask, quoted).take(text, True)
    assert through(Inspecting(SCANNER, mask, quoted), text, cut(data, text)) == whole
    assert through(Inspecting(SCANNER, mask, quoted), text, range(1, len(text))) == whole


@pytest.mark.parametrize("value", FOUND)
def test_no_byte_of_a_blocked_value_gets_through_at_any_two_cuts(value: str) -> None:
    text = f"Well, here it is for you to read: {value}\nand more of it"

    def block(kind: str, value: str) -> str:
        raise Reject(400, "blocked", kind)

    for first in range(len(text)):
        for second in range(first, len(text) + 1, 7):
            window, out = Inspecting(SCANNER, block, False), ""
            with pytest.raises(Reject):
                for piece in (text[:first], text[first:second], text[second:]):
                    out += window.take(piece, False)
                window.take("", True)
            assert text.startswith(out) and value.rpartition(": ")[2][:2] not in out.partition("read: ")[2]


def test_plain_words_are_passed_as_they_come() -> None:
    window = Inspecting(SCANNER, mask, False)
    assert [window.take(piece, False) for piece in ("Plain ", "words ", "flow, ", "and ", "so ", "on. ")] == [
        "Plain ", "words ", "flow, ", "and ", "so ", "on. ",
    ]  # fmt: skip


def test_what_is_only_counted_is_not_held_back() -> None:
    seen = []
    window = Inspecting(SCANNER, lambda kind, value: seen.append(kind), False, holding=False)
    assert window.take("Card 4111 1111 ", False) == "Card 4111 1111 "
    assert window.take("1111 1111 ", False) == "1111 1111 "
    window.take("", True)
    assert seen == ["card"]


def test_a_number_of_json_becomes_a_text_of_json() -> None:
    text = '{"card": 4111111111111111, "more": [4111111111111111], "said": "4111111111111111"}'
    for pieces in (range(1, len(text)), []):
        out = through(Inspecting(SCANNER, mask, True), text, pieces)
        assert json.loads(out) == {"card": "<card>", "more": ["<card>"], "said": "<card>"}


@pytest.mark.parametrize(
    "finder",
    [
        Words("term", ["Blue Bird", "blue bird two", "ACME"], ignore_case=True, whole=True),
        Pattern("term", "T-[0-9]{1,5}", 7),
    ],
    ids=["words", "pattern"],
)
@settings(max_examples=100)
@given(data=st.data())
def test_the_operators_own_does_not_depend_on_cuts(finder, data: st.DataObject) -> None:
    pieces = st.sampled_from(
        ["Blue Bird", "blue", "bird two", " ", "acme", "ACMES", "T-1", "T-12345", "67", "x", "\n", "-"]
    )
    text = data.draw(st.lists(pieces, max_size=10).map("".join))
    whole, done = "", 0
    for one in finder.find(text):
        whole, done = whole + text[done : one.start] + "<term>", one.end
    whole += text[done:]
    assert through(Ahead(finder, mask, False), text, cut(data, text)) == whole
    assert through(Ahead(finder, mask, False), text, range(1, len(text))) == whole


@settings(max_examples=300)
@given(st.lists(TOKENS, max_size=10).map("".join), st.booleans(), st.data())
def test_what_is_restored_does_not_depend_on_how_it_was_cut(text: str, quoted: bool, data: st.DataObject) -> None:
    whole = Restoring(RESTORER, quoted).take(text, True)
    assert through(Restoring(RESTORER, quoted), text, cut(data, text)) == whole
    assert through(Restoring(RESTORER, quoted), text, range(1, len(text))) == whole
    if not quoted:
        assert RESTORER.whole(text) == whole


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ("[EMAIL_7K2Q9DHT]", "a@example.com"),
        ("[email_7k2q9dht]", "a@example.com"),
        ("[ EMAIL-7K2Q9DHT ]", "a@example.com"),
        (r"\[EMAIL\_7K2Q9DHT\]", "a@example.com"),
        ("【EMAIL_7K2Q9DHT】", "a@example.com"),
        ("**[EMAIL_7K2Q9DHT]**", "**a@example.com**"),
        ("mailto:%5BEMAIL_7K2Q9DHT%5D", "mailto:a%40example.com"),
        ("EMAIL_7K2Q9DHT's", "a@example.com's"),
        ("MYEMAIL_7K2Q9DHT", "MYEMAIL_7K2Q9DHT"),
        ("email_7k2q9dht", "email_7k2q9dht"),
        ("[PHONE_7K2Q9DHT]", "[PHONE_7K2Q9DHT]"),
        ("[EMAIL_7K2Q9DHX]", "[EMAIL_7K2Q9DHX]"),
        (r"C:\dir\[EMAIL_7K2Q9DHT]", r"C:\dir\a@example.com"),
    ],
)
def test_a_placeholder_is_understood_in_the_forms_that_models_give_it(said: str, becomes: str) -> None:
    assert Restoring(RESTORER, False).take(said, True) == becomes


def test_values_are_restored_into_json_as_json() -> None:
    said = '{"a": "[SECRET_BCDFGHJK]", "b": [CARD_55555555], "c": "[CARD_55555555]", "d": [IP_22222222]}'
    assert json.loads(through(Restoring(RESTORER, True), said, range(1, len(said)))) == {
        "a": VALUES["SECRET_BCDFGHJK"], "b": 4111111111111111, "c": "4111111111111111", "d": "192.0.2.7",
    }  # fmt: skip


def test_only_what_could_be_a_placeholder_is_held_back() -> None:
    window = Restoring(RESTORER, False)
    assert window.take("See [1] and [note", False) == "See [1] and [note"
    assert window.take(" for [EMA", False) == " for "
    assert window.take("ILS", False) == "[EMAILS"
    assert window.take(" [IP_2222", False) == " "
    assert window.take("2222].", False) == "192.0.2.7."


def test_positions_follow_their_text() -> None:
    window = Restoring(RESTORER, False)
    text = "Ask [EMAIL_7K2Q9DHT] about [IP_22222222] now"
    out = window.take(text, True)
    for word in ("Ask", "about", "now"):
        assert window.shifts.moved(text.index(word)) == out.index(word)
    assert window.shifts.moved(len(text)) == len(out)
