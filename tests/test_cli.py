"""The command line as people use it, and the first start without a configuration."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0
FILE = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
[plugins.log]
use = "request_log"
[providers.echo]
use = "echo"
[models.all]
targets = ["echo"]
[models.one]
targets = ["echo/x"]
chain = ["log"]
"""
HERE = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); "
COMMAND = [sys.executable, "-c", HERE + "from proxy.cli import main; main()"]


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKGATE_", "GUNICORN_"))}
    return kept | {"COLUMNS": "200"} | more


@pytest.fixture
def lockgate(tmp_path):
    """Runs the command in an empty folder."""

    def run(*arguments, **env):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(**env),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return run


@pytest.fixture
def file(tmp_path):
    """A right configuration."""
    path = tmp_path / "lockgate.toml"
    path.write_text(FILE)
    return path


def test_check_says_that_a_right_file_is_right_and_makes_nothing(lockgate, file, tmp_path):
    done = lockgate("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file} is right.\n", "")
    assert list(tmp_path.iterdir()) == [file]


def test_check_lists_every_problem_and_ends_with_1(lockgate, file):
    file.write_text(FILE + "[server]\nworkers = 0\nthread = 1\n")
    done = lockgate("check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"lockgate: 2 problems in {file}:\n"
        "  server.workers: must be greater than or equal to 1 and less than or equal to 512\n"
        "  server.thread: unknown key; did you mean 'threads'?\n"
    )


def test_check_prints_the_effective_settings_with_masked_secrets(lockgate, file):
    file.write_text(FILE + '[keys]\npepper = { env = "PEPPER" }\n')
    done = lockgate("check", "--print", PEPPER="p" * 40)
    assert done.returncode == 0
    assert 'pepper = "***"' in done.stdout and "pppp" not in done.stdout
    assert "threads = 100" in done.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os; os._exit(7)", "the check ended without an answer (exit code 7)"),
        ("import os; os.kill(os.getpid(), 9)", "the check ended without an answer (signal 9)"),
        ("raise SystemExit", "own/odd.py: cannot be loaded: line 1: SystemExit"),
    ],
)
def test_check_outlives_a_plugin_that_ends_the_process(lockgate, file, tmp_path, text, told):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "odd.py").write_text(text)
    file.write_text(FILE + '[server]\nplugins_dir = "own"\n')
    done = lockgate("check")
    assert done.returncode == 1 and told in done.stderr


def test_check_is_not_misled_by_plugins_that_print(lockgate, file, tmp_path):
    (tmp_path / "own").mkdir()
    text = "import os\nprint('{}')\nos.write(1, b'[]\\n')\n"
    plugin = "from proxy import hookimpl\nclass Loud:\n    name = 'loud'\n    @hookimpl\n    def on_stop(self): ...\n"
    (tmp_path / "own" / "loud.py").write_text(text + plugin)
    file.write_text(FILE + '[server]\nplugins_dir = "own"\n')
    done = lockgate("check")
    assert (done.returncode, done.stdout) == (0, f"{file} is right.\n")


def test_check_finds_a_plugin_that_breaks_the_contract_or_cannot_be_made(lockgate, file, tmp_path):
    (tmp_path / "own").mkdir()
    head = "from proxy import hookimpl\n"
    (tmp_path / "own" / "typo.py").write_text(
        head + "class Typo:\n    name = 'typo'\n    @hookimpl\n    def on_requst(self, exchange): ...\n"
    )
    (tmp_path / "own" / "sick.py").write_text(
        head
        + "class Sick:\n    name = 'sick'\n    def __init__(self): 1 / 0\n    @hookimpl\n    def on_stop(self): ...\n"
    )
    file.write_text(
        FILE.replace('"keys"]', '"keys", "typo"]') + '[server]\nplugins_dir = "own"\n[plugins.typo]\nuse = "typo"\n'
    )
    done = lockgate("check")
    assert done.returncode == 1 and "plugins.typo" in done.stderr and "on_requst" in done.stderr
    file.write_text(file.read_text().replace(', "typo"', "") + '[plugins.sick]\nuse = "sick"\n')
    done = lockgate("check")
    assert done.returncode == 1
    assert "plugins.sick: cannot be made: ZeroDivisionError: division by zero" in done.stderr


def test_another_file_is_named_by_option_or_environment(lockgate, file, tmp_path):
    file.rename(tmp_path / "other.toml")
    assert lockgate("check", "--config", "other.toml").stdout == f"{tmp_path}/other.toml is right.\n"
    assert lockgate("check", LOCKGATE_CONFIG="other.toml").stdout == f"{tmp_path}/other.toml is right.\n"
    assert lockgate("check").stdout == "The built-in configuration is right.\n"
    done = lockgate("models", "--config", "nowhere.toml")
    assert done.returncode == 1 and "nowhere.toml: cannot be read: No such file or directory" in done.stderr


def test_models_lists_targets_and_chains_in_order(lockgate, file):
    rows = {row["pattern"]: row for row in json.loads(lockgate("models", "--json").stdout)}
    assert rows["all"]["chain"] == [{"name": "keys", "use": "api_keys", "hooks": ["on_start", "authenticate"]}]
    assert not rows["all"]["own_chain"] and rows["one"]["own_chain"]
    assert [entry["name"] for entry in rows["one"]["chain"]] == ["log"]
    assert rows["one"]["targets"] == ["echo/x"]
    table = lockgate("models").stdout
    assert "echo/x" in table and "log (" in table


def test_plugins_lists_origin_hooks_and_options(lockgate, file, tmp_path):
    (tmp_path / "own").mkdir()
    assert lockgate("new-plugin", "most_messages", "--dir", "own").returncode == 0
    file.write_text(FILE + '[server]\nplugins_dir = "own"\n[plugins.most]\nuse = "most_messages"\n')
    rows = {row["name"]: row for row in json.loads(lockgate("plugins", "--json").stdout)}
    assert rows["most_messages"]["hooks"] == ["on_request"]
    assert rows["most_messages"]["configured"] == ["most"]
    assert rows["most_messages"]["origin"] == str(tmp_path / "own" / "most_messages.py")
    assert rows["most_messages"]["options"] == [
        {
            "key": "most_messages",
            "type": "whole number, at least 1",
            "default": "100",
            "required": False,
            "help": "the most messages that one request may have",
        }
    ]
    assert rows["api_keys"]["source"] == "bundled"
    table = lockgate("plugins").stdout
    for text in ("most_messages", "the most messages that one request may have", "bundled: ", "configured as"):
        assert text in table


def test_providers_lists_them(lockgate, file):
    rows = {row["name"]: row for row in json.loads(lockgate("providers", "--json").stdout)}
    assert rows["echo"]["configured"] == ["echo"] and rows["openai"]["native"]
    assert "delay_ms" in lockgate("providers").stdout


def test_a_new_plugin_and_its_test_work_at_once(lockgate, tmp_path):
    done = lockgate("new-plugin", "no_images", "--dir", "own")
    assert done.returncode == 0 and 'use = "no_images"' in done.stdout
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "own/test_no_images.py"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout
    folder = tmp_path / "own"
    (tmp_path / "lockgate.toml").write_text(
        FILE + f'[server]\nplugins_dir = "{folder}"\n[plugins.n]\nuse = "no_images"\n'
    )
    assert lockgate("check").returncode == 0


def test_a_new_plugin_is_never_written_over_another(lockgate, tmp_path):
    lockgate("new-plugin", "mine")
    (tmp_path / "mine.py").write_text("precious")
    done = lockgate("new-plugin", "mine")
    assert done.returncode == 1 and "mine.py: exists already" in done.stderr
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize("name", ["No", "a-b", "class", "../x", "test_x", "", "é"])
def test_a_name_that_is_no_module_s_is_not_understood(lockgate, tmp_path, name):
    assert lockgate("new-plugin", "--", name).returncode == 2
    assert not list(tmp_path.iterdir())


def test_what_is_not_understood_ends_with_2(lockgate):
    assert lockgate("chekc").returncode == 2
    assert lockgate("check", "--no-such").returncode == 2


def test_the_version_is_told(lockgate):
    assert lockgate("--version").stdout.startswith("lockgate ")


def test_the_group_for_keys_is_there(lockgate):
    done = lockgate("keys", "--help")
    assert done.returncode == 0 and "create" in done.stdout


def test_starting_the_command_line_imports_neither_database_nor_flask():
    code = "import proxy.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", HERE + code], capture_output=True, text=True, check=True)
    heavy = {"sqlalchemy", "flask", "requests", "rich", "alembic", "gunicorn", "plugins"}
    assert not heavy & set(done.stdout.split())


def test_a_start_with_mistakes_lists_them_and_ends_with_1_before_it_binds(lockgate, file, tmp_path):
    file.write_text(FILE.replace('"api_keys"', '"api_keyz"'))
    done = lockgate("serve")
    assert done.returncode == 1
    assert "plugins.keys.use: there is no plugin called 'api_keyz'; did you mean 'api_keys'?" in done.stderr
    assert "Traceback" not in done.stderr and "Listening" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_start_without_a_usable_state_folder_says_so(lockgate, file, tmp_path):
    (tmp_path / "var").write_text("not a folder")
    done = lockgate("serve")
    assert done.returncode == 1 and f"server.state: {tmp_path}/var is not a folder" in done.stderr


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "unix:s"])
def test_insecure_cannot_be_carried_off_loopback_by_an_option_of_gunicorn(lockgate, file, bind):
    file.write_text(FILE.replace('chain = ["keys"]', "chain = []") + "[server]\ninsecure = true\n")
    done = lockgate("serve", "--", "--bind", bind)
    assert done.returncode == 1 and "gunicorn was told to listen elsewhere" in done.stderr


class First:
    """A start without a configuration file, in a copy of the built-in one's port; ends with the block."""

    def __init__(self, folder, output):
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--", "--bind", "127.0.0.1:0"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)

    def wait_for(self, pattern):
        """Read the log until it matches."""
        assert self.process.stderr is not None
        while not (found := re.search(pattern, self.log)):
            line = self.process.stderr.readline()
            assert line, self.log
            self.log += line
        return found

    def ask(self, key):
        """Return the echo's answer."""
        url = self.wait_for(r"Listening at: (http://\S+)")[1]
        body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]


def test_a_first_start_without_a_terminal_writes_the_key_to_a_private_file(tmp_path):
    with First(tmp_path, subprocess.DEVNULL) as first:
        path = Path(first.wait_for(r"The first key was written to (\S+):")[1])
        assert path == tmp_path / "var" / "first-key"
        assert path.stat().st_mode & 0o777 == 0o600
        key = path.read_text().strip()
        assert "Hello" in first.ask(key)
        assert key not in first.log
    path.unlink()
    with First(tmp_path, subprocess.DEVNULL) as second:
        second.wait_for("Listening")
        assert "Hello" in second.ask(key), "the key is kept"
    assert not path.exists(), "and there is no second one"


def test_a_first_start_on_a_terminal_shows_the_key_once_with_a_curl_line(tmp_path):
    ours, theirs = pty.openpty()
    try:
        with First(tmp_path, theirs) as first:
            first.wait_for("Listening")
            shown = ""
            while not (found := re.search(r"(lg_\w+)\s.*curl .*\n\s*\n", shown, re.S)):
                assert select.select([ours], [], [], PATIENCE_S)[0], shown
                shown += os.read(ours, 65536).decode()
            assert "Hello" in first.ask(found[1])
            assert f"Authorization: Bearer {found[1]}" in shown
            assert "http://127.0.0.1:8080/v1/chat/completions" in shown
        assert not (tmp_path / "var" / "first-key").exists()
    finally:
        os.close(ours)
        os.close(theirs)


def test_with_a_file_no_key_is_made(tmp_path, file):
    with First(tmp_path, subprocess.DEVNULL) as first:
        first.wait_for("Listening")
    assert not (tmp_path / "var" / "first-key").exists()


@pytest.mark.parametrize("how", ["command", "plain gunicorn in a source tree"])
def test_foreign_packages_in_the_working_directory_are_not_imported(tmp_path, how):
    tree = tmp_path / "tree"
    if how == "command":
        tree.mkdir()
        for name in ("proxy", "plugins"):
            (tree / name).mkdir()
            (tree / name / "__init__.py").write_text("raise SystemExit('a foreign package')")
        command = [*COMMAND, "serve"]
    else:
        tree.mkdir()
        for name in ("proxy", "plugins"):
            shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "gunicorn.conf.py", tree)
        command = [sys.executable, "-P", "-m", "gunicorn"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tree / "lockgate.toml").write_text(f'{FILE}[server]\nbind = "127.0.0.1:{port}"\n')
    process = subprocess.Popen(command, cwd=tree, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    try:
        while "Booting worker" not in log:
            line = process.stderr.readline()
            assert line, log
            log += line
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert "foreign" not in log
