"""Redaction as a plugin uses it: made from its configuration, and given the key of this gateway."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import re2

from proxy.errors import ConfigError
from proxy.exchange import Exchange
from proxy.redaction.kinds import LABELS, NAMED
from proxy.redaction.names import Names
from proxy.redaction.patterns import Pattern
from proxy.redaction.placeholders import Known
from proxy.redaction.policy import Policy
from proxy.redaction.scanner import Finder
from proxy.redaction.schema import actions
from proxy.redaction.words import Words
from proxy.secrets import kept
from proxy.settings import Settings


class Redaction:
    """One configured instance. `config` is what `RedactionSchema` loads; `key` has to be called before `take`."""

    def __init__(self, config: dict[str, Any]) -> None:
        finders: list[Finder] = [
            Words(one["kind"], _lines(one["file"]), ignore_case=one["ignore_case"], whole=one["whole"])
            for one in config["words"]
        ]
        finders += (Pattern(one["kind"], one["pattern"], one["longest"]) for one in config["patterns"])
        own = list(dict.fromkeys(one.kind for one in finders))
        names = config["names"]
        self.kinds = [*LABELS, *(names["kinds"] if names else ()), *own]
        self._key: bytes | None = config["key"].reveal().encode() if config["key"] is not None else None
        self.names = Names(**names) if names else None
        allowed = frozenset([*config["allow"], *(_lines(config["allow_file"]) if config["allow_file"] else ())])
        self.policy = Policy(
            up=actions(config["request"], self.kinds, "restore"),
            down=actions(config["response"], [kind for kind in self.kinds if kind not in NAMED], "off"),
            finders=finders,
            labels={**LABELS, **NAMED, **{kind: kind.replace("_", "").upper() for kind in own}},
            allowed=allowed,
            allowed_pattern=re2.compile(config["allow_pattern"]) if config["allow_pattern"] else None,
            names=self.names,
            log_hashes=config["log_hashes"],
        )

    def start(self, settings: Settings) -> None:
        """Take the gateway's key, and start what looks for names; raises `ConfigError` where the key cannot be had."""
        if self._key is None:
            pepper = kept(settings.pepper, "keys.pepper", settings.server.state / "pepper")
            self._key = hmac.digest(pepper, b"the placeholders of redaction", "sha256")
        if self.names is not None:
            self.names.start()

    def stop(self) -> None:
        """End what `start` began."""
        if self.names is not None:
            self.names.stop()

    def take(self, exchange: Exchange) -> Known:
        """Take the values out of an exchange's request; return those that its answer may have back.

        Raises `Reject` where one is to be blocked.
        """
        assert self._key is not None, "start was not called"
        return self.policy.take(exchange, self._key)

    def filter(self, exchange: Exchange, known: Known) -> Any:
        """Return the filter for an exchange's answer, or `None`."""
        return self.policy.filter(exchange, known)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise ConfigError([f"{path} cannot be read: {why}"]) from None
