"""Grants and limits: what may be written, and that a level inside of another only takes away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.access.grants import ALL, CAPABILITIES, Grants, matches, narrow
from proxy.config.grants import GrantsSchema, LimitsSchema, checked, written

NAMES = ("gpt-5", "gpt-4o", "llama", "gpt-4o-search")
PATTERNS = ("*", "gpt-*", "*4o*", "llama", "gpt-5", "")
SAID = st.fixed_dictionaries(
    {},
    optional={
        "models": st.lists(st.sampled_from(PATTERNS), max_size=3),
        "capabilities": st.lists(st.sampled_from(CAPABILITIES), unique=True),
        "max_tokens": st.integers(1, 9),
        "n": st.integers(1, 9),
        "service_tier": st.lists(st.sampled_from(("auto", "flex")), unique=True),
        "parameters": st.lists(st.sampled_from(("top_k", "min_p", "*")), unique=True),
    },
)


def allowed(grants):
    """Everything that grants allow, as a set."""
    found = {("model", name) for name in NAMES if grants.model(name)}
    found |= {("capability", name) for name in CAPABILITIES if grants.capability(name)}
    found |= {("parameter", name) for name in ("top_k", "min_p", "other") if grants.parameter(name)}
    for name in ("max_tokens", "n"):
        bound = getattr(grants, name)
        found |= {(name, value) for value in range(1, 12) if bound is None or value <= bound}
    tiers = grants.service_tier
    return found | {("tier", name) for name in ("auto", "flex", "x") if tiers is None or name in tiers}


@settings(max_examples=200, deadline=None)
@given(SAID, SAID, SAID)
def test_levels_allow_what_each_of_them_allows_in_whatever_order_they_are_put_together(first, second, third):
    one, two, three = map(Grants.of, (first, second, third))
    assert allowed(narrow(one, two)) == allowed(one) & allowed(two)
    assert allowed(narrow(narrow(one, two), three)) == allowed(narrow(one, narrow(two, three)))
    assert allowed(narrow(ALL, one)) == allowed(one) == allowed(narrow(one, ALL))
    assert hash(narrow(one, two)) == hash(narrow(Grants.of(first), Grants.of(second)))


def test_what_is_left_out_withholds_nothing_and_an_empty_list_everything():
    assert allowed(Grants.of({})) == allowed(ALL)
    nothing = Grants.of({"models": [], "capabilities": [], "parameters": []})
    assert {kind for kind, _ in allowed(nothing)} == {"max_tokens", "n", "tier"}


def test_a_pattern_over_models_grants_no_capability():
    key = Grants.of({"models": ["*"]})
    team = Grants.of({"models": ["*"], "capabilities": []})
    assert not any(narrow(team, key).capability(name) for name in CAPABILITIES)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("gpt-5", "gpt-5", True),
        ("gpt-5", "gpt-50", False),
        ("gpt-*", "gpt-", True),
        ("gpt.*", "gptx", False),
        ("*", "a\nb", True),
        ("a*", "xa", False),
        ("[ab]", "a", False),
        ("*-mini", "gpt-5-mini", True),
        ("a*b*c", "a-b-b-c", True),
        ("GPT-*", "gpt-5", False),
    ],
)
def test_only_a_star_is_special_in_a_pattern(pattern, name, fits):
    assert matches(pattern, name) is fits


def test_limits_are_read_in_dollars_and_kept_in_micro_dollars():
    for usd, amount in ((50, 50_000_000), (0.29, 290_000), (0.000001, 1), (1_000_000_000, 10**15)):
        said = {"requests_per_minute": 1, "budget": {"usd": usd, "window": "month"}}
        loaded = checked(LimitsSchema, said, "limits")
        assert loaded["budget"] == {"amount": amount, "window": "month"}
        assert written(loaded) == said and checked(LimitsSchema, written(loaded), "limits") == loaded


@pytest.mark.parametrize(
    ("schema", "said", "problem"),
    [
        (LimitsSchema, {"requests_per_minute": 0}, "x.requests_per_minute: must be greater than or equal to 1"),
        (LimitsSchema, {"tokens_per_minute": -1}, "x.tokens_per_minute: must be greater than or equal to 1"),
        (LimitsSchema, {"concurrent": 1.5}, "x.concurrent: must be a whole number"),
        (LimitsSchema, {"concurrent": True}, "x.concurrent: must be a whole number"),
        (LimitsSchema, {"concurrent": 10**30}, "x.concurrent: must be greater than or equal to 1 and less than"),
        (LimitsSchema, {"concurent": 1}, "x.concurent: unknown key; did you mean 'concurrent'?"),
        (LimitsSchema, {"budget": 50}, 'x.budget: must be { usd = 50, window = "month" }'),
        (LimitsSchema, {"budget": {"usd": 50}}, 'x.budget: must be { usd = 50, window = "month" }'),
        (LimitsSchema, {"budget": {"usd": 0, "window": "day"}}, "x.budget: its usd must be a number above 0"),
        (LimitsSchema, {"budget": {"usd": float("nan"), "window": "day"}}, "x.budget: its usd must be a number"),
        (LimitsSchema, {"budget": {"usd": float("inf"), "window": "day"}}, "x.budget: its usd must be a number"),
        (LimitsSchema, {"budget": {"usd": True, "window": "day"}}, "x.budget: its usd must be a number"),
        (LimitsSchema, {"budget": {"usd": 1e-9, "window": "day"}}, "x.budget: its usd must be at least 0.000001"),
        (
            LimitsSchema,
            {"budget": {"usd": 5, "window": "year"}},
            "x.budget: its window must be one of day, week, month",
        ),
        (LimitsSchema, {"budget": {"usd": 5, "window": ["day"]}}, "x.budget: its window must be one of day"),
        (GrantsSchema, {"models": "gpt-*"}, 'x.models: must be a list, e.g. ["one", "two"]'),
        (GrantsSchema, {"models": [""]}, "x.models[0]: must not be empty"),
        (GrantsSchema, {"capabilities": ["websearch"]}, "x.capabilities[0]: must be one of audio, files,"),
        (GrantsSchema, {"max_tokens": 0}, "x.max_tokens: must be greater than or equal to 1"),
        (GrantsSchema, {"models": None}, "x.models: must have a value"),
        (GrantsSchema, [], "x: must be a table of its own"),
    ],
)
def test_what_is_no_grant_or_limit_is_refused_by_name(schema, said, problem):
    with pytest.raises(ValueError) as refused:
        checked(schema, said, "x")
    assert str(refused.value).startswith(problem)


def test_every_mistake_is_told():
    with pytest.raises(ValueError) as refused:
        checked(LimitsSchema, {"requests_per_minute": 0, "concurrent": 0}, "limits")
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        "limits.requests_per_minute",
        "limits.concurrent",
    ]
