"""Classes that `use` may name, by their names: those found, and bundled ones that wait until they are asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """A class that `use` may name. `origin` is a file or a distribution; `source` is bundled, entry point or folder."""

    cls: type[Any]
    name: str
    origin: str
    source: str
    version: str | None

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the class implements, in the order of its text."""
        return hooks(self.cls)

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]

    def make(self, options: dict[str, Any] | None) -> Any:
        """Return an instance; `options` are those that its `Config` has loaded, `None` where it has none."""
        return self.cls() if options is None else self.cls(options)


class Shelf(Mapping[str, Found]):
    """What was found, by name. Bundled files are imported when they are asked for.

    The libraries of some take longer to import than everything else. A bundled file whose libraries are not installed
    is left out when it is asked for, and told in `absent`.
    """

    def __init__(self, absent: dict[str, str]) -> None:
        self._found: dict[str, Found] = {}
        self._waiting: dict[str, tuple[Path, Callable[[], Found]]] = {}
        self._absent = absent

    def __getitem__(self, name: str) -> Found:
        if name in self._waiting:
            _, load = self._waiting.pop(name)
            try:
                self._found[name] = load()
            except ModuleNotFoundError as failure:
                if failure.name is None or failure.name.partition(".")[0] in ("proxy", "plugins"):
                    raise
                self._absent[name] = _missing(failure.name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        for name in sorted(self._waiting):
            self.get(name)
        return iter(dict(self._found))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def wait(self, name: str, path: Path, load: Callable[[], Found]) -> None:
        """Enter a bundled class that `load` imports."""
        self._waiting[name] = (path, load)

    def add(self, found: Found) -> str | None:
        """Enter a class; return the origin of another one with its name, which then stays."""
        if found.name in self._waiting:
            return str(self._waiting[found.name][0])
        other = self._found.setdefault(found.name, found)
        return None if other.cls is found.cls else other.origin


def hooks(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of the hooks that a class implements, in the order of its text."""
    names = [name for base in reversed(cls.__mro__) for name in vars(base)]
    return tuple(name for name in dict.fromkeys(names) if hasattr(getattr(cls, name, None), "lockgate_impl"))


def _missing(module: str) -> str:
    """Say what to install for a library that a bundled plugin needs: the extra, where one of ours brings it."""
    try:
        wanted = requires("lockgate") or []
    except PackageNotFoundError:
        wanted = []
    root = module.partition(".")[0].lower().replace("_", "-")
    for line in wanted:
        requirement, _, marker = line.partition(";")
        if root in requirement.lower() and "extra ==" in marker:
            extra = marker.partition("extra ==")[2].strip().strip("'\"")
            return f"needs the extra {extra!r}: pip install 'lockgate[{extra}]'"
    return f"needs the Python module {module!r}, which is not installed"
