"""The quirks of upstreams that nearly speak OpenAI, in one table: what each takes, and what it answers oddly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.providers.dialects import steps

_SAMPLING = frozenset(("temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed"))
_TOOLS = frozenset(("tools", "tool_choice"))
_LOGPROBS = frozenset(("logprobs", "top_logprobs"))
_CHOICES = frozenset(("none", "auto", "required", "named"))
_FORMS = frozenset(("json_object", "json_schema"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """One upstream's way of speaking OpenAI.

    Of requests: `takes` are the parameters of OpenAI's that it understands as they are, `parameters` those of its own
    that callers may set, `limit` its name for the most tokens, `choices` and `forms` what it takes as `tool_choice` and
    `response_format`, `clamped` the bounds that it sets tighter, `steps` what else must be done to a request.
    Of answers: `native` where they need no repair, `done` whether streams end with `[DONE]`, `thinks_aloud` where the
    model's thoughts stand in the content between `<think>` tags, `overflow` its words for a prompt that is too long.
    `carries` says that `reasoning_details` go back with the calls that they led to, `lists` that there is a list of
    models.
    """

    name: str
    base_url: str
    takes: frozenset[str]
    parameters: frozenset[str] = frozenset()
    limit: str = "max_tokens"
    choices: frozenset[str] = _CHOICES
    forms: frozenset[str] = _FORMS
    clamped: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    steps: tuple[steps.Step, ...] = ()
    stream_options: bool = True
    native: bool = False
    done: bool = True
    thinks_aloud: bool = False
    overflow: str | None = None
    carries: bool = False
    lists: bool = True


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Left out of the lists of parameters on purpose: what would replace the model or its prompt's template, reach other
#: hosts or hold memory (`models`, `chat_template`, `plugins`, `documents`, `keep_alive`, `adapter_id`). An operator can
#: allow them.
DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="vllm",
            base_url="http://127.0.0.1:8000/v1",
            takes=_SAMPLING | _TOOLS | _LOGPROBS | _words("n logit_bias parallel_tool_calls reasoning_effort"),
            parameters=_words(
                "top_k min_p repetition_penalty length_penalty min_tokens stop_token_ids include_stop_str_in_output"
                " ignore_eos skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens bad_words"
                " allowed_token_ids add_generation_prompt continue_final_message chat_template_kwargs guided_json"
                " guided_regex guided_choice guided_grammar structured_outputs include_reasoning thinking_token_budget"
            ),
            limit="max_completion_tokens",
            native=True,
        ),
        Dialect(
            name="ollama",
            base_url="http://127.0.0.1:11434/v1",
            takes=_SAMPLING | _words("tools reasoning_effort"),
            parameters=_words("reasoning think"),
            choices=_words("none auto"),
        ),
        Dialect(
            name="llama.cpp",
            base_url="http://127.0.0.1:8080/v1",
            takes=_SAMPLING | _TOOLS | _LOGPROBS | _words("n logit_bias parallel_tool_calls"),
            parameters=_words(
                "top_k min_p typical_p top_n_sigma repeat_penalty repeat_last_n mirostat mirostat_tau mirostat_eta"
                " dynatemp_range dynatemp_exponent dry_multiplier dry_base dry_allowed_length dry_penalty_last_n"
                " xtc_probability xtc_threshold samplers ignore_eos min_keep n_probs cache_prompt t_max_predict_ms"
                " grammar json_schema chat_template_kwargs reasoning_format"
            ),
            native=True,
        ),
        Dialect(
            name="tgi",
            base_url="http://127.0.0.1:8080/v1",
            takes=_SAMPLING | _TOOLS | _LOGPROBS,
            parameters=_words("tool_prompt guideline"),
            clamped={"top_p": (0.001, 0.999)},
            steps=(steps.grammar,),
            done=False,
            overflow=r"`inputs` must have less than|`inputs` tokens \+ `max_new_tokens`",
        ),
        Dialect(
            name="lmstudio",
            base_url="http://127.0.0.1:1234/v1",
            takes=_SAMPLING | _TOOLS | _words("logit_bias reasoning_effort"),
            parameters=_words("top_k min_p repeat_penalty"),
            choices=_words("none auto required one"),
            steps=(steps.any_object,),
            thinks_aloud=True,
        ),
        Dialect(
            name="mistral",
            base_url="https://api.mistral.ai/v1",
            takes=_SAMPLING | _TOOLS | _words("n parallel_tool_calls prediction"),
            parameters=_words("safe_prompt prompt_mode random_seed"),
            steps=(
                steps.only("role content tool_calls tool_call_id prefix", names="tool"),
                steps.short_ids,
                steps.any_tool,
                steps.plain_schemas,
                steps.closing_prefix,
                steps.renamed(seed="random_seed"),
            ),
            stream_options=False,
        ),
        Dialect(
            name="groq",
            base_url="https://api.groq.com/openai/v1",
            takes=_SAMPLING | _TOOLS | _words("parallel_tool_calls reasoning_effort service_tier"),
            parameters=_words(
                "reasoning_format include_reasoning disable_tool_validation search_settings include_domains"
                " exclude_domains compound_custom citation_options"
            ),
            limit="max_completion_tokens",
            clamped={"temperature": (1e-8, 2)},
            steps=(
                steps.only("role content tool_calls tool_call_id reasoning", names="function"),
                steps.searched_by_groq,
            ),
        ),
        Dialect(
            name="deepseek",
            base_url="https://api.deepseek.com",
            takes=_SAMPLING - {"seed"} | _TOOLS | _LOGPROBS,
            parameters=_words("thinking"),
            forms=_words("json_object"),
            steps=(steps.thinking_switch,),
            native=True,
        ),
        Dialect(
            name="xai",
            base_url="https://api.x.ai/v1",
            takes=_SAMPLING | _TOOLS | _LOGPROBS | _words("n parallel_tool_calls reasoning_effort logit_bias"),
            parameters=_words("deferred"),
            limit="max_completion_tokens",
            steps=(
                steps.without("stop presence_penalty frequency_penalty", r"grok-4|grok-3-mini|grok-code"),
                steps.only("role content tool_calls tool_call_id reasoning_content", names="function"),
                steps.without_strict,
            ),
        ),
        Dialect(
            name="perplexity",
            base_url="https://api.perplexity.ai",
            takes=_SAMPLING - {"seed"} | _words("reasoning_effort web_search_options"),
            parameters=_words(
                "top_k search_mode search_domain_filter search_recency_filter search_after_date_filter"
                " search_before_date_filter last_updated_after_filter last_updated_before_filter"
                " language_preference disable_search enable_search_classifier return_images return_related_questions"
            ),
            forms=_words("json_schema"),
            steps=(steps.alternating, steps.searched_by_perplexity),
            stream_options=False,
            lists=False,
        ),
        Dialect(
            name="openrouter",
            base_url="https://openrouter.ai/api/v1",
            takes=_SAMPLING
            | _TOOLS
            | _LOGPROBS
            | _words("logit_bias parallel_tool_calls verbosity prediction web_search_options"),
            parameters=_words("top_k top_a min_p repetition_penalty reasoning include_reasoning transforms"),
            steps=(steps.reasoning_object, steps.searched_by_openrouter),
            carries=True,
        ),
    )
}

#: Azure's answers are OpenAI's with the marks of its content filter in them.
AZURE = Dialect(name="azure", base_url="", takes=frozenset())
