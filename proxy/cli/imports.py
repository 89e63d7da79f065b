"""Keys from elsewhere: lines of JSON or CSV become rows, all of them or none."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
from sqlalchemy import Connection, select

from proxy.access.keys import Key, add_all, digest, new_id, new_key, next_version, printable
from proxy.access.teams import names
from proxy.cli import permissions, times
from proxy.errors import ConfigError
from proxy.records.tables import keys, retired
from proxy.settings import Settings

TEXTS = ("id", "name", "team", "owner", "note", "expires", "key", "digest")
#: More mistakes than these are counted and not told.
MOST_PROBLEMS = 50


@dataclass(slots=True)
class Line:
    """One line that is right by itself; `key` and `digest` are never shown."""

    number: int
    said: dict[str, Any]
    grants: dict[str, Any]
    limits: dict[str, Any]
    expires: float | None


class Problems:
    """What is wrong, by line."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def note(self, number: int, what: object) -> None:
        """Note what is wrong in a line; one line of text for each mistake."""
        self._found += [f"line {number}: {text}" for text in str(what).splitlines()]

    def check(self) -> None:
        """Raise `ConfigError` if there is any."""
        if self._found:
            more = len(self._found) - MOST_PROBLEMS
            told = [*self._found[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
            raise ConfigError([*told, "nothing was imported"])


def parse(file: Iterable[str], kind: str) -> list[Line]:
    """Return the lines of a file of JSON lines (`jsonl`) or of CSV with a heading (`csv`); empty ones are left out.

    Raises `ConfigError` with every mistake and the number of its line.
    """
    problems, lines = Problems(), []
    try:
        for number, said in (_csv if kind == "csv" else _jsonl)(file, problems):
            try:
                lines.append(_line(number, said, kind))
            except ValueError as problem:
                problems.note(number, problem)
    except UnicodeDecodeError:
        raise ConfigError(["the file is not UTF-8 text: nothing was imported"]) from None
    problems.check()
    return lines


def add(connection: Connection, pepper: bytes, lines: list[Line], settings: Settings) -> list[tuple[Key, str | None]]:
    """Insert the keys; return each row, and with those that were made anew the key itself.

    Raises `ConfigError` for a team that there is not, and for ids and keys that are there already or twice.
    """
    ids = set(connection.execute(select(keys.c.id)).scalars())
    digests = {
        *connection.execute(select(keys.c.digest)).scalars(),
        *connection.execute(select(retired.c.digest)).scalars(),
    }
    teams, problems, now, version = names(settings, connection), Problems(), time.time(), next_version(connection)
    made: list[tuple[Key, str | None]] = []
    for line in lines:
        key, text = _key(line, pepper, now, version)
        if key.id in ids:
            problems.note(line.number, f"id: there is a key {key.id!r} already")
        if key.digest in digests:
            problems.note(line.number, "key: it is there already")
        if key.team is not None and key.team not in teams:
            problems.note(line.number, f"team: there is no team {key.team!r}: `lockgate teams create` makes one")
        ids.add(key.id)
        digests.add(key.digest)
        made.append((key, text))
    problems.check()
    add_all(connection, pepper, [key for key, _ in made])
    return made


def _key(line: Line, pepper: bytes, now: float, version: int) -> tuple[Key, str | None]:
    said = line.said
    id, text = said.get("id") or new_id(), None
    if "digest" in said:
        known = bytes.fromhex(said["digest"])
    elif "key" in said:
        known = digest(pepper, said["key"])
    else:
        _, text = new_key(id)
        known = digest(pepper, text)
    about: dict[str, Any] = {name: said.get(name) for name in ("name", "team", "owner", "note")}
    row = Key(
        id=id,
        digest=known,
        **about,
        grants=line.grants,
        limits=line.limits,
        created=now,
        expires=line.expires,
        revoked=None,
        version=version,
    )
    return row, text


def _line(number: int, said: dict[str, Any], kind: str) -> Line:
    nested = () if kind == "csv" else ("grants", "limits")
    unknown = sorted(said.keys() - {*TEXTS, *(permissions.NAMES if kind == "csv" else nested)})
    if unknown:
        raise ValueError(f"{', '.join(map(repr, unknown))}: there is no such column")
    wrong = [name for name in TEXTS if name in said and not isinstance(said[name], str)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: must be a text")
    if "name" not in said:
        raise ValueError("name: missing")
    printable(**{name: said.get(name) for name in ("name", "team", "owner", "note")})
    _secret(said)
    if kind == "csv":
        grants, limits = permissions.taken(said)
    else:
        grants, limits = permissions.both(said.pop("grants", {}), said.pop("limits", {}))
    try:
        expires = times.moment(said["expires"]) if "expires" in said else None
    except click.BadParameter as problem:
        raise ValueError(f"expires: {problem.message}") from None
    return Line(number, said, grants, limits, expires)


def _secret(said: dict[str, Any]) -> None:
    # None of these messages repeats a key: they may end up in a log.
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", said.get("id", "x")):
        raise ValueError("id: 1 to 64 letters, digits, dots and hyphens are needed")
    if "key" in said and "digest" in said:
        raise ValueError("key, digest: one of them is enough")
    if not re.fullmatch(r"[0-9a-f]{64}", said.get("digest", "0" * 64)):
        raise ValueError("digest: 64 hexadecimal digits are needed")
    if not re.fullmatch(r"[!-+\--~]{32,128}", said.get("key", "x" * 32)):  # a comma stands between two headers
        raise ValueError("key: 32 to 128 printable characters of ASCII without spaces and commas are needed")


def _jsonl(file: Iterable[str], problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            problems.note(number, "not JSON")
            continue
        if isinstance(said, dict):
            yield number, {name: value for name, value in said.items() if value is not None}
        else:
            problems.note(number, "must be a JSON object")


def _csv(file: Iterable[str], problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if len(set(names)) < len(names):
            problems.note(1, "a column is there twice")
        for row in reader:
            if None in row or None in row.values():
                problems.note(reader.line_num, "must have as many columns as the heading")
            else:
                yield reader.line_num, {name.strip(): value.strip() for name, value in row.items() if value.strip()}
    except csv.Error as problem:
        problems.note(reader.line_num, f"not CSV: {problem}")
