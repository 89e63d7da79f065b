"""People, places and organisations, found by a model in a process of its own, within a deadline."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures.process import BrokenProcessPool
from threading import Lock
from typing import Any

from proxy.errors import Reject
from proxy.redaction.kinds import Finding
from proxy.redaction.request import Slot
from proxy.redaction.scan import settled

#: What presidio calls them, and what they are called here.
ENTITIES = {
    "PERSON": "person",
    "LOCATION": "place",
    "GPE": "place",
    "ORGANIZATION": "organisation",
    "ORG": "organisation",
}
RANK = 9
#: More requests than this do not wait for the process: they are late at once.
MOST_WAITING = 32

Spans = list[tuple[int, int, str]]


class Names:
    """Asks a model about all the texts of a request at once. Raises `ImportError` where its engine is not installed.

    `engine` is `package.module:function`, which is called with the language and returns something with presidio's
    `analyze(text=…, language=…, entities=…)`. `late` says what happens to a request whose deadline has passed: `block`
    refuses it (503), `pass` lets it go on without this detection.
    """

    def __init__(
        self, engine: str, language: str, kinds: Sequence[str], score: float, deadline_s: float, late: str
    ) -> None:
        module, _, function = engine.partition(":")
        self._arguments = (module, function, language, tuple(kinds), score)
        self._deadline_s = deadline_s
        self._late = late
        self._lock = Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0

    def start(self) -> None:
        """Start the process, which loads its model meanwhile; called in each worker, after the fork."""
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _load, self._arguments)
        self._pool.submit(_look, [])

    def stop(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def beside(
        self, find: Callable[[str], list[Finding]], slots: Sequence[Slot], allowed: Callable[[str], bool]
    ) -> Callable[[str], list[Finding]]:
        """Return what finds names too, in the texts of these slots; raises `Reject` where `late` is `block`."""
        texts = list(dict.fromkeys(slot.text for slot in slots if len(slot.text) > 2 and not slot.is_key))
        spans = dict(zip(texts, self._asked(texts), strict=False))

        def both(text: str) -> list[Finding]:
            found = find(text)
            if names := spans.get(text):
                named = [Finding(start, end, kind, RANK) for start, end, kind in names if not allowed(text[start:end])]
                found = settled([*(one._replace(rank=0) for one in found), *named])
            return found

        return both

    def _asked(self, texts: list[str]) -> list[Spans]:
        with self._lock:
            free = self._waiting < MOST_WAITING and self._pool is not None
            self._waiting += free
        if free:
            assert self._pool is not None
            try:
                future = self._pool.submit(_look, texts)
                future.add_done_callback(self._done)
            except (BrokenProcessPool, RuntimeError):
                self._done(None)
            else:
                try:
                    return future.result(self._deadline_s)
                except (Late, BrokenProcessPool):
                    future.cancel()
        if self._late == "block":
            message = "The gateway could not look for names in time."
            raise Reject(503, "redaction_late", message, headers={"retry-after": "2"})
        return []

    def _done(self, _: object) -> None:
        with self._lock:
            self._waiting -= 1


_engine: Any = None
_options: tuple[str, tuple[str, ...], float] = ("en", (), 0.5)


def _load(module: str, function: str, language: str, kinds: tuple[str, ...], score: float) -> None:
    """Load the model, in the process that has it."""
    global _engine, _options
    _engine = getattr(importlib.import_module(module), function)(language)
    _options = language, kinds, score


def _look(texts: list[str]) -> list[Spans]:
    language, kinds, score = _options
    entities = [entity for entity, kind in ENTITIES.items() if kind in kinds]
    found = []
    for text in texts:
        results = _engine.analyze(text=text, language=language, entities=entities)
        found.append([(one.start, one.end, ENTITIES[one.entity_type]) for one in results if one.score >= score])
    return found


def presidio(language: str) -> Any:
    """Return presidio's analyzer for a language, with the small spaCy model of that language."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    genre = "web" if language in ("en", "zh") else "news"
    models = [{"lang_code": language, "model_name": f"{language}_core_{genre}_sm"}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
