"""What the documents say is what happens: their examples run, and what they name exists."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner
from gateways import ECHO, Gateway

from proxy import cli, config
from proxy.catalog import Catalog
from proxy.config import sections
from proxy.testing import Rig, configured

ROOT = Path(__file__).resolve().parent.parent
# The page of the configuration is made from the schemas and has no examples of its own.
GUIDES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "configuration.md"})]
DOCUMENTS = [*GUIDES, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROSE = {path: FENCE.sub("", path.read_text()) for path in DOCUMENTS}


class Example(NamedTuple):
    """A fenced block; `place` tells where it is."""

    place: str
    language: str
    text: str


def examples() -> Iterator[Example]:
    """Yield every block that has a language."""
    for path in GUIDES:
        text = path.read_text()
        for block in FENCE.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            yield Example(f"{path.relative_to(ROOT)}:{line}", block[1], block[2])


EXAMPLES = list(examples())
PYTHON = [example for example in EXAMPLES if example.language == "python"]
TESTS = [example for example in PYTHON if "def test_" in example.text]
# The guide's provider is a file that is tested on its own.
PROVIDERS = [example for example in PYTHON if re.search(r"^    def open\(self", example.text, re.M)]
PLUGINS = {
    name[1]: example
    for example in PYTHON
    if example not in PROVIDERS and (name := re.search(r'^    name = "(\w+)"$', example.text, re.M))
}
SDK = [example for example in PYTHON if "import OpenAI" in example.text]
TOML = [example for example in EXAMPLES if example.language == "toml"]
SHELL = [example for example in EXAMPLES if example.language == "sh"]


def place(example: Example) -> str:
    """Return the name of an example in the list of tests."""
    return example.place


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with every plugin of the documents, as an operator would have it."""
    folder = tmp_path / "plugins.d"
    folder.mkdir()
    for name, example in PLUGINS.items():
        (folder / f"{name}.py").write_text(example.text)
    return folder


def test_every_example_is_of_a_kind_that_is_tested() -> None:
    assert {example.language for example in EXAMPLES} == {"python", "toml", "sh"}
    assert sorted(PYTHON) == sorted([*TESTS, *PLUGINS.values(), *PROVIDERS, *SDK])
    assert set(PLUGINS) == {"cloud_keys", "codenames", "intranet"} | {check.__name__ for check in CHECKS}


def test_the_plugins_are_found_in_a_folder(shelf: Path) -> None:
    found = Catalog.discover(shelf).plugins
    assert {name for name, plugin in found.items() if plugin.source == "folder"} == set(PLUGINS)


@pytest.mark.parametrize("example", TESTS, ids=place)
def test_the_tests_pass(example: Example, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(shelf)
    space: dict[str, Any] = {}
    try:
        exec(compile(example.text, example.place, "exec"), space)
        tests = [name for name in space if name.startswith("test_")]
        assert tests
        for name in tests:
            space[name]()
    finally:
        for name in PLUGINS:
            sys.modules.pop(name, None)


def monitor_token(cls: Any) -> None:
    with Rig(configured(cls, token={"env": "SOME_TOKEN"}), identity=None) as rig:
        assert rig.run(headers={"authorization": "Bearer some-secret"}).exchange.identity.subject == "monitor"
        assert rig.run(headers={"authorization": "Bearer another"}).status == 401
        assert rig.run().status == 401


def moving(cls: Any) -> None:
    with Rig(cls) as rig:
        for stream in (False, True):
            result = rig.run(stream=stream)
            assert result.complete and result.text.endswith("at noon.")
            assert result.sent == []


def longest_answer(cls: Any) -> None:
    with Rig(cls) as rig:
        assert rig.run(answer="a" * 20_000, stream=True, split=1000).complete
        assert rig.run(answer="a" * 20_001).status == 502
        stopped = rig.run(answer="a" * 20_001, stream=True, split=1000)
        assert stopped.cut and stopped.error["code"] == "answer_too_long"


def tokens(cls: Any) -> None:
    with Rig(cls) as rig:
        rig.run()
        rig.run({"messages": []})
        lines = (rig.gateway.state / "tokens.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [{"team": "testers", "tokens": 7}]


CHECKS = (monitor_token, moving, longest_answer, tokens)


@pytest.mark.parametrize("check", CHECKS)
def test_the_plugins_do_what_the_guide_says(check: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "some-secret")
    check(Catalog.discover(shelf).plugins[check.__name__].cls)


@pytest.mark.parametrize("example", TOML, ids=place)
def test_the_configurations_are_right(example: Example, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r'env = "(\w+)"', example.text):
        monkeypatch.setenv(name, "some-secret-of-32-characters-and-more")
    file = shelf.parent / "lockgate.toml"
    file.write_text(example.text if "chain =" in example.text else ECHO + example.text)
    settings, _ = config.assemble(file)
    assert settings.chain


def test_the_curl_example_is_answered(gateway: Gateway) -> None:
    [command] = [example.text for example in SHELL if example.text.startswith("curl ")]
    _, url, *options = shlex.split(command.replace("\\\n", ""))
    pairs = zip(options[::2], options[1::2], strict=True)
    given = [(name, value.replace("$LOCKGATE_KEY", gateway.key)) for name, value in pairs]
    headers = dict(value.split(": ") for name, value in given if name == "-H")
    [body] = [value for name, value in given if name == "-d"]
    assert {name for name, _ in given} == {"-H", "-d"}
    with contextlib.closing(http.client.HTTPConnection(*gateway.address)) as connection:
        connection.request("POST", url.removeprefix("http://127.0.0.1:8080"), body, headers)
        response = connection.getresponse()
        answer = json.load(response)
    assert (response.status, answer["choices"][0]["message"]["content"]) == (200, "You said: Hello")


@pytest.mark.parametrize("example", SDK, ids=place)
def test_the_sdk_example_is_answered(
    example: Example, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKGATE_KEY", gateway.key)
    assert "http://127.0.0.1:8080" in example.text
    space: dict[str, Any] = {}
    exec(example.text.replace("http://127.0.0.1:8080", gateway.url), space)
    space["client"].close()
    assert capsys.readouterr().out.strip() == "You said: Hello"


def test_the_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LOCKGATE_")]:
        monkeypatch.delenv(name)
    commands = [line.split()[1:] for example in SHELL for line in example.text.splitlines() if line[:9] == "lockgate "]
    assert commands
    for command in commands:
        if "ID" in command:
            [key] = json.loads(CliRunner().invoke(cli.main, ["keys", "list", "--json"]).stdout)
            command[command.index("ID")] = key["id"]
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 0, f"{command}: {result.output}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_and_targets_that_are_named_exist(path: Path) -> None:
    with click.Context(cli.main) as context:
        commands = {name: cli.main.get_command(context, name) for name in cli.main.list_commands(context)}
        known = {*commands, *(name for command in commands.values() for name in getattr(command, "commands", ()))}
    for named in re.findall(r"`lockgate ([^`]+)`", path.read_text()):
        assert {word for word in re.split(r"[ |]+", named) if word.islower() and word[0] != "-"} <= known, named
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_and_options_that_are_named_exist(path: Path) -> None:
    text = PROSE[path]
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (path.parent / link).exists(), link
    there = {file.name for part in ("proxy", "plugins", "tests", "docs", "bench") for file in (ROOT / part).rglob("*")}
    there |= {file.name for file in ROOT.iterdir()}
    for named in re.findall(r"`([\w./]+\.(?:py|md|toml|cfg|lock))`", text):
        ours = named in there or (ROOT / named).exists() or (ROOT / "proxy" / named).exists()
        assert ours or named == "lockgate.toml" or named.startswith("plugins.d/"), named
    options = re.findall(r"`server\.(?!py`)([a-z_]+)", text)
    assert set(options) <= {*sections.ServerSchema().fields, "state"}


def test_the_map_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    core = ROOT / "proxy"
    folders = [core, *(path for path in core.iterdir() if (path / "__init__.py").exists() and path.name != "testing")]
    modules = [path.name for folder in folders for path in folder.glob("*.py")]
    assert [name for name in modules if f"`{name}`" not in text] == []


def test_the_floors_are_those_of_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    floors = dict(re.findall(r"^([a-z0-9]+)>=([\d.]+)", setup["options"]["install_requires"], re.MULTILINE))
    told = re.findall(r"(gunicorn|requests|urllib3|Flask|Werkzeug) ([\d.]+\d)", (ROOT / "SECURITY.md").read_text())
    assert len(told) == 5
    assert {name.lower(): version for name, version in told}.items() <= floors.items()
    assert f"## {setup['metadata']['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_license_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.strip().startswith("Apache License") and "END OF TERMS AND CONDITIONS" in text
