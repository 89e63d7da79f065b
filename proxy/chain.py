"""One chain of plugins: registered with pluggy, vetted at load, called in the operator's order."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from proxy import hookspecs
from proxy.errors import ConfigError, Reject
from proxy.exchange import Exchange, Filter, Identity, Reply

log = logging.getLogger("lockgate.chain")

Hook = tuple[str, Callable[[Exchange], Any]]
"""A plugin's configured name and its method for one hook, taking the exchange."""


class Chain:
    """The plugins of one chain, by configured name, in order. Raises `ConfigError` where one breaks the contract.

    pluggy checks the plugins against the hooks and lets each take only the arguments that it needs. The calls are made
    from its own listing, so that the one who answered is known and one observer's failure stops no other.
    """

    def __init__(self, plugins: Mapping[str, Any]) -> None:
        self.names = tuple(plugins)
        self._plugins = dict(plugins)
        self._files = {
            member.__code__.co_filename: name
            for name, plugin in reversed(self._plugins.items())
            for member in vars(type(plugin)).values()
            if hasattr(member, "__code__")
        }
        manager = self.manager = pluggy.PluginManager("lockgate")
        manager.add_hookspecs(hookspecs)
        problems = []
        # pluggy calls the last registered first.
        for name, plugin in reversed(self._plugins.items()):
            try:
                manager.register(plugin, name)
            except pluggy.PluginValidationError as error:
                problems.append(f"plugins.{name}: {error}".replace("\n", " "))
        problems += self._vet()
        if problems:
            raise ConfigError(problems)
        self._authenticate = self._hooks("authenticate")
        self._allows_model = manager.hook.allows_model if manager.hook.allows_model.get_hookimpls() else None
        self._on_request = self._hooks("on_request")
        self._on_response = self._hooks("on_response")
        self._on_complete = self._hooks("on_complete")

    def authenticate(self, exchange: Exchange) -> Identity | None:
        """Return the first identity that a plugin vouches for."""
        for name, hook in self._authenticate:
            identity: Identity | None = _traced(exchange, name, hook, "identified")
            if identity is not None:
                return identity
        return None

    def allows_model(self, exchange: Exchange, model: str) -> bool:
        """Tell whether no plugin keeps the model of this name from the caller."""
        if self._allows_model is None:
            return True
        return False not in self._allows_model(exchange=exchange, model=model)

    def on_request(self, exchange: Exchange) -> tuple[Reply | None, int]:
        """Return the first reply, and how many plugins stand before the one that gave it (all, where none did)."""
        for name, hook in self._on_request:
            reply: Reply | None = _traced(exchange, name, hook, "answered")
            if reply is not None:
                return reply, self.names.index(name)
        return None, len(self.names)

    def on_response(self, exchange: Exchange, before: int) -> list[Filter]:
        """Return the filters of the first `before` plugins, in the order in which events go through them."""
        filters = []
        for name, hook in self._on_response:
            if self.names.index(name) < before:
                made = hook(exchange)
                if made is not None:
                    filters.append(made)
                    code = getattr(made, "__code__", None)
                    if code is not None:  # its file may be another than the plugin's
                        self._files.setdefault(code.co_filename, name)
        filters.reverse()
        return filters

    def on_complete(self, exchange: Exchange) -> list[str]:
        """Tell every plugin; return who failed. A failure is logged and stops no other."""
        failed = []
        for name, hook in self._on_complete:
            try:
                hook(exchange)
            except Exception:
                log.exception("plugin %s failed in on_complete of %s", name, exchange.id)
                failed.append(name)
        return failed

    def culprit(self, error: BaseException) -> str | None:
        """Return the name of the plugin whose code raised, or `None` where it was the core's or an upstream's fault.

        The deepest frame that lies in a plugin's own file or in the core decides.
        """
        found = None
        trace = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            file = frame.f_code.co_filename
            if file in self._files:
                me = frame.f_locals.get("self")
                found = next((name for name, plugin in self._plugins.items() if plugin is me), self._files[file])
            elif frame.f_globals.get("__name__", "").startswith("proxy."):
                found = None
            trace = trace.tb_next
        return found

    def _hooks(self, name: str) -> tuple[Hook, ...]:
        # get_hookimpls lists in the reverse of the order in which pluggy calls.
        found = []
        for impl in reversed(getattr(self.manager.hook, name).get_hookimpls()):
            function = impl.function
            found.append((impl.plugin_name, function if impl.argnames else lambda _, call=function: call()))
        return tuple(found)

    def _vet(self) -> list[str]:
        problems = []
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            problems.append(f"plugins.{getattr(error.plugin, 'name', '?')}: {error}".replace("\n", " "))
        for name, plugin in self.manager.list_name_plugin():
            for impl in self.manager.get_hookcallers(plugin) or ():
                for own in impl.get_hookimpls():
                    if own.plugin is not plugin:
                        continue
                    if own.tryfirst or own.trylast or own.wrapper or own.hookwrapper:
                        problems.append(
                            f"plugins.{name}: {impl.name}: the chain decides the order; no tryfirst, trylast or wrapper"
                        )
                    elif inspect.isgeneratorfunction(own.function):
                        problems.append(f"plugins.{name}: {impl.name}: must return, not yield; a filter is returned")
        return problems


def _traced(exchange: Exchange, name: str, hook: Callable[[Exchange], Any], verdict: str) -> Any:
    """Call a hook, and note in the exchange's trace what came of it."""
    began = time.perf_counter_ns()
    said = "failed"
    try:
        answer = hook(exchange)
        said = "passed" if answer is None else verdict
        return answer
    except Reject as reject:
        said = f"refused {reject.code or reject.type}"
        raise
    finally:
        exchange.trace.append((name, said, (time.perf_counter_ns() - began) // 1000))
