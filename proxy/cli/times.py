"""Times on the command line: spans, dates, and how both are shown."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def span(value: str) -> float:
    """Return the seconds of `90d`, `24h`, `30m` or `2w`; `0` is none."""
    found = re.fullmatch(r"([0-9]{1,4})([mhdw])", value)
    if not found and value != "0":
        raise click.BadParameter(f"{value!r} is not a span such as 24h or 7d")
    return int(found[1]) * UNITS_S[found[2]] if found else 0.0


def moment(value: str) -> float:
    """Return seconds since 1970 for a span from now, or for a date, in UTC if it does not say."""
    if re.fullmatch(r"[0-9]{1,4}[mhdw]", value):
        return time.time() + span(value)
    try:
        date = datetime.fromisoformat(value)
        return (date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as failure:
        example = "a span such as 90d or 12h nor a date such as 2030-01-31"
        raise click.BadParameter(f"{value!r} is neither {example}") from failure


def ago(value: str) -> float:
    """Return seconds since 1970 for a span before now, or for a date."""
    return time.time() - span(value) if re.fullmatch(r"[0-9]{1,4}[mhdw]", value) else moment(value)


def expiry(value: str) -> float:
    """Return the same for a moment that is still to come."""
    when = moment(value)
    if when <= time.time():
        raise click.BadParameter(f"{value!r} is not in the future")
    return when


def stamp(seconds: float | None) -> str | None:
    """Return seconds since 1970 as `2030-01-31T00:00:00Z`."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
