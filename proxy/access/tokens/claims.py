"""What a token's claims say of its holder, by the operator's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marshmallow import RAISE, Schema, ValidationError

from proxy.config.grants import GrantsSchema, LimitsSchema
from proxy.errors import Reject
from proxy.exchange import Identity

LONGEST_SUBJECT = 255  # OpenID Connect Core, 2: the most that an issuer may use
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Claims:
    """Where the claims are. A path is a claim's whole name, or names and list positions with dots between them.

    `teams` are the teams by what stands at `team`, in the order in which they count; without them it names teams
    itself. `default_team` is for tokens in which none is found.
    """

    subject: str = "sub"
    name: str | None = None
    team: str | None = None
    teams: Mapping[str, str] = field(default_factory=dict)
    default_team: str | None = None
    grants: str | None = None
    limits: str | None = None

    def identity(self, issuer: str, claims: Mapping[str, Any], known: Callable[[str], bool]) -> Identity:
        """Return who holds a verified token; `known` tells whether there is a team of a name.

        Raises `Reject` (403) where the claims do not say what the configuration asks of them: a token without its
        team or grants would be allowed more than one with them.
        """
        subject = at(claims, self.subject)
        if type(subject) is not str or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
            raise unusable(self.subject)
        name = at(claims, self.name) if self.name is not None else None
        return Identity(
            f"{issuer}|{subject}",
            name[:LONGEST_NAME] if type(name) is str and name.isprintable() else "",
            self._team(claims, known),
            _mapping(GrantsSchema(), claims, self.grants),
            _mapping(LimitsSchema(), claims, self.limits),
            float(claims["exp"]),
        )

    def _team(self, claims: Mapping[str, Any], known: Callable[[str], bool]) -> str | None:
        if self.team is None and self.default_team is None:
            return None
        said = at(claims, self.team) if self.team is not None else None
        values = [value for value in (said if type(said) is list else [said]) if type(value) is str]
        named = [team for value, team in self.teams.items() if value in values] if self.teams else values
        for team in (*named, self.default_team):
            if team is not None and known(team):
                return team
        raise Reject(403, "no_team", "This token belongs to no team that may use the gateway.")


def at(claims: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path, `None` where nothing does."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if type(found) is dict:
            found = found.get(step)
        elif type(found) is list and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def unusable(path: str) -> Reject:
    """Return the refusal of a genuine token whose claim at `path` is missing or makes no sense here."""
    return Reject(403, "token_not_usable", f"The token's claim '{path}' is missing or not of the form that is needed.")


def _mapping(schema: Schema, claims: Mapping[str, Any], path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        return dict(schema.load(at(claims, path), unknown=RAISE))
    except ValidationError:
        raise unusable(path) from None
