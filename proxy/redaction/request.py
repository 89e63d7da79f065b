"""Takes values out of a chat request: of every message, every tool, every text that a caller can put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from proxy.redaction import placeholders
from proxy.redaction.kinds import LITERAL, Finding
from proxy.redaction.placeholders import Known
from proxy.redaction.replacing import Edit, edits, replaced
from proxy.request.schemas import CHAT_PARAMETERS

#: Words of the protocol and bytes of pictures and sound.
SKIPPED = frozenset(
    ("role", "type", "model", "format", "detail", "syntax", "mode", "ttl", "data", "file_data", "file_id", "object")
)
#: What upstreams take only without brackets: names, and what is compared with them.
NAMES = frozenset(("name", "id", "tool_call_id", "safety_identifier", "prompt_cache_key", "call_id"))
#: Below these the keys are the caller's own, and numbers are values.
FREE = frozenset(("metadata", "parameters", "schema", "arguments", "input", "chat_template_kwargs"))
#: Keys of JSON Schema, whose lists are of names.
LISTED = frozenset(("required", "propertyOrdering", "dependentRequired"))
SCHEMA = frozenset(
    "type properties required items enum const default description title format pattern anyOf oneOf allOf not $ref "
    "$defs definitions additionalProperties minimum maximum minLength maxLength minItems maxItems examples".split()
)


class Slot(NamedTuple):
    """One text in a request: where it is, and in which form placeholders go there. A key's text is the key itself."""

    container: Any
    key: Any
    text: str
    form: str
    hint: str = ""
    is_key: bool = False
    number: bool = False


def slots(body: dict[str, Any]) -> Iterator[Slot]:
    """Yield all that carries text in the body of a chat request."""
    for message in body.get("messages") or ():
        content = message.get("content")
        if type(content) is str:
            yield Slot(message, "content", content, "[{}]")
        if len(message) > 2 or type(content) is not str:
            yield from _members(message, False, skip="content" if type(content) is str else None)
    for name, value in body.items():
        if name == "messages" or name in SKIPPED or value is None or type(value) is bool:
            continue
        free = name not in CHAT_PARAMETERS
        if free or type(value) is not int and type(value) is not float:
            yield from _value(body, name, value, free or name in FREE, name)


def _members(node: dict[str, Any], free: bool, skip: str | None = None) -> Iterator[Slot]:
    for key, value in node.items():
        if key == skip or (key in SKIPPED and type(value) is str and not free):
            continue
        if free and key not in SCHEMA:
            yield Slot(node, key, key, "{}", is_key=True)
        yield from _value(node, key, value, free or key in FREE, key)


def _value(container: Any, key: Any, value: Any, free: bool, name: str) -> Iterator[Slot]:
    kind = type(value)
    if kind is str:
        if value.startswith("data:") and ";base64," in value[:100]:
            return
        yield Slot(
            container,
            key,
            value,
            "{}" if name in NAMES and not free or name in LISTED else "[{}]",
            name if free else "",
        )
    elif kind is dict:
        yield from _members(value, free)
    elif kind is list:
        for index, item in enumerate(value):
            yield from _value(value, index, item, free, name)
    elif free and (kind is int or kind is float) and abs(value) >= 100_000:
        yield Slot(container, key, repr(value), "[{}]", name, number=True)


class Taken(NamedTuple):
    """What was found in a request: how often each kind, and what has to be replaced where."""

    counts: dict[str, int]
    replacing: list[tuple[Slot, list[Edit]]]


def inspect(body: dict[str, Any], find: Callable[[str], list[Finding]]) -> Taken:
    """Find the values in a request; nothing is changed yet."""
    counts: dict[str, int] = {}
    replacing: list[tuple[Slot, list[Edit]]] = []
    for slot in slots(body):
        text = slot.text
        if slot.hint:
            # The name of a value tells what it is, as the words before it do in a sentence.
            head = f"{slot.hint}: "
            shift = len(head)
            found = [
                one._replace(start=max(0, one.start - shift), end=one.end - shift)
                for one in find(head + text)
                if one.end > shift
            ]
        else:
            found = find(text)
        if not found:
            continue
        if slot.number:
            made = [Edit(0, len(text), found[0].kind, text)]
        else:
            made = edits(text, found)
        for edit in made:
            if edit.kind != LITERAL:
                counts[edit.kind] = counts.get(edit.kind, 0) + 1
        replacing.append((slot, made))
    return Taken(counts, replacing)


def replace(taken: Taken, actions: Mapping[str, str], labels: Mapping[str, str], known: Known) -> None:
    """Put placeholders into the request for what is to be restored or masked."""
    for _, made in taken.replacing:
        for edit in made:
            if actions.get(edit.kind) == "restore":
                known.name(labels[edit.kind], edit.value, True)

    def name(kind: str, value: str) -> str:
        return known.name(labels[kind], value, kind == LITERAL or actions[kind] == "restore")

    renamed: list[tuple[Slot, str]] = []
    for slot, made in taken.replacing:
        wanted = [edit for edit in made if _wanted(edit, actions, known)]
        if not wanted:
            continue
        text = replaced(slot.text, wanted, name, slot.form)
        if slot.is_key:
            renamed.append((slot, text))
        else:
            slot.container[slot.key] = text
    for slot, text in renamed:
        _rename(slot.container, slot.key, text)


def _wanted(edit: Edit, actions: Mapping[str, str], known: Known) -> bool:
    if edit.kind == LITERAL:
        # A caller's own text that reads like the placeholder of a value in this request would become that value.
        return placeholders.normal(edit.value) in known.values
    return actions[edit.kind] in ("restore", "mask")


def _rename(node: dict[str, Any], old: str, new: str) -> None:
    members = [(new if key == old else key, value) for key, value in node.items()]
    node.clear()
    node.update(members)
