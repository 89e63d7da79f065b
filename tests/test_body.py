"""Any bytes become a JSON object or a 400 that says what is wrong and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Reject
from proxy.request.body import MAX_DEPTH, parse

OPENING = "We could not parse the JSON body of your request. "


def refusal(raw: bytes) -> str:
    with pytest.raises(Reject) as caught:
        parse(raw)
    error = caught.value
    assert (error.status, error.code, error.param, error.type) == (400, None, None, "invalid_request_error")
    assert error.message.startswith(OPENING)
    return error.message.removeprefix(OPENING)


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_an_object_is_parsed() -> None:
    assert parse(b' {"model": "m", "n": [1, -2.5, true, null, "\xc3\xa9\\ud83d\\ude00"]}\r\n') == {
        "model": "m",
        "n": [1, -2.5, True, None, "é😀"],
    }


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"[]", "an array"),
        (b'"a"', "a string"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
    ],
)
def test_the_top_level_must_be_an_object(raw: bytes, name: str) -> None:
    assert refusal(raw) == f"The top level must be an object, but it is {name}."


@pytest.mark.parametrize("raw", [b"", b" \r\n\t"])
def test_an_empty_body_is_called_empty(raw: bytes) -> None:
    assert refusal(raw) == "The body is empty."


def test_a_byte_order_mark_is_named() -> None:
    assert "byte order mark" in refusal(b'\xef\xbb\xbf{"a":1}')


@pytest.mark.parametrize("raw", [b'{"a":"\xff"}', b'{"a":"\xc3"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\xaf"}'])
def test_invalid_utf_8_is_refused_with_its_place(raw: bytes) -> None:
    assert refusal(raw) == "It is not valid UTF-8: byte 6."


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e999", b"-1e999", b"1" + b"0" * 400])
def test_numbers_that_json_or_doubles_lack_are_refused(token: bytes) -> None:
    assert "line 1, column" in refusal(b'{"a":' + token + b"}")


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00", r"\udc00\ud800", r"\ud800x"])
def test_lone_surrogates_are_refused(text: str) -> None:
    refusal(b'{"a":"' + text.encode() + b'"}')
    refusal(b'{"' + text.encode() + b'":1}')


@pytest.mark.parametrize(
    "raw",
    [b'{"a":1,}', b'{"a":01}', b"{'a':1}", b'{"a":1} x', b'{"a":1', b'{"a":"\n"}', b'{"a":1}\x00', b'{"a":1}/**/'],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    assert "line 1, column" in refusal(raw)


def test_a_syntax_error_is_located_by_line_and_column() -> None:
    assert refusal(b'{"a": 1,\n "b": x}').endswith("line 2, column 7.")


@pytest.mark.parametrize("value", [2**63 - 1, 2**64 - 1, -(2**63), 0])
def test_integers_of_64_bits_stay_exact(value: int) -> None:
    found = parse(b'{"a":%d}' % value)["a"]
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**25, 10**300])
def test_integers_beyond_64_bits_are_refused_with_their_place(value: int) -> None:
    message = refusal(b'{"a": "\xc3\xa9",\n "b": "\xc3\xa9", "c": [%d]}' % value)
    assert message.startswith("The integer ")
    assert message.endswith("does not fit into 64 bits: line 2, column 18.")
    assert len(message) < 120


def test_an_integer_beyond_64_bits_is_found_beside_floats_of_its_size() -> None:
    assert "18446744073709551616" in refusal(b'{"a": 1e20, "b": 18446744073709551616}')


@pytest.mark.parametrize("token", ["1e20", "-1E+300", "123456789012345678901.5", "123456789012345678901e1"])
def test_floats_beyond_64_bits_are_floats(token: str) -> None:
    assert parse(b'{"a":' + token.encode() + b"}") == {"a": float(token)}


def test_long_digits_in_strings_and_fractions_are_legal() -> None:
    digits = "12345678901234567890" * 5
    raw = json.dumps({digits: f': {digits}, \\" [{digits}]', "b": [1e20]}).encode()
    assert parse(raw) == json.loads(raw)
    assert parse(b'{"a":0.12345678901234567890123}') == {"a": 0.12345678901234568}


def test_of_duplicate_keys_the_last_one_wins() -> None:
    assert parse(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


@pytest.mark.parametrize("depth", [2, 3, MAX_DEPTH - 1, MAX_DEPTH])
def test_nesting_up_to_the_limit_is_legal(depth: int) -> None:
    parse(nested(depth))


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 1024, 1025, 100_000])
def test_nesting_beyond_the_limit_is_refused(depth: int) -> None:
    assert refusal(nested(depth)) == f"It is nested deeper than {MAX_DEPTH} levels."


def test_unclosed_nesting_is_refused() -> None:
    refusal(b'{"a":' + b"[" * 100_000)


def test_many_brackets_side_by_side_or_in_strings_are_not_depth() -> None:
    assert len(parse(b'{"a":[' + b"{}," * 10_000 + b"[]]}")["a"]) == 10_001
    assert len(parse(b'{"a":"' + b"[{" * 10_000 + b'"}')["a"]) == 20_000


def test_objects_count_as_levels_too() -> None:
    def chain(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    parse(chain(MAX_DEPTH))
    refusal(chain(MAX_DEPTH + 1))


def verdict(raw: bytes) -> dict[str, Any] | None:
    try:
        found = parse(raw)
    except Reject as error:
        assert error.status == 400
        assert error.message.startswith(OPENING)
        return None
    assert type(found) is dict
    return found


@given(st.binary())
def test_any_bytes_become_an_object_or_a_refusal(raw: bytes) -> None:
    verdict(raw)


PIECES = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u", b"d83d", b"e", b"E", b"+", b"-", b".", b"0", b"7", b" "),
    *(b"\n", b"true", b"null", b"NaN", b'"a":', b'"model"', b"18446744073709551616", b"1e400", b"\xc3\xa9", b"\xff"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))
def test_what_is_almost_json_becomes_an_object_or_a_refusal(raw: bytes) -> None:
    verdict(b'{"a":' + raw)
    verdict(raw)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(2**60, 2**70).map(str)
)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text('ab0123456789"\\'), inner), max_leaves=20
)


def huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(huge, value.values()))
    if isinstance(value, list):
        return any(map(huge, value))
    return type(value) is int and not -(2**63) <= value < 2**64


@given(st.dictionaries(st.text("ab"), TREES), st.booleans(), st.sampled_from([None, 1]))
def test_an_object_is_refused_only_for_integers_beyond_64_bits(
    tree: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode()
    found = verdict(raw)
    if huge(tree):
        assert found is None
    else:
        assert found == tree
