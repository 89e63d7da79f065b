"""The configuration of a `redact` instance."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from proxy.config.fields import FlagField, SecondsField, described, texts, whole
from proxy.redaction.kinds import DOWN, LABELS, LITERAL, NAMED, UP
from proxy.secrets import SHORTEST, PathField, Secret, SecretField

KIND = re.compile(r"[a-z][a-z0-9_]{1,30}")
#: A word of a list, or what an operator's pattern matches, has at most so many characters.
LONGEST = 4096
DEFAULT = "default"
FAMILY = "national_id"


class _Kind(Schema):
    kind = fields.String(
        required=True,
        validate=validate.Regexp(rf"{KIND.pattern}\Z", error="must be a name of small letters, digits and underscores"),
        metadata=described("the kind of what it finds; its placeholders begin with this name"),
    )


class WordsSchema(_Kind):
    """One of `words`."""

    file = PathField(exists="file", required=True, metadata=described("a file in UTF-8 with one entry a line"))
    ignore_case = FlagField(load_default=True, metadata=described("whether case makes no difference"))
    whole = FlagField(load_default=True, metadata=described("whether an entry counts only as a whole word"))


class PatternSchema(_Kind):
    """One of `patterns`."""

    pattern = fields.String(
        required=True, metadata=described("a regular expression of RE2; of its group `value`, if it has one, only that")
    )
    longest = whole(
        1, LONGEST, load_default=128, metadata=described("most characters of a match: how much answers are held back")
    )

    @validates_schema(skip_on_field_errors=True)
    def runs(self, said: dict[str, Any], **_: Any) -> None:
        """Refuse a pattern that cannot be run in time linear in the text."""
        from proxy.redaction.patterns import Pattern

        try:
            Pattern(said["kind"], said["pattern"], said["longest"])
        except ValueError as failure:
            raise ValidationError(str(failure), "pattern") from None


PRESIDIO = "proxy.redaction.names:presidio"


class NamesSchema(Schema):
    """The `names` of people, places and organisations."""

    engine = fields.String(
        load_default=PRESIDIO,
        validate=validate.Regexp(r"[\w.]+:\w+\Z", error="must be package.module:function"),
        metadata=described("a function that takes a language and returns an analyzer with presidio's interface"),
    )
    language = fields.String(load_default="en", metadata=described("the language of the model"))
    kinds = fields.List(
        fields.String(validate=validate.OneOf(list(NAMED))),
        load_default=list(NAMED),
        metadata=described("what is looked for"),
    )
    score = fields.Float(load_default=0.5, metadata=described("the least certainty, from 0 to 1"))
    deadline_s = SecondsField(load_default=0.5, metadata=described("how long a request waits for it, in seconds"))
    late = fields.String(
        load_default="block",
        validate=validate.OneOf(("block", "pass")),
        metadata=described("what becomes of a request whose names come late: refused (503), or passed without"),
    )

    @validates_schema(skip_on_field_errors=True)
    def installed(self, said: dict[str, Any], **_: Any) -> None:
        """Refuse the engine of an extra that is missing."""
        if said["engine"] == PRESIDIO and find_spec("presidio_analyzer") is None:
            raise ValidationError("needs presidio: pip install 'lockgate[presidio]'", "engine")


class RedactionSchema(Schema):
    """What is detected, in which direction, and what is done with each kind."""

    request = fields.Dict(
        keys=fields.String(),
        values=fields.String(validate=validate.OneOf(UP)),
        load_default=dict,
        metadata=described(
            f"what is done with each kind on its way up, of {', '.join(UP)}; `{DEFAULT}` is for kinds that are not "
            f"named, and is restore; `{FAMILY}` is for those of all countries"
        ),
    )
    response = fields.Dict(
        keys=fields.String(),
        values=fields.String(validate=validate.OneOf(DOWN)),
        load_default=dict,
        metadata=described(f"what is done with each kind in answers, of {', '.join(DOWN)}; `{DEFAULT}` is off"),
    )
    words = fields.List(fields.Nested(WordsSchema), load_default=list, metadata=described("lists of words to find"))
    patterns = fields.List(fields.Nested(PatternSchema), load_default=list, metadata=described("patterns to find"))
    allow = texts("values that are left alone, exactly as they stand here", load_default=list)
    allow_file = PathField(
        exists="file", load_default=None, metadata=described("a file with more of them, one a line, in UTF-8")
    )
    allow_pattern = fields.String(
        load_default=None,
        metadata=described("a regular expression of RE2; values that it matches whole are left alone"),
    )
    names = fields.Nested(
        NamesSchema, load_default=None, metadata=described("turns on the detection of names by a model")
    )
    key = SecretField(
        load_default=None,
        metadata=described("the secret that placeholders are derived with; else one derived from the keys' pepper"),
    )
    log_hashes = FlagField(
        load_default=False, metadata=described("whether each value's placeholder is logged, to find the value again")
    )

    @validates_schema(skip_on_field_errors=True)
    def together(self, said: dict[str, Any], **_: Any) -> None:
        """Refuse kinds that nothing finds, and names that are taken."""
        problems: dict[str, Any] = {}
        own = [entry["kind"] for entry in (*said["words"], *said["patterns"])]
        for name in own:
            if name in (*LABELS, *NAMED, DEFAULT, FAMILY, LITERAL.lower()):
                problems.setdefault("words", []).append(f"there is a kind {name!r} already: choose another name")
        known = {*LABELS, *own, DEFAULT, FAMILY, *(said["names"]["kinds"] if said["names"] else ())}
        for direction in ("request", "response"):
            for name in said[direction]:
                if name not in known or (direction == "response" and name in NAMED):
                    known_here = ", ".join(sorted(known - (set(NAMED) if direction == "response" else set())))
                    problems[direction] = {name: [f"nothing finds this kind; known: {known_here}"]}
        if isinstance(said["key"], Secret) and len(said["key"].reveal()) < SHORTEST:
            problems["key"] = [f"must have at least {SHORTEST} characters"]
        if said["allow_pattern"] is not None:
            from proxy.redaction.patterns import Pattern

            try:
                Pattern("allow", said["allow_pattern"], LONGEST)
            except ValueError as failure:
                problems["allow_pattern"] = [str(failure)]
        if problems:
            raise ValidationError(problems)


def actions(said: dict[str, str], kinds: list[str], default: str) -> dict[str, str]:
    """Return what is done with each of these kinds: as it is named, as its family is, or as is usual."""
    usual = said.get(DEFAULT, default)
    family = said.get(FAMILY, usual)
    return {kind: said.get(kind, family if kind.startswith(FAMILY) else usual) for kind in kinds}
