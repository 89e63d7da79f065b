"""Days, weeks and months in a time zone: when one begins and ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_current: dict[tuple[str, str], tuple[bytes, float, float]] = {}


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name in the IANA database; raises `ValueError` where the system knows none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as failure:
        raise ValueError(f"no time zone is called {name!r} on this system") from failure


def window(every: str, zone: str, at: float) -> tuple[bytes, float, float]:
    """Return the day, week or month around `at`: `@` and its first date, when it begins, when the next one does.

    Times are seconds since 1970. A day may have 23 or 25 hours.
    """
    found = _current.get((every, zone))
    if found is None or not found[1] <= at < found[2]:
        found = _current[every, zone] = _window(every, zone_of(zone), at)
    return found


def _window(every: str, zone: tzinfo, at: float) -> tuple[bytes, float, float]:
    day = datetime.fromtimestamp(at, zone).date()
    if every == "day":
        first, after = day, day + timedelta(1)
    elif every == "week":
        first = day - timedelta(day.weekday())
        after = first + timedelta(7)
    else:
        first = day.replace(day=1)
        after = (first + timedelta(31)).replace(day=1)
    return f"@{first}".encode(), _midnight(first, zone), _midnight(after, zone)


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
