"""The house rules, as far as a machine can hold to them."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from proxy import hookspecs, sources, sse
from proxy.exchange import Exchange
from proxy.testing import stream

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "proxy").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "lockgate_spec")}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, as they are written."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def test_there_are_seven_hooks() -> None:
    assert list(HOOKS) == [
        "authenticate", "allows_model", "on_request", "on_response", "on_complete", "on_start", "on_stop"
    ]  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_heading_in_the_guide_with_its_exact_arguments(hook: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[hook]).parameters)
    assert re.search(rf"^#+ `{hook}\({arguments}\)`", (ROOT / "docs" / "plugins.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_used_by_a_bundled_plugin_or_tested(hook: str) -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(f"def {hook}(self" in text for text in texts)


def test_the_public_names_are_exact() -> None:
    tree = ast.parse((ROOT / "proxy" / "__init__.py").read_text())
    # What type checkers see, what there is, and what is promised.
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in froms for alias in node.names}
    del seen["import_module"]
    there = {name: f"proxy.{module}" for module, names in proxy._MODULES.items() for name in names}
    assert seen == there
    assert proxy.__all__ == sorted(there, key=lambda name: (name[0].islower(), name))
    assert all(getattr(proxy, name) is not None for name in proxy.__all__)
    with pytest.raises(AttributeError):
        _ = proxy.nothing  # type: ignore[attr-defined]


def test_the_master_imports_nothing_that_workers_could_not_load_anew() -> None:
    loaded = "sorted(name for name in sys.modules if name.startswith('proxy'))"
    code = f"import sys; from proxy.serving import address; print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    inside = ("address", "flight", "welcome")
    assert done.stdout.split() == ["proxy", "proxy.serving", *(f"proxy.serving.{name}" for name in inside)]


def test_bundled_plugins_import_only_from_proxy() -> None:
    for path in (ROOT / "plugins").rglob("*.py"):
        inside = {name for name in imports(path) if name.partition(".")[0] in ("proxy", "plugins", "tests")}
        assert inside <= {"proxy"}, path


def test_the_core_imports_no_plugin() -> None:
    for path in (ROOT / "proxy").rglob("*.py"):
        assert not any(name.partition(".")[0] == "plugins" for name in imports(path)), path


def test_providers_do_no_io() -> None:
    for path in (ROOT / "proxy" / "providers").rglob("*.py"):
        assert not imports(path) & {"socket", "requests", "urllib3", "http.client", "threading", "time"}, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_lives_in_it(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)


def test_every_public_function_and_class_has_a_docstring() -> None:
    missing = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{path.name}: {node.name}")
    assert missing == []


def test_nothing_is_left_to_do_and_no_machine_is_named() -> None:
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|(^|[^a-z.\w])/(work|farm|root|tmp)/")
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if inside[0] in ("proxy", "plugins", "tests", "docs", "deploy", "bench") and path.suffix in (
            ".py",
            ".md",
            ".conf",
        ):
            assert not words.search(path.read_text()), path


def test_every_dependency_is_used_and_every_use_is_declared() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = {name(line) for line in setup["options"]["install_requires"].splitlines() if line and line[0] != "#"}
    extras = {name(line) for line in "\n".join(setup["options.extras_require"].values()).splitlines() if line}
    owners = importlib.metadata.packages_distributions()
    used = set()
    for path in [*SOURCES, ROOT / "gunicorn.conf.py"]:
        for module in imports(path):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in ("proxy", "plugins"):
                providers = {owner.lower() for owner in owners.get(top, [top])}
                # Several distributions share a namespace such as `opentelemetry`: those that are declared count.
                used |= providers & (declared | extras) or providers
    assert used - declared <= extras
    assert declared - used == set()


def name(requirement: str) -> str:
    """The distribution's name in a requirement line."""
    return re.split(r"[\[<>=!~ ;]", requirement.strip())[0].lower()


def test_pass_through_parses_only_events_with_usage_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange("id", "POST", "/", {}, "", body={})
    track = sources.Track(exchange)
    chunk = b"".join(sse.encode(_dumps(event)) for event in stream("Hello there", usage=None))
    monkeypatch.setattr("proxy.relay.orjson.loads", _refuse)
    assert sse.canonical(chunk)
    track.raw(chunk)
    assert track.finished == {0: "stop"}
    with_usage = b"".join(sse.encode(_dumps(event)) for event in stream("Hello there"))
    assert not sse.canonical(with_usage)


def _refuse(_: bytes) -> None:
    raise AssertionError("an event was parsed")


def _dumps(event: object) -> bytes:
    import json

    return json.dumps(event, separators=(",", ":")).encode()
