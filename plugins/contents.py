"""Keeps prompts and answers, encrypted and for a while, of the models and teams that are named; nothing by default."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy import ContentStore, Event, Exchange, Filter, Fold, SecretField, hookimpl, texts, whole

if TYPE_CHECKING:
    from proxy import Gateway

log = logging.getLogger("lockgate")

#: The shortest key that is taken, in characters.
KEY_LENGTH = 32


class Contents:
    """Sees what its place in the chain shows: listed after a plugin that redacts, it keeps what upstreams see."""

    name = "contents"

    class Config(Schema):
        """Options of `[plugins.NAME]` with `use = "contents"`."""

        key = SecretField(
            required=True, metadata={"help": "what the records are encrypted with, at least 32 characters"}
        )
        models = texts(
            "models, by the names that clients use, whose exchanges are kept; `*` for any text", load_default=list
        )
        teams = texts("teams whose exchanges are kept, also with other models", load_default=list)
        sample = fields.Float(
            validate=validate.Range(min=0, max=1),
            load_default=1.0,
            metadata={"help": "the share of these that is kept, drawn at random"},
        )
        max_bytes = whole(
            256,
            16 << 20,
            load_default=64 << 10,
            metadata={"help": "the longest prompt, and the longest answer, that is kept whole; more is cut off"},
        )
        days = whole(
            1,
            3650,
            load_default=30,
            metadata={"help": "days (UTC) that records are kept, that of their writing included"},
        )

        @validates_schema
        def check(self, data: dict[str, Any], **kwargs: Any) -> None:
            """Refuse what keeps nothing, and a short key."""
            if not data.get("models") and not data.get("teams"):
                raise ValidationError('names nothing to keep: models = ["gpt-*"], or teams', "models")
            if "key" in data and len(data["key"].reveal()) < KEY_LENGTH:
                raise ValidationError(
                    f"must have at least {KEY_LENGTH} characters, e.g. from `openssl rand -hex 32`", "key"
                )

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._models = [re.compile(".*".join(map(re.escape, name.split("*")))) for name in config["models"]]
        self._most = config["max_bytes"]
        self._failing = False

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        config = self._config
        self._store = ContentStore(gateway.state / "contents", config["key"].reveal(), config["days"])
        self._lost = gateway.metrics.counter("lockgate_contents_lost_total", "Exchanges that could not be kept.")

    @hookimpl
    def on_stop(self) -> None:
        self._store.close()

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        if self._wanted(exchange):
            # As it is now: those further right change it in place.
            exchange.stash[self] = _Kept(_cut(orjson.dumps(exchange.body), self._most), self._most)

    @hookimpl
    def on_response(self, exchange: Exchange) -> Filter | None:
        kept = exchange.stash.get(self)
        return None if kept is None else kept.watch

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        kept = exchange.stash.get(self)
        if kept is None:
            return
        identity = exchange.identity
        record = {
            "id": exchange.id,
            "time": datetime.fromtimestamp(exchange.received, UTC).isoformat(timespec="milliseconds"),
            "subject": identity and identity.subject,
            "team": identity and identity.team,
            "model": exchange.model,
            "target": exchange.target,
            "status": exchange.outcome.status,
            "code": exchange.outcome.code,
            "complete": exchange.outcome.complete,
            "request": kept.request,
            "answer": kept.answer(),
        }
        try:
            self._store.write(exchange.id, record)
            self._failing = False
        except OSError as failure:
            self._lost.inc()
            if not self._failing:
                log.warning("contents cannot be kept: %s", failure.strerror)
            self._failing = True

    def _wanted(self, exchange: Exchange) -> bool:
        team = exchange.identity and exchange.identity.team
        model = exchange.model or ""
        named = team in self._config["teams"] or any(each.fullmatch(model) for each in self._models)
        return named and random.random() < self._config["sample"]


class _Kept:
    """What is kept of one exchange."""

    def __init__(self, request: Any, most: int) -> None:
        self.request = request
        self._most = most
        self._left = most
        self._fold = Fold()
        self._cut = False

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """Pass the answer on, and gather it for as long as it is short enough."""
        for event in events:
            if self._left > 0:
                self._left -= sum(len(str(choice.get("delta"))) for choice in event["choices"])
                self._fold.add(event)
            else:
                self._cut = True
            yield event

    def answer(self) -> Any:
        """Return the choices as far as they were gathered; `None` where nothing was answered."""
        choices = self._fold.completion()["choices"]
        if not choices:
            return None
        return _cut(orjson.dumps(choices), self._most) if not self._cut else {"cut": orjson.dumps(choices).decode()}


def _cut(raw: bytes, most: int) -> Any:
    """Return what the JSON says, or where it is too long its beginning as text: `{"cut": …}`."""
    return orjson.loads(raw) if len(raw) <= most else {"cut": raw[:most].decode("utf-8", "ignore")}
