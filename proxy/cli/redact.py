"""`lockgate redact`: shows what each configured instance of redaction would do with a text or a request."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import _echo_json, _fail, _load, config_option, json_option

if TYPE_CHECKING:
    from proxy.redaction.redaction import Redaction

DEFAULTS = "(the defaults)"
#: A run is repeated, and the quickest counts: the first one loads what detectors need.
ROUNDS = 5


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--explain", is_flag=True, help="Show each value, where it is, and what told it.")
@click.option("--team", help="The team whose placeholders are shown.")
@config_option
@json_option
def redact(file: Any, path: Path | None, explain: bool, team: str | None, as_json: bool) -> None:
    """Show what redaction would do with FILE, or with standard input: a text, or the JSON body of a chat request.

    Without an instance of the plugin in the configuration it is the plugin with its defaults that is shown.
    """
    from proxy.errors import ConfigError

    text = file.read()
    body = _body(text)
    try:
        rows = [_shown(name, made, body, text, team, explain) for name, made in _instances(path)]
    except ConfigError as failure:
        _fail(failure.problems)
    if as_json:
        return _echo_json(rows)
    for row in rows:
        _print(row, explain)


def _instances(path: Path | None) -> Iterator[tuple[str, Redaction]]:
    from proxy.redaction.redaction import Redaction
    from proxy.redaction.schema import RedactionSchema

    settings, catalog = _load(path)
    configured = {
        name: own.options or {}
        for name, own in settings.plugins.items()
        if getattr(catalog.plugins[own.use].cls, "Config", None) is RedactionSchema
    }
    for name, options in (configured or {DEFAULTS: RedactionSchema().load({})}).items():
        made = Redaction(options)
        made.start(settings)
        try:
            yield name, made
        finally:
            made.stop()


def _body(text: str) -> dict[str, Any]:
    """Return the request that a text is, or else a request whose one message it is."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("messages"), list):
        return body
    return {"messages": [{"role": "user", "content": text}]}


def _shown(
    name: str, made: Redaction, body: dict[str, Any], text: str, team: str | None, explain: bool
) -> dict[str, Any]:
    from proxy.errors import Reject
    from proxy.redaction.kinds import LITERAL

    policy = made.policy
    best = min(_timed(lambda: policy.inspect(body)) for _ in range(ROUNDS))
    taken = policy.inspect(body)
    row: dict[str, Any] = {
        "instance": name,
        "microseconds": round(best * 1e6, 1),
        "found": {kind: {"count": count, "action": policy.up[kind]} for kind, count in sorted(taken.counts.items())},
    }
    exchange = _exchange(body, team)
    try:
        known = made.take(exchange)
    except Reject as reject:
        row["refused"] = reject.message
        known = None
    else:
        whole = len(body) == 1 and body["messages"][0].get("content") == text
        row["upstream"] = exchange.body["messages"][0]["content"] if whole else exchange.body
    if explain:
        places = dict(_places(body, ""))
        row["explained"] = [
            {
                "where": f"{places.get(id(slot.container), '')}.{slot.key}".lstrip("."),
                "at": [edit.start, edit.end],
                "kind": edit.kind,
                "action": policy.up[edit.kind],
                "value": edit.value,
                "because": _why(edit.kind),
            }
            for slot, made_of in taken.replacing
            for edit in made_of
            if edit.kind != LITERAL
        ]
    if policy.down and known is not None:
        row["answer"] = _answered(made, text, team)
    return row


def _answered(made: Redaction, text: str, team: str | None) -> dict[str, Any]:
    """Return what would become of the text, were it an upstream's answer."""
    from proxy.errors import Reject
    from proxy.redaction.placeholders import Known

    exchange = _exchange({"messages": []}, team)
    known: Known = made.take(exchange)
    event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    try:
        events = list(made.filter(exchange, known)([event]))
    except Reject as reject:
        return {"refused": reject.message, "found": exchange.findings}
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    return {"text": said, "found": exchange.findings}


def _exchange(body: dict[str, Any], team: str | None) -> Any:
    from proxy.exchange import Exchange, Identity

    made = Exchange("req_shown", "POST", "/v1/chat/completions", {}, "")
    made.body = copy.deepcopy(body)
    made.identity = Identity("nobody", team=team) if team else None
    return made


def _timed(run: Any) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _places(node: Any, where: str) -> Iterator[tuple[int, str]]:
    yield id(node), where
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in members:
        if isinstance(value, (dict, list)):
            yield from _places(value, f"{where}.{key}".lstrip("."))


def _why(kind: str) -> str:
    from proxy.redaction.kinds import REASONS

    return REASONS.get(kind, "an entry or a pattern of the configuration")


def _print(row: dict[str, Any], explain: bool) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    out.print(Text(f"{row['instance']}: {row['microseconds']:g} µs"))
    if not row["found"]:
        out.print("  nothing found")
    for kind, said in row["found"].items():
        out.print(Text(f"  {kind}: {said['count']}, {said['action']}"))
    if explain and row["explained"]:
        table = Table("where", "at", "kind", "action", "value", "because", box=None)
        for one in row["explained"]:
            at = f"{one['at'][0]}-{one['at'][1]}"
            table.add_row(
                *(Text(cell) for cell in (one["where"], at, one["kind"], one["action"], one["value"], one["because"]))
            )
        out.print(table)
    if "refused" in row:
        out.print(Text(f"  refused: {row['refused']}"))
    else:
        up = row["upstream"]
        out.print(
            Text("upstream gets:"),
            Text(up if isinstance(up, str) else json.dumps(up, indent=2, ensure_ascii=False)),
            sep="\n",
        )
    if "answer" in row:
        said = row["answer"]
        out.print(Text(f"as an answer: {said.get('refused') or said['text']}"))
