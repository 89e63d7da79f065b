"""The rig: a gateway in this process, with the plugins under test in its chain and a scripted upstream behind it."""

from __future__ import annotations

import atexit
import inspect
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from proxy import Exchange, Identity, hookimpl
from proxy.access.teams import Teams
from proxy.app import create_app
from proxy.catalog import Catalog
from proxy.providers.openai import OpenAI
from proxy.records.database import migrate
from proxy.settings import (
    LedgerSettings,
    ModelSettings,
    PluginSettings,
    ProviderSettings,
    ServerSettings,
    Settings,
    Target,
    TeamSettings,
)
from proxy.shelf import Found
from proxy.testing import answers
from proxy.testing.result import Result
from proxy.testing.script import Running, Script, Upstream, current

TESTER = Identity("tester", name="tester", team="testers")


def configured(plugin: type[Any], **options: Any) -> Any:
    """Make a plugin of its class as the configuration would; wrong options raise marshmallow's `ValidationError`."""
    return plugin(plugin.Config().load(options)) if hasattr(plugin, "Config") else plugin(**options)


class Rig:
    """A gateway with the given plugins as its chain, in this order; classes among them are made with their defaults.

    It has one model, `*`, whose settings `model` overrides (`{"public": True}`). `identity` is who is calling where
    none of the plugins says so; `None` leaves it open. `teams` are those that the configuration would have, by name:
    `{"search": {"grants": {"models": ["gpt-*"]}}}`. `database` makes the records' database, which takes a moment.
    Threads may share a rig. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        *plugins: Any,
        identity: Identity | None = TESTER,
        model: Mapping[str, Any] | None = None,
        teams: Mapping[str, Mapping[str, Any]] | None = None,
        database: bool = False,
    ) -> None:
        made = [configured(plugin) if inspect.isclass(plugin) else plugin for plugin in plugins]
        # Two of one kind are told apart as an operator would.
        names = [f"{plugin.name}_{at}" if at else plugin.name for at, plugin in _numbered(made)]
        chain = dict(zip(names, made, strict=True)) | {"_rig": _Witness(identity)}
        self._folder = tempfile.TemporaryDirectory(prefix="lockgate-")
        options = {"targets": (Target("upstream", None),), "web_search": True, "parameters": ("*",), **(model or {})}
        settings = Settings(
            path=None,
            chain=tuple(chain),
            server=ServerSettings(bind="127.0.0.1:0", state=Path(self._folder.name)),
            plugins={name: PluginSettings(name, name) for name in chain},
            providers={"upstream": ProviderSettings("upstream", "openai", OpenAI.Config().load({}))},
            models={"*": ModelSettings("*", **options)},
            teams={name: TeamSettings(name, **own) for name, own in (teams or {}).items()},
            ledger=LedgerSettings(ship=False),
        )
        if database:
            migrate(settings)
        found = {name: _found(name, lambda plugin=plugin: plugin) for name, plugin in chain.items()}
        self._app = create_app(settings, Catalog(found, {"openai": _found("openai", OpenAI)}))
        self.gateway = self._app.extensions["lockgate"]
        if not database:
            self.gateway.teams = Teams(settings.teams, _Unread())  # type: ignore[arg-type]
        for target in self.gateway.models["*"].targets:
            target.upstream = Upstream()

    def start(
        self,
        request: str | Mapping[str, Any] = "Hello",
        answer: answers.Answer = "Hello there",
        *,
        stream: bool = False,
        split: int | Sequence[int] = 3,
        headers: Mapping[str, str] | None = None,
        path: str = "/v1/chat/completions",
    ) -> Running:
        """Begin an exchange; the arguments are those of `run`."""
        body = {"messages": [{"role": "user", "content": request}]} if isinstance(request, str) else dict(request)
        body = {"model": "test-model", **body} | ({"stream": True} if stream else {})
        raw = orjson.dumps(body)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "SERVER_NAME": "rig",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(raw)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(raw),
        }
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}

        return Running(Script(answer, split, Result()), self._app, environ)

    def run(
        self,
        request: str | Mapping[str, Any] = "Hello",
        answer: answers.Answer = "Hello there",
        *,
        stream: bool = False,
        split: int | Sequence[int] = 3,
        headers: Mapping[str, str] | None = None,
        path: str = "/v1/chat/completions",
        leave_after: int | None = None,
    ) -> Result:
        """Send one request through the gateway and return what became of it.

        `request` is a body or the text of a user's message. `answer` is what the upstream says (see `Answer`), cut as
        `split` says if it is a text or a message. After `leave_after` pieces of the answer the client goes away.
        """
        running = self.start(request, answer, stream=stream, split=split, headers=headers, path=path)
        if leave_after is None:
            return running.finish()
        for _ in range(leave_after):
            running.step()
        return running.leave()

    def close(self) -> None:
        """Stop the gateway and its plugins, and remove its state."""
        atexit.unregister(self.gateway.stop)
        self.gateway.stop()
        self._folder.cleanup()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    plugins: Any, request: str | Mapping[str, Any] = "Hello", answer: answers.Answer = "Hello there", **how: Any
) -> Result:
    """Send one request through a rig of one plugin, or a list of them; see `Rig.run`."""
    with Rig(*(plugins if isinstance(plugins, (list, tuple)) else [plugins])) as rig:
        return rig.run(request, answer, **how)


class _Unread:
    """Stands for the keys of a database that is not there."""

    def team(self, name: str) -> None:
        return None


class _Witness:
    """Stands last in the chain: vouches for the caller whom nobody knows, and keeps the exchange for the result."""

    name = "_rig"

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity

    @hookimpl
    def authenticate(self, exchange: Exchange) -> Identity | None:
        return self._identity

    @hookimpl
    def on_complete(self, exchange: Exchange) -> None:
        current.get().result.exchange = exchange


def _numbered(plugins: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    seen: list[str] = []
    for plugin in plugins:
        yield seen.count(plugin.name), plugin
        seen.append(plugin.name)


def _found(name: str, make: Any) -> Found:
    return Found(make, name, "the rig", "folder", None)
