"""Grants and limits as options of commands and as columns of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from proxy.config.grants import GrantsSchema, LimitsSchema, checked, written

Command = TypeVar("Command", bound=Callable[..., Any])

#: By name in a file and in the database: what is shown of its value, and what it is for.
GRANTS = {
    "models": ("NAME,NAME*", "Models that may be used; * stands for any text."),
    "capabilities": ("NAME,NAME", "Capabilities that may be used, such as web_search and tools; `none` for none."),
    "max_tokens": ("TOKENS", "Most tokens of an answer that may be asked for."),
    "n": ("COUNT", "Most choices of an answer that may be asked for."),
    "service_tier": ("NAME,NAME", "Service tiers that may be asked for."),
    "parameters": ("NAME,NAME", "Request parameters beyond OpenAI's that may be set; `none` for none."),
}
LIMITS = {
    "requests_per_minute": ("COUNT", "Requests in a minute."),
    "tokens_per_minute": ("COUNT", "Tokens in a minute, of prompts and answers."),
    "concurrent": ("COUNT", "Requests at once."),
    "budget": ("USD/WINDOW", "Money over a day, week or month, such as 50/month."),
}
NAMES = (*GRANTS, *LIMITS)


def options(command: Command) -> Command:
    """Give a command an option for each grant and limit."""
    for name, (metavar, help) in reversed((GRANTS | LIMITS).items()):
        command = click.option("--" + name.replace("_", "-"), name, metavar=metavar, help=help)(command)
    return command


def taken(details: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take grants and limits out of what a command or a row of a file was given as text, and return both.

    Raises `ValueError` with one line for each mistake.
    """
    said = {name: details.pop(name, None) for name in NAMES}
    grants = {name: _value(name, text) for name, text in said.items() if name in GRANTS and text is not None}
    limits = {name: _value(name, text) for name, text in said.items() if name in LIMITS and text is not None}
    return both(grants, limits)


def both(grants: Any, limits: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check both against their schemas; raises `ValueError` with one line for each mistake of either."""
    loaded, problems = [], []
    for kind, said, where in ((GrantsSchema, grants, "grants"), (LimitsSchema, limits, "limits")):
        try:
            loaded.append(checked(kind, said, where))
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise ValueError("\n".join(problems))
    return loaded[0], loaded[1]


def merged(old: Mapping[str, Any], new: Mapping[str, Any], cleared: tuple[str, ...]) -> dict[str, Any]:
    """Return grants or limits after a change: the new ones go first, those in `cleared` go away."""
    return {name: value for name, value in {**old, **new}.items() if name not in cleared or name in new}


def facts(grants: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as JSON has them, which is also how they are written in a file."""
    return {"grants": dict(grants), "limits": written(limits)}


def _value(name: str, text: str) -> Any:
    if name in ("models", "capabilities", "service_tier", "parameters"):
        return [] if text == "none" else [part.strip() for part in text.split(",")]
    if name == "budget":
        amount, _, window = text.partition("/")
        return {"usd": _number(amount), "window": window}
    # What is no number is left as it is, for the schema to refuse by name.
    return int(text) if re.fullmatch(r"[0-9]{1,16}", text) else text


def _number(text: str) -> Any:
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) else text
