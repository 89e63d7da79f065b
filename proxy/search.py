"""Searching the web for models that cannot: what a search engine is, SearXNG as one, and who asks for a search."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from proxy.access import capabilities

if TYPE_CHECKING:
    import requests

#: The longest answer of a search engine that is read, in bytes.
MOST_BYTES = 2 << 20
#: Tools of type `web_search…` and the like are a wish to search and nothing else, unlike those that open pages.
_TOOL = re.compile(r"(web|google|browser|x)_?search(_|$|retrieval)", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class SearchResult:
    """One page that was found; `snippet` is what of it answers the query."""

    title: str
    url: str
    snippet: str = ""


class Search(Protocol):
    """A search engine."""

    def search(self, query: str, count: int, location: Mapping[str, str]) -> list[SearchResult]:
        """Return at most `count` results, best first; raise where there is no answer, in a time of its own.

        `location` may say the user's `city`, `region`, `country` (two letters) and `timezone`. Called by many threads.
        """


class SearXNG:
    """A SearXNG, which must allow the format `json` (`search.formats` in its settings)."""

    def __init__(
        self, http: requests.Session, url: str, timeout_s: float, parameters: Mapping[str, str] | None = None
    ) -> None:
        """`parameters` are sent with each query, such as `language` and `engines`."""
        self._http = http
        self._url = url.rstrip("/") + "/search"
        self._timeout_s = timeout_s
        self._parameters = dict(parameters or {})

    def search(self, query: str, count: int, location: Mapping[str, str]) -> list[SearchResult]:
        """Ask for a page of results; raise `OSError` or `ValueError` where there is none in time."""
        until = time.monotonic() + self._timeout_s
        form = {**self._parameters, "q": query, "format": "json"}
        # A query in the path would stand in the logs of whatever lies between.
        with self._http.post(self._url, data=form, timeout=self._timeout_s, stream=True) as answer:
            if answer.status_code != 200:
                raise ValueError(f"status {answer.status_code}")
            raw = b""
            for chunk in answer.iter_content(65536):
                raw += chunk
                if len(raw) > MOST_BYTES or time.monotonic() > until:
                    raise ValueError("an answer that is too long, or takes too long")
        return _read(orjson.loads(raw), count)


def _read(said: Any, count: int) -> list[SearchResult]:
    found: dict[str, SearchResult] = {}
    for each in said["results"]:
        url, title = each.get("url"), each.get("title")
        if isinstance(url, str) and url.startswith(("https://", "http://")) and len(found) < count:
            snippet = each.get("content")
            shown = _line(title) if isinstance(title, str) and title.strip() else url
            found.setdefault(url, SearchResult(shown, url, _line(snippet) if isinstance(snippet, str) else ""))
    return list(found.values())


def _line(text: str) -> str:
    return " ".join(text.split())


def take_search(body: dict[str, Any]) -> dict[str, Any] | None:
    """Take out of a request what asks for a search, and return its `web_search_options`; `None` where nothing asks.

    Also of what other providers' tools ask for one. A tool that opens pages stays: a search cannot stand for it.
    """
    options: dict[str, Any] | None = body.pop("web_search_options", None)
    tools = body.get("tools") or []
    kept = [tool for tool in tools if not _asks(tool)]
    if len(kept) < len(tools):
        options = options or {}
        body["tools"] = kept
        choice = body.get("tool_choice")
        if isinstance(choice, dict) and _TOOL.match(str(choice.get("type"))):
            del body["tool_choice"]
        if not kept:
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                body.pop(name, None)
    return options


def _asks(tool: dict[str, Any]) -> bool:
    return _TOOL.match(tool["type"]) is not None and capabilities.searches({"tools": [tool]}) is not None
