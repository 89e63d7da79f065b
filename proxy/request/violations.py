"""What a request parameter can do wrong, in OpenAI's words and codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError

from proxy.errors import Reject

SHOWN = 80
"""Characters of a caller's value that a message repeats at most."""

_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    dict: "an object",
    list: "an array",
    type(None): "null",
}


def violation(path: str, code: str | None, message: str) -> ValidationError:
    """Return the error that marshmallow carries: its one message is a dict of `code`, `message` and `param`."""
    return ValidationError({"code": code, "message": message, "param": path}, field_name=path)


def rejection(error: ValidationError) -> Reject:
    """Return the 400 that a violation becomes."""
    told = error.messages_dict
    return Reject(400, told["code"], told["message"], param=told["param"])


def shortened(value: str) -> str:
    """Return a caller's string, shortened to what a message may repeat."""
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}…"


def quoted(names: Sequence[str], last: str) -> str:
    """Return names as `'a', 'b', and 'c'`, where `last` is the word before the last one."""
    marked = [f"'{name}'" for name in names]
    if len(marked) < 3:
        return f" {last} ".join(marked)
    return f"{', '.join(marked[:-1])}, {last} {marked[-1]}"


def missing_parameter(path: str) -> ValidationError:
    """Say that a required parameter is not there."""
    return violation(path, "missing_required_parameter", f"Missing required parameter: '{path}'.")


def wrong_type(path: str, expected: str, value: Any) -> ValidationError:
    """Say that a value is of another JSON type; `expected` is a phrase such as `a number between 0 and 2`."""
    got = _NAMES[type(value)]
    return violation(path, "invalid_type", f"Invalid type for '{path}': expected {expected}, but got {got} instead.")


def unsupported(path: str, value: str, supported: Sequence[str]) -> ValidationError:
    """Say that a string is none of the supported ones."""
    # OpenAI names the value alone, but its SDKs show the message alone: without the path nobody finds it.
    message = f"Invalid value for '{path}': '{shortened(value)}'. Supported values are: {quoted(supported, 'and')}."
    return violation(path, "invalid_value", message)


def out_of_range(path: str, kind: str, value: float, minimum: float, maximum: float) -> ValidationError:
    """Say that a number is beyond its bounds; `kind` is `integer` or `decimal`."""
    side, sign, bound = ("below min", ">=", minimum) if value < minimum else ("above max", "<=", maximum)
    message = f"Invalid '{path}': {kind} {side}imum value. Expected a value {sign} {bound}, but got {value} instead."
    return violation(path, f"{kind}_{side.replace(' ', '_')}_value", message)


def empty(path: str, kind: str) -> ValidationError:
    """Say that an array or a string is empty; `kind` is `an array` or `a string`."""
    name = kind.split()[1]
    message = f"Invalid '{path}': empty {name}. Expected {kind} with minimum length 1, but got an empty {name} instead."
    return violation(path, f"empty_{name}", message)


def too_long(path: str, kind: str, length: int, maximum: int) -> ValidationError:
    """Say that an array or a string is too long; `kind` is `an array` or `a string`."""
    name = kind.split()[1]
    message = (
        f"Invalid '{path}': {name} too long. Expected {kind} with maximum length {maximum}, "
        f"but got {kind} with length {length} instead."
    )
    return violation(path, f"{name}_above_max_length", message)


def wrong_pattern(path: str, pattern: str) -> ValidationError:
    """Say that a string does not match its pattern."""
    message = (
        f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern '{pattern}'."
    )
    return violation(path, "invalid_value", message)


def too_many_properties(path: str, count: int, maximum: int) -> ValidationError:
    """Say that an object has too many entries."""
    message = (
        f"Invalid '{path}': too many properties. Expected an object with at most {maximum} properties, "
        f"but got an object with {count} properties instead."
    )
    return violation(path, "object_above_max_properties", message)


def long_property_name(path: str, length: int, maximum: int) -> ValidationError:
    """Say that a key of an object is too long."""
    message = (
        f"Invalid '{path}': property name too long. Expected property names with at most {maximum} characters, "
        f"but got one with {length} instead."
    )
    return violation(path, "property_name_above_max_length", message)
