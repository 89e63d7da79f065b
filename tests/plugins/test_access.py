"""Who may use what: grants of operator, team and key, which only narrow, and web search in every spelling."""

from __future__ import annotations

import json

import pytest
from marshmallow import ValidationError

from plugins.access import USUAL, Access
from proxy import CAPABILITIES, Identity, hookimpl
from proxy.access.capabilities import asked, searches
from proxy.settings import Target
from proxy.testing import Rig, configured

HI = [{"role": "user", "content": "Hi"}]
FUNCTION = {"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}

#: What asks for a search of the web, by the parameter that says so.
SEARCHES = {
    "OpenAI, with options": ("web_search_options", {"web_search_options": {"search_context_size": "low"}}),
    "OpenAI, empty": ("web_search_options", {"web_search_options": {}}),
    "OpenAI, a tool": ("tools", {"tools": [{"type": "web_search"}]}),
    "OpenAI, a dated tool": ("tools", {"tools": [FUNCTION, {"type": "web_search_preview_2025_03_11"}]}),
    "Anthropic": ("tools", {"tools": [{"type": "web_search_20260318", "name": "web_search"}]}),
    "Anthropic, fetching": ("tools", {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    "Google": ("tools", {"tools": [{"type": "google_search"}]}),
    "Google, in camels": ("tools", {"tools": [{"type": "googleSearchRetrieval"}]}),
    "Google, pages": ("tools", {"tools": [{"type": "url_context"}]}),
    "Google, beside a function": ("tools", {"tools": [{**FUNCTION, "googleSearch": {}}]}),
    "Groq": ("tools", {"tools": [{"type": "browser_search"}]}),
    "Groq, compound": ("compound_custom", {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}}),
    "Groq, settings": ("search_settings", {"search_settings": {"country": "germany"}}),
    "Mistral": ("tools", {"tools": [{"type": "web_search_premium"}]}),
    "Amazon": ("tools", {"tools": [{"type": "nova_grounding"}]}),
    "xAI, a tool": ("tools", {"tools": [{"type": "x_search"}]}),
    "xAI, parameters": ("search_parameters", {"search_parameters": {"mode": "auto"}}),
    "Moonshot": ("tools", {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}),
    "Moonshot, as a function": ("tools", {"tools": [{"type": "function", "function": {"name": "$web_search"}}]}),
    "Moonshot, as an older one": ("functions", {"functions": [{"name": "$web_search"}]}),
    "Zhipu": ("tools", {"tools": [{"type": "web_search", "web_search": {"enable": True}}]}),
    "Alibaba": ("enable_search", {"enable_search": True}),
    "Alibaba, nested": ("extra_body", {"extra_body": {"enable_search": True}}),
    "Alibaba, options": ("search_options", {"search_options": {"forced_search": True}}),
    "Tencent": ("enable_enhancement", {"enable_enhancement": True}),
    "OpenRouter, a plugin": ("plugins", {"plugins": [{"id": "web", "max_results": 3}]}),
    "OpenRouter, a tool": ("tools", {"tools": [{"type": "openrouter:web_search"}]}),
    "OpenRouter, another model": ("models", {"models": ["openai/gpt-5.2:online"]}),
    "Perplexity, a filter": ("search_domain_filter", {"search_domain_filter": ["example.com"]}),
    "Cohere": ("connectors", {"connectors": [{"id": "web-search"}]}),
    "an interface": ("features", {"features": {"web_search": True}}),
    "other letters": ("EnableSearch", {"EnableSearch": 1}),
    "a template's variable": ("chat_template_kwargs", {"chat_template_kwargs": {"builtin_tools": ["browser.search"]}}),
    "a choice among tools": (
        "tool_choice",
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "x_search"}]}}},
    ),
    "a search model": ("model", {"model": "gpt-4o-search-preview-2025-03-11"}),
    "a search model of the API": ("model", {"model": "gpt-5-search-api"}),
    "a model that reads the web": ("model", {"model": "o3-deep-research"}),
    "Perplexity's model": ("model", {"model": "sonar-pro"}),
    "Perplexity's model elsewhere": ("model", {"model": "perplexity/sonar"}),
    "Groq's system": ("model", {"model": "groq/compound-mini"}),
    "a suffix": ("model", {"model": "meta/llama-4:online"}),
}  # fmt: skip
#: What does not.
QUIET = {
    "nothing": {},
    "a null": {"web_search_options": None},
    "a caller's own function": {"tools": [FUNCTION]},
    "an older function": {"functions": [{"name": "web_search"}]},
    "a switch that is off": {"enable_search": False, "search_parameters": None, "extra_body": {"enable_search": False}},
    "other parameters": {"top_k": 5, "webhook": "x", "documents": [{"text": "a sentence on how to search the web"}]},
    "a note": {"metadata": {"enable_search": "true"}},
    "a word": {"messages": [{"role": "user", "content": "web_search online"}]},
    "a model": {"model": "research-bot", "prompt_cache_key": "web_search"},
}
ALL = {"capabilities": list(CAPABILITIES)}
WITHOUT = {"capabilities": [name for name in CAPABILITIES if name != "web_search"]}
#: Who lets search through: the model, the operator's plugin, the team, the key.
LEVELS = {
    "everybody": (True, ALL, ALL, ALL),
    "who says nothing takes nothing": (True, ALL, {}, {}),
    "not the model": (False, ALL, ALL, ALL),
    "not the operator": (True, WITHOUT, ALL, ALL),
    "not the operator, by default": (True, {}, ALL, ALL),
    "not the operator, by a pattern": (True, {"models": ["*"]}, ALL, ALL),
    "not the team": (True, ALL, WITHOUT, ALL),
    "not the key": (True, ALL, ALL, WITHOUT),
    "not the key, by a pattern": (True, ALL, ALL, {"models": ["*"], **WITHOUT}),
}
OPEN = ("everybody", "who says nothing takes nothing")


def made(operator=None, team=None, key=None, **model) -> Rig:
    """A rig with the plugin and a caller; levels that are `None` are not there."""
    return Rig(
        *([] if operator is None else [configured(Access, **operator)]),
        identity=Identity("k", team="t", grants=key or {}),
        teams={"t": {"grants": team or {}}},
        model=model,
    )


@pytest.fixture(scope="module", params=LEVELS)
def level(request):
    search, operator, team, key = LEVELS[request.param]
    with made(operator, team, key, web_search=search) as rig:
        yield request.param, rig


@pytest.mark.parametrize("spelling", SEARCHES)
def test_web_search_needs_the_leave_of_everybody_in_every_spelling(level, spelling):
    who, rig = level
    parameter, request = SEARCHES[spelling]
    result = rig.run({"messages": HI, **request})
    if who in OPEN:
        assert (result.status, len(result.sent)) == (200, 1)
        return
    assert (result.status, result.sent) == (403, [])
    error = result.json["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error", "capability_not_allowed", parameter,
    )  # fmt: skip
    assert "'web_search'" in error["message"]


@pytest.mark.parametrize("request_", QUIET.values(), ids=QUIET)
def test_what_only_looks_like_a_search_needs_no_leave(level, request_):
    who, rig = level
    assert rig.run({"messages": HI, **request_}).status == 200


def test_a_search_model_behind_another_name_is_one():
    with made(
        ALL, targets=(Target("upstream", "gpt-5.2"), Target("upstream", "perplexity/sonar")), web_search=False
    ) as rig:
        assert rig.run({"messages": HI, "model": "assistant"}).json["error"]["param"] == "model"
    with made(ALL, targets=(Target("upstream", "gpt-5.2"),), web_search=False) as rig:
        assert rig.run({"messages": HI, "model": "sonar"}).status == 200, "the upstream is asked for another one"


@pytest.mark.parametrize("name", ["gpt-5.2", "search-helper", "research", "compounder", "sonarqube"])
def test_names_that_are_only_like_search_models_are_none(name):
    assert searches({}, [name]) is None


def content(*kinds: str):
    parts = {
        "text": {"type": "text", "text": "x"},
        "image_url": {"type": "image_url", "image_url": {"url": "data:,"}},
        "input_audio": {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        "file": {"type": "file", "file": {"file_id": "f"}},
    }
    return [*HI, {"role": "user", "content": [parts[kind] for kind in kinds]}]


@pytest.mark.parametrize(
    ("capability", "parameter", "request_"),
    [
        ("tools", "tools", {"tools": [FUNCTION]}),
        ("tools", "tools", {"tools": [{"type": "custom", "custom": {"name": "c"}}]}),
        ("tools", "functions", {"functions": [{"name": "f"}]}),
        ("vision", "messages", {"messages": content("text", "image_url")}),
        ("audio", "messages", {"messages": content("input_audio")}),
        ("audio", "modalities", {"modalities": ["text", "audio"], "audio": {"voice": "v", "format": "wav"}}),
        ("audio", "messages", {"messages": [{"role": "assistant", "audio": {"id": "a"}}, *HI]}),
        ("files", "messages", {"messages": content("file")}),
        ("logprobs", "logprobs", {"logprobs": True}),
        ("logprobs", "logprobs", {"logprobs": True, "top_logprobs": 3}),
        ("structured_output", "response_format", {"response_format": {"type": "json_object"}}),
        ("structured_output", "guided_json", {"guided_json": {}}),
    ],
)
def test_each_capability_is_a_grant_of_its_own(capability, parameter, request_):
    body = {"messages": HI, **request_}
    assert asked(body) == {capability: parameter}
    others = {"capabilities": [name for name in CAPABILITIES if name != capability]}
    for levels in ({"operator": others}, {"team": others}, {"key": others}):
        with made(**levels) as rig:
            refused = rig.run(body)
            assert (refused.status, refused.json["error"]["code"]) == (403, "capability_not_allowed")
            assert f"'{capability}'" in refused.json["error"]["message"]
            assert (refused.json["error"]["param"], refused.sent) == (parameter, [])
    with made({"capabilities": [capability]}, {"capabilities": [capability]}, {"capabilities": [capability]}) as rig:
        assert rig.run(body).status == 200


def test_plain_requests_ask_for_nothing():
    plain = {
        "messages": content("text"), "logprobs": False, "response_format": {"type": "text"}, "modalities": ["text"],
        "tools": [], "n": 1, "stream": True,
    }  # fmt: skip
    assert asked(plain, ["gpt-5.2"]) == {}
    with made({"capabilities": []}, {"capabilities": []}, {"capabilities": []}) as rig:
        assert rig.run(plain).status == 200


@pytest.mark.parametrize("at", ["operator", "team", "key"])
@pytest.mark.parametrize(
    ("grants", "good", "bad", "parameter"),
    [
        ({"n": 2}, {"n": 2}, {"n": 3}, "n"),
        ({"n": 1}, {"n": None}, {"n": 2}, "n"),
        ({"max_tokens": 9}, {"max_tokens": 9}, {"max_tokens": 10}, "max_tokens"),
        ({"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_completion_tokens": 10}, "max_completion_tokens"),
        ({"max_tokens": 9}, {"max_tokens": None}, {"max_tokens": 1, "max_completion_tokens": 10},
         "max_completion_tokens"),
        ({"service_tier": ["flex"]}, {"service_tier": "flex"}, {"service_tier": "priority"}, "service_tier"),
        ({"service_tier": []}, {}, {"service_tier": "auto"}, "service_tier"),
        ({"parameters": ["top_k"]}, {"top_k": 3}, {"min_p": 3}, "min_p"),
        ({"parameters": []}, {"top_p": 1}, {"top_k": 3}, "top_k"),
        ({"parameters": ["*"]}, {"top_k": 3, "min_p": 1}, None, ""),
    ],
)  # fmt: skip
def test_bounds_hold_at_each_level(at, grants, good, bad, parameter):
    with made(**{at: grants}) as rig:
        assert rig.run({"messages": HI, **good}).status == 200
        if bad is not None:
            refused = rig.run({"messages": HI, **bad})
            assert (refused.status, refused.json["error"]["param"]) == (403, parameter)
            assert refused.sent == []


def test_an_answer_without_a_length_gets_the_least_bound():
    with made({"max_tokens": 50}, {"max_tokens": 20}, {"max_tokens": 30}) as rig:
        assert rig.run().upstream_body["max_completion_tokens"] == 20
        assert rig.run({"messages": HI, "max_tokens": 5}).upstream_body["max_tokens"] == 5


@pytest.mark.parametrize("at", ["operator", "team", "key"])
def test_a_model_that_may_not_be_used_is_one_that_does_not_exist(at):
    with made(**{at: {"models": ["gpt-*", "exact"]}}) as rig:
        assert rig.run({"messages": HI, "model": "gpt-5"}).status == 200
        assert rig.run({"messages": HI, "model": "exact"}).status == 200
        for name in ("secret", "exact2", "EXACT", "gpt", "x-gpt-5"):
            refused = rig.run({"messages": HI, "model": name, "not_a_parameter": 1, "web_search_options": {}})
            expected = (
                f'{{"error":{{"message":"The model `{name}` does not exist or you do not have access to it.",'
                '"type":"invalid_request_error","param":null,"code":"model_not_found"}}'
            )
            assert (refused.status, refused.body.decode(), refused.sent) == (404, expected, [])


class ByHeader:
    """Hides models that a header of the request names."""

    name = "by_header"

    @hookimpl
    def allows_model(self, exchange, model):
        if exchange.headers.get("fails"):
            raise RuntimeError("no opinion at all")
        return False if model in exchange.headers.get("hide", "").split() else None


def test_any_plugin_may_keep_models_from_a_caller():
    with Rig(ByHeader(), configured(Access, models=["a", "b"])) as rig:
        assert rig.run({"messages": HI, "model": "a"}).status == 200
        assert rig.run({"messages": HI, "model": "a"}, headers={"hide": "a"}).status == 404
        assert rig.run({"messages": HI, "model": "c"}, headers={"hide": "a"}).status == 404, "none can allow it again"
        failed = rig.run({"messages": HI, "model": "a"}, headers={"fails": "1"})
        assert (failed.status, failed.json["error"]["code"], failed.sent) == (500, "plugin_error", [])
        assert failed.outcome.culprit == "by_header"


def test_levels_only_narrow():
    with made({"models": ["a*", "b"]}, {"models": ["*b", "ab"]}, {"models": ["*"]}) as rig:
        used = [
            name for name in ("a", "b", "ab", "cb", "aab") if rig.run({"messages": HI, "model": name}).status == 200
        ]
        assert used == ["b", "ab", "aab"]
    with made({"capabilities": []}, {"models": ["*"]}, ALL) as rig:
        assert rig.run({"messages": HI, "tools": [FUNCTION]}).status == 403


def test_grants_of_a_key_count_in_a_chain_without_the_plugin():
    with made(key={"models": ["mine"], "capabilities": []}) as rig:
        assert rig.run({"messages": HI, "model": "other"}).status == 404
        assert rig.run({"messages": HI, "model": "mine", "tools": [FUNCTION]}).status == 403
        assert rig.run({"messages": HI, "model": "mine"}).status == 200


def test_the_plugin_opens_everything_usual_but_no_search():
    assert set(CAPABILITIES) - set(USUAL) == {"web_search"}
    assert Access.Config().load({}) == {"capabilities": list(USUAL)}
    for wrong in ({"capabilities": ["*"]}, {"capabilities": ["web"]}, {"models": "x"}, {"n": 0}, {"max_token": 1}):
        with pytest.raises(ValidationError):
            Access.Config().load(wrong)


def test_a_search_in_a_huge_parameter_is_found_without_recursion():
    nested = {"x": "web_search"}
    for _ in range(5000):
        nested = {"y": nested}
    body = {"messages": HI, "extra_body": {"many": [json.loads("[]")] * 1000, "deep": nested}}
    assert searches(body) == "extra_body"
