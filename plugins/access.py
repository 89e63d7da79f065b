"""Bounds what all callers of a chain may use; teams, keys and tokens narrow that further with grants of their own."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from proxy import CAPABILITIES, Exchange, Grants, GrantsSchema, hookimpl, permit

#: A search sends words of the prompt to others, so it is opened by its name or not at all.
USUAL = tuple(name for name in CAPABILITIES if name != "web_search")


class Access:
    """Allows models by name or pattern, and capabilities by name; refuses the others before an upstream is called."""

    name = "access"

    class Config(GrantsSchema):
        """The grants of the operator. A pattern over models grants no capability."""

        capabilities = fields.List(
            fields.String(validate=validate.OneOf(CAPABILITIES, error=f"must be one of {', '.join(CAPABILITIES)}")),
            load_default=list(USUAL),
            metadata={"help": f"capabilities that may be used, of {', '.join(CAPABILITIES)}"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self._grants = Grants.of(config)

    @hookimpl
    def allows_model(self, model: str) -> bool:
        return self._grants.model(model)

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        permit(self._grants, exchange)
