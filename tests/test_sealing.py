"""Sealed ids."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from proxy.upstreams.sealing import Sealer

SEALER = Sealer(b"x" * 32)


@given(st.binary(min_size=1, max_size=300))
def test_what_was_sealed_comes_back_and_is_the_same_each_time(payload):
    id = SEALER.seal(payload)
    assert SEALER.open(id) == payload
    assert SEALER.seal(payload) == id
    assert re.fullmatch(r"call_[A-Za-z0-9_-]+", id)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_other_id_opens(payload, data):
    id = SEALER.seal(payload)
    at = data.draw(st.integers(0, len(id) - 2))
    other = data.draw(st.sampled_from("abcXYZ019-_"))
    changed = id[:at] + other + id[at + 1 :]
    if changed != id:
        assert SEALER.open(changed) is None
    assert SEALER.open(id, prefix="x_") is None
    assert Sealer(b"y" * 32).open(id) is None


@given(st.text(max_size=60))
def test_any_other_text_is_no_sealed_id(text):
    assert SEALER.open(text) is None
    assert SEALER.open("call_" + text) is None
