"""Which plugins and providers there are: bundled ones, those of installed packages, and files in a folder."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any

from proxy.errors import ConfigError
from proxy.shelf import Found, Shelf, hooks

#: The bundled plugins lie beside the core. They are loaded from there by path and never by `import plugins`, which
#: would take any `plugins` package that comes first on the module path, the working directory's for example.
HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parent / "plugins"
PREFIXES = ("lockgate_plugins", "proxy.providers")
#: How a bundled class says what it is called.
_NAME = re.compile(r'^    name = "(\w+)"$', re.MULTILINE)
EMPTY = "holds no plugin (a class with `name` and a method marked @hookimpl) and no provider (`name`, `native`, `open`)"


@dataclass(slots=True)
class Catalog:
    """All that was found. `absent` are bundled ones whose libraries are not installed: name and what to do."""

    plugins: Mapping[str, Found] = field(default_factory=dict)
    providers: Mapping[str, Found] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def discover(cls, plugins_dir: Path | None = None) -> Catalog:
        """Find everything; `ConfigError` lists each file or package that cannot be loaded and each name used twice."""
        catalog, problems = cls.search(plugins_dir)
        if problems:
            raise ConfigError(problems)
        return catalog

    @classmethod
    def search(cls, plugins_dir: Path | None = None) -> tuple[Catalog, list[str]]:
        """Find everything, and return what is wrong beside what was found."""
        absent: dict[str, str] = {}
        shelves = Shelf(absent), Shelf(absent)
        problems, own = list[str](), _own_version()
        for shelf, folder, prefix in zip(shelves, (BUNDLED, HERE / "providers"), PREFIXES, strict=True):
            for path in _files(folder):
                # Its name is read, and not asked of the class: nothing is imported for that.
                said = _NAME.search(_text_of(path).read_text("utf-8"))
                if said is not None:
                    shelf.wait(said[1], path, partial(_bundled, said[1], path, f"{prefix}.{path.stem}", own))
        finding = _Finding(*shelves, problems)
        for group in ("lockgate.plugins", "lockgate.providers"):
            for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
                finding.entry(entry)
        for path in _files(plugins_dir) if plugins_dir is not None else ():
            finding.dropped(path)
        return cls(*shelves, absent), problems


@dataclass(slots=True)
class _Finding:
    plugins: Shelf
    providers: Shelf
    problems: list[str]

    def entry(self, entry: EntryPoint) -> None:
        dist = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an installed package"
        origin = f"{dist} ({entry.value})"
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as failure:
            self.problems.append(f"{origin}: cannot be loaded: {_blame(failure, None)}")
            return
        if not self._take(loaded, origin, "entry point", entry.dist.version if entry.dist else None):
            self.problems.append(f"{origin}: {EMPTY}")

    def dropped(self, path: Path) -> None:
        try:
            module = _load(path, f"lockgate_folder.{path.stem}", fresh=True)
        except (Exception, SystemExit) as failure:
            self.problems.append(f"{path}: cannot be loaded: {_blame(failure, path)}")
            return
        if not self._take(module, str(path), "folder", None):
            self.problems.append(f"{path}: {EMPTY}; a file that is not a plugin has a name that begins with _")

    def _take(self, loaded: Any, origin: str, source: str, version: str | None) -> int:
        """Enter the classes of a module, or one class; return how many there were."""
        classes: list[type[Any]] = [loaded] if inspect.isclass(loaded) else list(_classes(loaded))
        taken = 0
        for cls in classes:
            for shelf, kind in ((self.plugins, _is_plugin), (self.providers, _is_provider)):
                if not kind(cls):
                    continue
                taken += 1
                found = Found(cls, cls.name, origin, source, version or getattr(cls, "version", None))
                other = shelf.add(found)
                if other is not None:
                    self.problems.append(
                        f"two are called {cls.name!r}: {other} and {origin}; rename or remove one of them"
                    )
        return taken


def _bundled(called: str, path: Path, name: str, own: str | None) -> Found:
    module = importlib.import_module(name) if name.startswith("proxy.") else _load(path, name)
    cls = next(cls for cls in _classes(module) if getattr(cls, "name", None) == called)
    return Found(cls, called, str(path), "bundled", own)


def _files(folder: Path) -> Iterator[Path]:
    """The plugin files of a folder, and packages, by name; not private ones, nor the tests that lie beside them."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".", "test_")) or path.name == "conftest.py":
            continue
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path


def _text_of(path: Path) -> Path:
    return path / "__init__.py" if path.is_dir() else path


def _load(path: Path, name: str, fresh: bool = False) -> ModuleType:
    if not fresh and name in sys.modules:
        return sys.modules[name]
    inner = [str(path)] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, _text_of(path), submodule_search_locations=inner)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    family = [known for known in sys.modules if (known + ".").startswith(name + ".")]
    before = {known: sys.modules.pop(known) for known in family}
    sys.modules[name] = module  # dataclasses and relative imports look here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        sys.modules.update(before)
        raise
    return module


def _classes(module: ModuleType) -> Iterator[type[Any]]:
    """The classes that the module defines itself, or its own inner modules do; not what it merely imports."""
    for cls in dict.fromkeys(value for value in vars(module).values() if inspect.isclass(value)):
        if (cls.__module__ + ".").startswith(module.__name__ + "."):
            yield cls


def _is_plugin(cls: type[Any]) -> bool:
    return isinstance(getattr(cls, "name", None), str) and bool(hooks(cls))


def _is_provider(cls: type[Any]) -> bool:
    return (
        isinstance(getattr(cls, "name", None), str) and hasattr(cls, "native") and callable(getattr(cls, "open", None))
    )


def _own_version() -> str | None:
    try:
        return version("lockgate")
    except PackageNotFoundError:  # a source tree that was not installed
        return None


def _blame(failure: BaseException, path: Path | None) -> str:
    """Return the kind and text of an exception, and the line of the file at `path` that it comes from."""
    what = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, SyntaxError):
        other = "" if path is None or str(failure.filename).startswith(str(path)) else f"{failure.filename}, "
        return f"{other}line {failure.lineno}: {type(failure).__name__}: {failure.msg}"
    frames = traceback.extract_tb(failure.__traceback__)
    lines = [frame.lineno for frame in frames if path is not None and Path(frame.filename).is_relative_to(path)]
    return f"line {lines[-1]}: {what}" if lines else what
