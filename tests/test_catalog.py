"""Finding plugins and providers: from where, under which name, and what is told when that goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.catalog import Catalog
from proxy.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent.parent
PLUGIN = """
from proxy import hookimpl

class {cls}:
    "Does {name}.\\n\\nAnd more."
    name = "{name}"
    version = "7"

    @hookimpl
    def on_request(self, exchange): ...

    @hookimpl
    def authenticate(self, exchange): ...

    def helper(self): ...
"""
PROVIDER = """
class P:
    name = "{name}"
    native = True
    parameters = frozenset()

    def open(self, exchange, body): ...
"""


@pytest.fixture
def folder(tmp_path):
    """An empty folder for plugin files."""
    made = tmp_path / "own"
    made.mkdir()
    return made


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a distribution with an entry point, as pip would."""

    def install(name, module, text, entry, group="lockgate.plugins"):
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{name}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nany = {entry}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def problems(folder=None):
    with pytest.raises(ConfigError) as failure:
        Catalog.discover(folder)
    return failure.value.problems


def test_every_bundled_plugin_and_provider_is_found():
    catalog = Catalog.discover()
    bundled = {found.name: Path(found.origin) for found in (*catalog.plugins.values(), *catalog.providers.values())}
    assert {"api_keys", "request_log", "echo", "openai"} <= bundled.keys()
    assert bundled["api_keys"] == REPOSITORY / "plugins" / "api_keys.py"
    assert bundled["echo"] == REPOSITORY / "proxy" / "providers" / "echo"
    assert not catalog.absent


def test_every_file_of_the_bundled_plugins_holds_one_of_its_own_name():
    names = {path.stem for path in (REPOSITORY / "plugins").glob("[!_]*") if path.suffix == ".py" or path.is_dir()}
    found = Catalog.discover().plugins
    assert {name for name in found if found[name].source == "bundled"} == names


def test_a_file_in_the_folder_is_found_with_its_hooks(folder):
    (folder / "one.py").write_text(PLUGIN.format(cls="One", name="first"))
    found = Catalog.discover(folder).plugins["first"]
    assert (found.origin, found.source, found.version) == (str(folder / "one.py"), "folder", "7")
    assert found.hooks == ("on_request", "authenticate")
    assert found.summary == "Does first."


def test_a_provider_in_the_folder_is_found(folder):
    (folder / "far.py").write_text(PROVIDER.format(name="far"))
    assert Catalog.discover(folder).providers["far"].cls.native


def test_a_package_in_the_folder_is_found_and_may_have_modules_of_its_own(folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("from .inner import One\nfrom .words import WORD\nassert WORD == 1\n")
    (folder / "pack" / "inner.py").write_text(PLUGIN.format(cls="One", name="packed"))
    (folder / "pack" / "words.py").write_text("WORD = 1\n")
    assert Catalog.discover(folder).plugins["packed"].origin == str(folder / "pack")
    (folder / "pack" / "words.py").write_text("WORD = 22\n")
    assert "AssertionError" in problems(folder)[0], "a package is read anew, its own modules as well"


def test_private_files_and_tests_in_the_folder_are_left_alone(folder):
    for name in ("_shared.py", ".hidden.py", "test_one.py", "conftest.py", "notes.txt"):
        (folder / name).write_text("raise SystemExit('imported')")
    (folder / "__pycache__").mkdir()
    (folder / "data").mkdir()
    Catalog.discover(folder)


def test_classes_that_a_file_only_imports_are_not_its_own(folder):
    (folder / "one.py").write_text(PLUGIN.format(cls="One", name="first"))
    text = "import sys\nOther = sys.modules['lockgate_folder.one'].One\n" + PLUGIN.format(cls="Two", name="second")
    (folder / "two.py").write_text(text + "Alias = Two\n")
    assert {"first", "second"} <= Catalog.discover(folder).plugins.keys()


def test_a_changed_file_is_read_anew(folder):
    (folder / "one.py").write_text(PLUGIN.format(cls="One", name="before"))
    Catalog.discover(folder)
    (folder / "one.py").write_text(PLUGIN.format(cls="One", name="afterwards"))
    assert {"before", "afterwards"} & Catalog.discover(folder).plugins.keys() == {"afterwards"}


def test_a_bundled_file_is_loaded_once_for_all_gateways_of_a_process():
    assert Catalog.discover().plugins["api_keys"].cls is Catalog.discover().plugins["api_keys"].cls


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n\ndef f(:\n", "line 3: SyntaxError: invalid syntax"),
        ("\nimport json\njson.loads('[')\n", "line 3: JSONDecodeError: Expecting value: line 1 column 2 (char 1)"),
        ("\n\n\nimport nothing_like_it\n", "line 4: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told_with_its_line(folder, text, told):
    (folder / "broken.py").write_text(text)
    assert problems(folder) == [f"{folder}/broken.py: cannot be loaded: {told}"]


def test_a_file_without_a_plugin_is_told(folder):
    (folder / "empty.py").write_text("class Almost:\n    name = 'almost'\n    def on_request(self): ...\n")
    [problem] = problems(folder)
    assert problem.startswith(f"{folder}/empty.py: holds no plugin (a class with `name` and a method marked @hookimpl)")


def test_every_broken_file_is_told_at_once_and_the_others_are_found(folder):
    (folder / "a.py").write_text("1 / 0")
    (folder / "b.py").write_text(PLUGIN.format(cls="B", name="b"))
    (folder / "c.py").write_text("1 / 0")
    catalog, told = Catalog.search(folder)
    assert "b" in catalog.plugins
    assert [problem.partition(":")[0] for problem in told] == [f"{folder}/a.py", f"{folder}/c.py"]


def test_two_with_one_name_are_told_with_both_origins(folder):
    (folder / "mine.py").write_text(PLUGIN.format(cls="Mine", name="api_keys"))
    (folder / "other.py").write_text(PROVIDER.format(name="echo"))
    remedy = "rename or remove one of them"
    assert problems(folder) == [
        f"two are called 'api_keys': {REPOSITORY}/plugins/api_keys.py and {folder}/mine.py; {remedy}",
        f"two are called 'echo': {REPOSITORY}/proxy/providers/echo and {folder}/other.py; {remedy}",
    ]


def test_a_plugin_and_a_provider_may_share_a_name(folder):
    (folder / "a.py").write_text(PLUGIN.format(cls="A", name="same") + PROVIDER.format(name="same"))
    catalog = Catalog.discover(folder)
    assert catalog.plugins["same"].cls is not catalog.providers["same"].cls


@pytest.mark.parametrize("entry", ["lg_extra", "lg_extra:Extra"])
def test_an_installed_plugin_is_found_through_its_entry_point(installed, entry):
    installed("lg-extra", "lg_extra", PLUGIN.format(cls="Extra", name="extra"), entry)
    found = Catalog.discover().plugins["extra"]
    assert (found.source, found.version, found.origin) == ("entry point", "2.5", f"lg-extra 2.5 ({entry})")


def test_an_installed_provider_is_found_through_its_entry_point(installed):
    installed("lg-far", "lg_far", PROVIDER.format(name="far"), "lg_far:P", "lockgate.providers")
    assert Catalog.discover().providers["far"].source == "entry point"


def test_an_installed_plugin_that_cannot_be_loaded_is_told_with_its_package(installed):
    installed("lg-extra", "lg_extra", "1 / 0\n", "lg_extra:Extra")
    assert problems() == ["lg-extra 2.5 (lg_extra:Extra): cannot be loaded: ZeroDivisionError: division by zero"]


def test_an_entry_point_to_something_else_is_told(installed):
    installed("lg-extra", "lg_extra", "class Extra: ...\n", "lg_extra:Extra")
    assert problems()[0].startswith("lg-extra 2.5 (lg_extra:Extra): holds no plugin")


HOSTILE = 'raise SystemExit("a plugins package that is not ours was imported")'


@pytest.mark.parametrize("place", ["working directory", "module path", "imported before"])
def test_another_plugins_package_does_not_shadow_the_bundled_one(tmp_path, place):
    (tmp_path / "plugins").mkdir()
    innocent = place == "imported before"
    for name in ("__init__.py", "api_keys.py"):
        (tmp_path / "plugins" / name).write_text("" if innocent else HOSTILE)
    code = "from proxy.catalog import Catalog; print(Catalog.discover().plugins['api_keys'].origin)"
    before = f"import sys; sys.path.append({str(REPOSITORY)!r}); "
    if place == "module path":
        before += f"sys.path.insert(0, {str(tmp_path)!r}); "
    if innocent:
        before += "import plugins.api_keys; "
    flags = ["-P"] if place == "module path" else []
    done = subprocess.run(
        [sys.executable, *flags, "-c", before + code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(REPOSITORY / "plugins" / "api_keys.py"), done.stderr


def test_a_bundled_plugin_without_its_library_is_absent_and_stops_nothing(tmp_path, monkeypatch):
    from proxy import catalog

    vault = "import a_library_that_is_an_extra.inner\n" + PLUGIN.format(cls="Vault", name="vault")
    (tmp_path / "vault.py").write_text(vault)
    (tmp_path / "fine.py").write_text(PLUGIN.format(cls="Fine", name="fine"))
    monkeypatch.setattr(catalog, "BUNDLED", tmp_path)
    monkeypatch.setattr("proxy.shelf.requires", lambda _: ["a-library-that-is-an-extra>=3; extra == 'vault'"])
    found = Catalog.discover()
    assert found.plugins.get("vault") is None
    assert found.absent == {"vault": "needs the extra 'vault': pip install 'lockgate[vault]'"}
    assert "fine" in found.plugins
    monkeypatch.setattr("proxy.shelf.requires", lambda _: None)
    found = Catalog.discover()
    assert list(found.plugins) == ["fine"]
    assert found.absent["vault"] == "needs the Python module 'a_library_that_is_an_extra', which is not installed"
    for name in ("lockgate_plugins.vault", "lockgate_plugins.fine"):
        sys.modules.pop(name, None)
