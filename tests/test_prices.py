"""What exchanges cost: the shipped table, the configuration's own prices, exact sums and one rounding."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_UP
from pathlib import Path

import pytest
from click.testing import CliRunner
from gateways import ECHO
from hypothesis import given
from hypothesis import strategies as st

from proxy import cli, config
from proxy.costs.prices import Price, Prices, priced, shipped
from proxy.errors import ConfigError
from proxy.exchange import Usage
from proxy.settings import ProviderSettings, ServerSettings, Settings

OPENAI = {"base_url": "https://api.openai.com/v1"}


def prices(own=None, **providers):
    made = {name: ProviderSettings(name, *said) for name, said in providers.items()}
    return Prices(Settings(None, (), ServerSettings("", Path("/")), {}, made, {}, prices=own or {}))


def usage(prompt=0, completion=0, **more):
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)


def test_a_target_costs_what_its_vendor_says():
    table = prices(openai=("openai", OPENAI))
    # 0.15 and 0.60 dollars for a million tokens.
    assert table.cost("openai/gpt-4o-mini", "x", usage(1_000_000, 1_000_000)) == 750_000
    assert table.cost("openai", "gpt-4o-mini", usage(1_000_000)) == 150_000
    assert table.cost("openai/gpt-4o-2024-08-06", "x", usage(100)) == 250
    assert table.cost("openai/gpt-4o-2024-05-13", "x", usage(100)) == 500


def test_a_model_of_the_same_name_elsewhere_has_no_price():
    table = prices(
        local=("openai", {"base_url": "http://127.0.0.1:8000/v1"}),
        trick=("openai", {"base_url": "http://api.openai.com.evil.example/v1"}),
        openai=("openai", OPENAI),
        fine=("anthropic", {}),
    )
    assert table.cost("local/gpt-4o", "gpt-4o", usage(1)) is None
    assert table.cost("trick/gpt-4o", "gpt-4o", usage(1)) is None
    assert table.cost("openai/unheard-of", "x", usage(1)) is None
    assert table.cost("nowhere/gpt-4o", "x", usage(1)) is None
    assert table.cost("openai", None, usage(1)) is None
    assert table.cost("fine/claude-haiku-4-5-20251001", "x", usage(100)) == 100


def test_the_embedded_provider_costs_nothing():
    assert prices(echo=("echo", None)).cost("echo", "echo", usage(1000, 1000)) == 0


def test_every_kind_of_token_has_its_price_and_is_counted_once():
    price = priced(
        {
            "input": 10,
            "output": 40,
            "cached_input": 1,
            "cache_write": 12.5,
            "reasoning": 60,
            "audio_input": 100,
            "audio_output": 200,
            "request": 0.002,
            "search": 0.01,
        }
    )
    told = usage(
        1000,
        500,
        cached_tokens=300,
        cache_write_tokens=200,
        reasoning_tokens=100,
        audio_tokens=150,
        audio_completion_tokens=50,
        searches=2,
    )
    prompt = 300 * 1 + 200 * 12.5 + 100 * 100 + 400 * 10
    completion = 100 * 60 + 50 * 200 + 350 * 40
    assert price.cost(told, searches=1) == prompt + completion + 2_000 + 3 * 10_000


def test_kinds_without_a_price_cost_what_they_are_a_part_of():
    price = priced({"input": 10, "output": 40})
    parts = {"cached_tokens": 300, "reasoning_tokens": 100, "audio_tokens": 50, "audio_completion_tokens": 20}
    assert price.cost(usage(1000, 500, **parts)) == price.cost(usage(1000, 500)) == 30_000


def test_parts_that_are_more_than_their_whole_are_no_more():
    price = priced({"input": 10, "output": 40, "cached_input": 1, "cache_write": 20, "reasoning": 60})
    told = usage(10, 10, cached_tokens=100, cache_write_tokens=100, reasoning_tokens=100)
    assert price.cost(told) == 10 * 1 + 10 * 60


def test_a_long_prompt_is_priced_by_what_is_said_for_it():
    table = prices(gemini=("gemini", {}))
    assert table.cost("gemini/gemini-2.5-pro", "x", usage(200_000, 1000)) == 250_000 + 10_000
    assert table.cost("gemini/gemini-2.5-pro", "x", usage(200_001, 1000)) == 500_003 + 15_000
    assert table.cost("gemini/gemini-2.5-pro", "x", usage(300_000, 0, cached_tokens=300_000)) == 75_000


@pytest.mark.parametrize(("tokens", "cost"), [(0, 0), (1, 0), (3, 0), (4, 1), (8, 1), (11, 1), (12, 2), (20, 3)])
def test_half_a_micro_dollar_is_rounded_up_once(tokens, cost):
    assert priced({"input": 0.125, "output": 0}).cost(usage(tokens)) == cost


counts = st.integers(0, 10**9)
dollars = st.decimals(0, 1000, places=6)


@given(counts, counts, counts, counts, dollars, dollars, dollars)
def test_the_sum_is_exact(prompt, completion, cached, reasoning, input, output, part):
    price = priced({"input": float(input), "output": float(output), "cached_input": float(part), "request": 0.5})
    cached, reasoning = min(cached, prompt), min(reasoning, completion)
    exact = input * (prompt - cached) + part * cached + output * completion + 500_000
    told = usage(prompt, completion, cached_tokens=cached, reasoning_tokens=reasoning)
    assert price.cost(told) == int(exact.to_integral_value(ROUND_HALF_UP))


def test_an_estimate_is_that_of_the_most_expensive_target():
    table = prices(openai=("openai", OPENAI), local=("openai", {"base_url": "http://127.0.0.1:1/v1"}))
    targets = ["local/llama", "openai/gpt-4o-mini", "openai/gpt-4o"]
    assert table.estimate(targets, 1000, 100) == 2500 + 1000
    assert table.estimate(targets[:1], 1000, 100) is None
    assert table.estimate(["openai"], 1000, 100, "gpt-4o-mini") == 150 + 60


def test_the_configurations_prices_go_first_and_the_longest_pattern_does():
    own = {"*/*": {"input": 1}, "openai/gpt-4*": {"input": 2}, "openai/gpt-4o": {"input": 3, "output": 0}}
    table = prices(own, openai=("openai", OPENAI), local=("openai", {"base_url": "http://127.0.0.1:1/v1"}))
    asked = ("openai/gpt-4o", "openai/gpt-4o-mini", "openai/o3", "local/llama")
    assert [table.cost(target, "x", usage(10, 10)) for target in asked] == [30, 20, 10, 10]


def test_names_that_clients_make_up_are_not_kept_without_end(monkeypatch):
    monkeypatch.setattr("proxy.costs.prices.REMEMBERED", 10)
    table = prices(openai=("openai", OPENAI))
    assert [table.cost("openai", f"made-up-{number}", usage(1)) for number in range(100)] == [None] * 100
    assert table.cost("openai", "gpt-4o", usage(100)) == 250
    assert len(table._found) == 10


def test_the_shipped_table_says_where_its_prices_are_from():
    shelves = shipped()
    assert {"openai", "anthropic", "gemini", "echo"} <= {shelf.vendor for shelf in shelves}
    for shelf in shelves:
        assert shelf.vendor == "echo" or shelf.source.startswith("https://")
        assert shelf.dated >= "2026-01-01"
        for pattern, price in shelf.models.items():
            assert shelf.vendor == "echo" or price.input > 0, pattern
            assert price.cached_input is None or price.cached_input < price.input, pattern
            assert price.long is None or (price.long.input > price.input and price.long_above), pattern


def settings(tmp_path, toml):
    file = tmp_path / "lockgate.toml"
    file.write_text(ECHO + toml)
    return config.assemble(file)[0]


def test_prices_are_read_from_the_configuration(tmp_path):
    long = "long_above = 1000\nlong = { input = 0.2 }"
    said = settings(tmp_path, f'[prices."echo/*"]\ninput = 0.1\noutput = 1\n{long}\n[prices."*/x"]\nrequest = 0.25\n')
    table = Prices(said)
    assert table.find("echo", "echo") == Price(
        input=100_000,
        output=1_000_000,
        long_above=1000,
        long=Price(input=200_000, output=1_000_000),
    )
    assert table.cost("other/x", "x", usage(1)) == 250_000


@pytest.mark.parametrize(
    ("toml", "mistake"),
    [
        ("[prices.echo]\ninput = 1", 'prices.echo: is for a target, [prices."PROVIDER/MODEL"]'),
        ('[prices."ecco/x"]\ninput = 1', "prices.\"ecco/x\": no provider is called 'ecco'; did you mean 'echo'?"),
        ('[prices."echo/x"]\nimput = 1', "prices.\"echo/x\".imput: unknown key; did you mean 'input'?"),
        ('[prices."echo/x"]\ninput = -1', 'prices."echo/x".input: must be greater than or equal to 0'),
        ('[prices."echo/x"]\ninput = "1"', 'prices."echo/x".input: must be a number'),
        ('[prices."echo/x"]\ninput = true', 'prices."echo/x".input: must be a number'),
        ('[prices."echo/x"]\ninput = nan', 'prices."echo/x".input: '),
        ('[prices."echo/x"]\nlong_above = 5', 'prices."echo/x".long: goes with the other'),
        ("[prices]\nx = 1", "prices.x: "),
        ('[estimates]\nexact = "yes"', "estimates.exact: must be true or false"),
    ],
)
def test_mistakes_in_prices_are_told(tmp_path, toml, mistake):
    with pytest.raises(ConfigError) as wrong:
        settings(tmp_path, toml)
    assert any(problem.startswith(mistake) for problem in wrong.value.problems), wrong.value.problems


def test_the_command_shows_what_counts(tmp_path):
    file = tmp_path / "lockgate.toml"
    file.write_text(ECHO + '[prices."echo/*"]\ninput = 0.1\n')
    done = CliRunner().invoke(cli.main, ["prices", "--config", str(file), "--json"])
    assert done.exit_code == 0, done.output
    own, shipped = json.loads(done.stdout)
    assert own == {"target": "echo/*", "input": 0.1, "source": "lockgate.toml", "dated": None}
    assert (shipped["target"], shipped["input"]) == ("echo/*", 0)
    everything = CliRunner().invoke(cli.main, ["prices", "--config", str(file), "--all"])
    [row] = [line for line in everything.stdout.splitlines() if line.startswith(" openai/gpt-4o-mini ")]
    assert row.split()[1:4] == ["0.15", "0.075", "0.6"]
    assert "above 200000" in everything.stdout
