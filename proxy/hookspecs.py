"""The hooks: all that a plugin can do, when it is asked, and what its answer means.

A plugin is a plain class with a `name`, hook methods marked with `@hookimpl`, and where it has options a nested
`Config` (a `marshmallow.Schema`), whose loaded dict its `__init__` receives. It takes as many of a hook's arguments
as it needs. `None` always means "no opinion".

A model's plugins are called in the order of its chain, and their filters in the reverse order: a plugin is nearer
to the client than those listed after it, in both directions. Instances are shared by threads; what belongs to one
exchange lives in `exchange.stash[self]` or in the locals of a filter.

A hook that raises `Reject` refuses with the status and code given. Any other exception ends the exchange closed,
with 500 `plugin_error`, and the log names the plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from proxy.exchange import Exchange, Filter, Identity, Reply
    from proxy.gateway import Gateway

hookspec = pluggy.HookspecMarker("lockgate")
hookimpl = pluggy.HookimplMarker("lockgate")


@hookspec(firstresult=True)
def authenticate(exchange: Exchange) -> Identity | None:
    """Say who is calling, from the headers alone; the body has not been read.

    Called first, on every route, on the gateway's own chain. An `Identity` accepts, `None` is "not mine", `Reject`
    refuses at once. If nobody answers, the caller gets 401 unless the model is `public`.
    """


@hookspec
def allows_model(exchange: Exchange, model: str) -> bool | None:
    """Return false where the caller may not use the model of this name; it then does not exist for this caller.

    Called on the model's chain: before `on_request`, and for each model that is to be listed. `None` is no opinion,
    and no plugin can allow what another one, or a grant of the caller's, does not.
    """


@hookspec(firstresult=True)
def on_request(exchange: Exchange) -> Reply | None:
    """Look at `exchange.body`, change it in place, refuse, or answer.

    Called when the body has been checked and the model is known, on the model's chain. `None` goes on to the next
    plugin; a `Reply` answers without an upstream call, through the filters of the plugins listed before this one.
    """


@hookspec
def on_response(exchange: Exchange) -> Filter | None:
    """Return a filter for the answer, or `None`.

    Called once, when an upstream has accepted and before its first event is handed on. A filter is a generator
    function that takes an iterator of OpenAI chunk dicts and yields chunk dicts: yield to pass, yield later to hold
    back, raise `Reject` to stop. A whole answer comes as a stream of one event. What is held back for a choice is
    yielded before, or in, that choice's finish event.
    """


@hookspec
def on_complete(exchange: Exchange) -> None:
    """Take note of how the exchange ended; `exchange.outcome` and `exchange.usage` are final.

    Called exactly once per exchange, whatever happened, after the last byte. A plugin that raises is logged and
    counted; the others are still called.
    """


@hookspec
def on_start(gateway: Gateway) -> None:
    """Open what the plugin needs, in each worker, after the fork. An exception stops the worker."""


@hookspec
def on_stop() -> None:
    """Close what `on_start` opened, when the worker ends. An exception is logged."""
