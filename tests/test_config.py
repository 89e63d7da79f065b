"""The configuration file: what it may say, what is told about its mistakes, and what is never shown."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from proxy import config
from proxy.catalog import Catalog
from proxy.cli.listing import as_toml
from proxy.errors import ConfigError
from proxy.secrets import Secret
from proxy.serving import address
from proxy.settings import Target, Timeouts

REPOSITORY = Path(__file__).resolve().parent.parent
BASE = """
chain = ["keys"]
[plugins.keys]
use = "api_keys"
"""
OPEN = 'chain = []\n[server]\ninsecure = true\nbind = "127.0.0.1:1"\n'


@pytest.fixture
def load(tmp_path):
    """Loads a text as the configuration file."""

    def load(text):
        (tmp_path / "lockgate.toml").write_text(text)
        return config.assemble(tmp_path / "lockgate.toml")[0]

    return load


@pytest.fixture
def problems(load):
    """Returns what is wrong with a text as the configuration file."""

    def problems(text):
        with pytest.raises(ConfigError) as failure:
            load(text)
        return failure.value.problems

    return problems


def test_without_a_file_there_is_an_echo_model_behind_keys_on_loopback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = config.load(None, Catalog.discover())
    assert settings.path is None
    assert settings.chain == ("keys",)
    assert settings.plugins["keys"].use == "api_keys"
    assert settings.models["echo"].targets == (Target("echo"),)
    assert settings.server.bind == "127.0.0.1:8080"
    assert settings.server.state == tmp_path / "var"
    assert settings.server.workers >= 2
    assert not list(tmp_path.iterdir()), "loading makes nothing"


def test_every_section_of_a_full_file_arrives(load, tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-1")
    settings = load("""
        chain = ["keys"]
        [server]
        bind = "[::1]:8443"
        state = "state"
        worker = "gevent"
        workers = 3
        threads = 7
        heartbeat = 5
        proxied = true
        [egress]
        proxy = "http://proxy.example:3128"
        no_proxy = ["localhost", "10.0.0.0/8"]
        timeouts = { connect = 1, idle = 2.5 }
        [plugins.keys]
        use = "api_keys"
        [providers.far]
        use = "openai"
        api_key = { env = "UPSTREAM_KEY" }
        pool_size = 9
        timeouts = { idle = 3 }
        [models."gpt-*"]
        targets = ["far", "far/org/gpt-5.2"]
        chain = []
        public = true
        parameters = ["top_k"]
        timeouts = { total = 30 }
    """)
    assert (settings.server.bind, settings.server.state) == ("[::1]:8443", tmp_path / "state")
    assert (settings.server.workers, settings.server.threads, settings.server.proxied) == (3, 7, True)
    assert settings.egress.timeouts == Timeouts(connect=1, idle=2.5)
    far = settings.providers["far"]
    assert far.options is not None and far.options["api_key"].value() == "sk-1"
    assert far.connection.proxy == "http://proxy.example:3128"
    assert far.connection.no_proxy == ("localhost", "10.0.0.0/8")
    assert far.connection.pool_size == 9
    assert far.connection.timeouts == Timeouts(connect=1, idle=3), "the provider's over those of [egress]"
    model = settings.models["gpt-*"]
    assert model.targets == (Target("far"), Target("far", "org/gpt-5.2"))
    assert (model.chain, model.public, model.parameters, model.timeouts) == ((), True, ("top_k",), {"total": 30})


def test_all_mistakes_are_told_at_once_with_paths_and_remedies(problems):
    known = sorted(Catalog.discover().plugins)
    assert problems("""
        chian = []
        chain = ["kees", "keys", "keys"]
        [server]
        worker = "asgi"
        workers = "two"
        threads = true
        insecure = "no"
        heartbeat = 0
        [plugins.keys]
        use = "api_keys"
        burst = 1
        [plugins.other]
        use = "api_keyz"
        [plugins.nothing]
        [providers.echo]
        use = "echo"
        delay_mss = 3
        timeouts = { totl = 1 }
        [models."gpt-*"]
        targets = ["echo/", "eco"]
        web_serch = true
        [models.empty]
        targets = []
    """) == [
        "chian: unknown key; did you mean 'chain'?",
        "server.insecure: must be true or false",
        "server.worker: must be one of threads, gevent",
        "server.workers: must be a whole number",
        "server.threads: must be a whole number",
        "server.heartbeat: must be greater than 0 and less than or equal to 86400",
        "plugins.keys.burst: unknown key; there are none here",
        "plugins.other.use: there is no plugin called 'api_keyz'; did you mean 'api_keys'?",
        f'plugins.nothing.use: missing; add use = "{known[0]}"; known: {", ".join(known)}',
        "providers.echo.delay_mss: unknown key; did you mean 'delay_ms'?",
        "providers.echo.timeouts.totl: unknown key; did you mean 'total'?",
        "models.\"gpt-*\".targets[0]: no model after the slash: 'echo/'",
        "models.\"gpt-*\".web_serch: unknown key; did you mean 'web_search'?",
        "models.\"gpt-*\".targets: no provider is called 'eco'; did you mean 'echo'?",
        "models.empty.targets: must not be empty",
        "chain[0]: no plugin is configured as 'kees'; did you mean 'keys'?",
        "chain[2]: 'keys' is in the chain twice; configure another one for that",
    ]


def test_a_plugin_file_that_cannot_be_loaded_is_told_beside_the_file_s_own_mistakes(problems, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "broken.py").write_text("x = 1\nimport no_such_module\n")
    found = problems(BASE + '[plugins.b]\nuse = "broken"\n[server]\nplugins_dir = "own"\nstat = "x"\n')
    assert found == [
        f"{tmp_path}/own/broken.py: cannot be loaded: line 2: ModuleNotFoundError: No module named 'no_such_module'",
        "server.stat: unknown key; did you mean 'state'?",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("chain = [\n\n[server]\n", "line 3"),
        ("chain = []\nchain = []\n", "line 2, column"),
        ("a = 1\nb 2\n", "line 2, column 3"),
        ("a = '", "line 1 (its end)"),
    ],
)
def test_a_syntax_error_is_told_with_its_line(problems, tmp_path, text, where):
    [problem] = problems(text)
    assert problem.startswith(f"{tmp_path}/lockgate.toml, {where}")
    assert "not TOML" in problem


def test_a_file_that_is_not_text_or_not_there_is_told(tmp_path):
    path = tmp_path / "lockgate.toml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.assemble(path)
    path.write_bytes(b'chain = []\nx = "\xff"\n')
    with pytest.raises(ConfigError, match="line 2: not UTF-8 text"):
        config.assemble(path)


def test_a_byte_order_mark_and_crlf_do_no_harm(tmp_path):
    path = tmp_path / "lockgate.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert config.assemble(path)[0].chain == ("keys",)


@pytest.mark.parametrize("section", ["server", "egress", "keys", "plugins", "providers", "models"])
def test_a_section_that_is_no_table_is_told(problems, section):
    found = problems(f"{section} = 3\n{BASE}" if section != "plugins" else "plugins = 3\nchain = []\n")
    assert any(problem.startswith(f"{section}: must ") for problem in found), found


@pytest.mark.parametrize("kind", ["plugins", "providers", "models"])
def test_an_entry_that_is_no_table_is_told(problems, kind):
    text = "chain = []\n[server]\ninsecure = true\n"
    [problem] = problems(f"{text}[{kind}]\nx = 1\n")
    assert problem.startswith(f"{kind}.x: must be a table of its own")


@given(
    st.recursive(st.booleans() | st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner), max_leaves=3)
)
def test_no_value_in_any_place_breaks_the_check(value):
    from proxy.config.connection import ConnectionSchema
    from proxy.config.document import Document
    from proxy.config.models import ModelSchema
    from proxy.config.reading import Reading
    from proxy.config.sections import FileSchema, KeysSchema, ServerSchema

    sections = {"server": ServerSchema, "egress": ConnectionSchema, "keys": KeysSchema}
    tables = {name: dict.fromkeys(schema().fields, value) for name, schema in sections.items()}
    named = {
        "models": dict.fromkeys(ModelSchema().fields, value),
        "plugins": {"use": value},
        "providers": {"use": value},
    }
    top = dict.fromkeys(FileSchema().fields, value)
    for table in (top, top | tables | {kind: {"x": entry} for kind, entry in named.items()}):
        _, problems = Reading(Catalog()).settings(Document("", table, None, Path("/")))
        assert problems


def test_relative_paths_start_at_the_file_s_folder_and_not_at_the_working_directory(load, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "pepper").write_text("p" * 40 + "\n")
    (tmp_path / "own").mkdir()
    settings = load(BASE + '[keys]\npepper = { file = "pepper" }\n[server]\nplugins_dir = "own"\nstate = "x/../y"\n')
    assert settings.pepper is not None and settings.pepper.reveal() == "p" * 40
    assert settings.server.plugins_dir == tmp_path / "own"
    assert settings.server.state == tmp_path / "y"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ('"sk-plain"', 'a secret is not written here: use { env = "NAME" } or { file = "/path" }'),
        ("3", 'must be { env = "NAME" } or { file = "/path" }'),
        ("{}", 'must be { env = "NAME" } or { file = "/path" }'),
        ('{ env = "A", file = "b" }', 'must be { env = "NAME" } or { file = "/path" }'),
        ('{ vault = "a" }', 'must be { env = "NAME" } or { file = "/path" }'),
        ('{ env = "NOT_SET_AT_ALL" }', "environment variable NOT_SET_AT_ALL is not set: set it before Lockgate starts"),
        ('{ env = "BLANK" }', "environment variable BLANK is empty"),
        ('{ file = "missing" }', "{folder}/missing does not exist"),
        ('{ file = "." }', "{folder} is not a file"),
        ('{ file = "empty" }', "{folder}/empty is empty"),
        ('{ file = "binary" }', "{folder}/binary is not UTF-8 text"),
        ('{ file = "fifo" }', "{folder}/fifo is not a file"),
    ],
)
def test_a_secret_that_is_not_there_is_told_with_a_remedy(problems, tmp_path, monkeypatch, value, remedy):
    monkeypatch.setenv("BLANK", " \n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "fifo")
    found = problems(f'{BASE}[providers.p]\nuse = "openai"\napi_key = {value}\n')
    assert found == ["providers.p.api_key: " + remedy.replace("{folder}", str(tmp_path))]


@pytest.mark.parametrize("step", ["stat", "open"])
def test_a_file_that_may_not_be_read_is_told(problems, tmp_path, monkeypatch, step):
    # Simulated: the superuser, who may run the tests, may read everything.
    (tmp_path / "secret").write_text("s")
    real = getattr(Path, step)

    def refuse(path, *arguments, **options):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, step, refuse)
    [problem] = problems(f'{BASE}[providers.p]\nuse = "openai"\napi_key = {{ file = "secret" }}\n')
    assert problem.startswith(f"providers.p.api_key: {tmp_path}/secret cannot be re")
    assert "Permission denied" in problem


def test_a_secret_is_shown_nowhere(load, tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-hidden")
    monkeypatch.setenv("PROXY", "http://user:pw-hidden@proxy.example:3128")
    (tmp_path / "pepper").write_text("hidden" * 10)
    settings = load(
        'chain = ["keys"]\n[keys]\npepper = { file = "pepper" }\n[plugins.keys]\nuse = "api_keys"\n'
        '[egress]\nproxy = { env = "PROXY" }\n'
        '[providers.p]\nuse = "openai"\napi_key = { env = "UPSTREAM_KEY" }\n'
    )
    secret = settings.pepper
    assert secret is not None
    shown = [
        repr(settings),
        str(settings),
        as_toml(settings),
        f"{secret}",
        f"{secret!r:>9}",
        "".join(map(str, [secret])),
    ]
    assert not [text for text in shown if "hidden" in text]
    assert "http://***@proxy.example:3128" in as_toml(settings)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert copy.deepcopy(settings.providers["p"].options) == settings.providers["p"].options
    assert secret == Secret("hidden" * 10) and secret != Secret("other") and secret != "hidden" * 10


def test_what_check_prints_is_a_configuration_again(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = as_toml(load(BASE + '[providers.echo]\nuse = "echo"\n[models."a.b\\"c*"]\ntargets = ["echo/x"]\n'))
    assert as_toml(load(text)) == text


def test_a_pepper_that_could_be_guessed_is_refused(problems, monkeypatch):
    monkeypatch.setenv("PEPPER", "short")
    [problem] = problems(BASE + '[keys]\npepper = { env = "PEPPER" }\n')
    assert problem.startswith("keys.pepper: must have at least 32 characters") and "short" not in problem


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ('"http://user:pw@proxy:1"', "a password is not written here: put the whole URL into"),
        ('"socks5://proxy:1"', "http and https are spoken"),
        ('"proxy:3128"', "http and https are spoken"),
        ('"http://proxy:port"', "must be a URL"),
        ("1", 'must be { env = "NAME" }'),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told(problems, value, remedy):
    [problem] = problems(f"{BASE}[egress]\nproxy = {value}\n")
    assert problem.startswith("egress.proxy: ") and remedy in problem and "pw" not in problem


def test_certificates_are_tried_before_they_are_needed(problems, load, tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    mine = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.issue_cert("x.example").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "text").write_text("no certificate")
    good = '[egress]\nca_file = "ca.pem"\nclient_cert = "cert.pem"\nclient_key = "key.pem"\n'
    assert load(BASE + good).egress.client_key == tmp_path / "key.pem"
    found = problems(
        BASE
        + good
        + """
        [providers.a]
        use = "openai"
        ca_file = "text"
        client_cert = "cert.pem"
        client_key = "other.pem"
        [providers.b]
        use = "openai"
        ca_file = "nowhere.pem"
        client_cert = "cert.pem"
        """
    )
    assert found == [
        f"providers.a.ca_file: {tmp_path}/text does not hold certificates in PEM form",
        f"providers.a.client_cert: {tmp_path}/cert.pem and {tmp_path}/other.pem must be a certificate and its key in "
        "PEM form, the key without a password",
        f"providers.b.ca_file: {tmp_path}/nowhere.pem does not exist",
        f"providers.b.client_cert: {tmp_path}/cert.pem must hold a certificate and its key (or name the key as "
        "client_key) in PEM form, the key without a password",
    ]
    assert problems(BASE + '[egress]\nclient_key = "key.pem"\n') == ["egress.client_key: has no client_cert to go with"]


@pytest.mark.parametrize(
    ("bind", "remedy"),
    [
        ("8080", 'must be "HOST:PORT"'),
        (":8080", 'must be "HOST:PORT"'),
        ("127.0.0.1:http", "'http' is not a port"),
        ("127.0.0.1:65536", "'65536' is not a port"),
        ("::1:8080", "an IPv6 address is written in brackets"),
        ("http://a:80", "is not a host"),
        ("unix:", 'must be "unix:/PATH"'),
        ("unix:/no/such/folder/s", "the folder /no/such/folder does not exist"),
        ("unix:/" + "x" * 120, "at most 107 bytes"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told(problems, bind, remedy):
    [problem] = problems(f'{BASE}[server]\nbind = "{bind}"\n')
    assert problem.startswith("server.bind: ") and remedy in problem


def test_the_path_of_a_socket_starts_at_the_file_s_folder(load, tmp_path):
    assert load(f'{BASE}[server]\nbind = "unix:s"\n').server.bind == f"unix:{tmp_path}/s"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_known(host):
    assert address.is_loopback((host, 80))


@pytest.mark.parametrize("where", [("0.0.0.0", 80), ("::", 80), ("10.0.0.1", 80), ("example.com", 80), "/run/s", None])
def test_what_others_may_reach_is_not_loopback(where):
    assert not address.is_loopback(where)


def test_a_gateway_that_lets_everybody_in_needs_loopback_and_a_word(problems, load, tmp_path):
    assert load(OPEN).server.insecure
    assert load(OPEN.replace("127.0.0.1", "[::1]")).server.insecure
    assert problems("chain = []\n")[0].startswith("chain: nobody would be authenticated: put a plugin")
    log = 'chain = ["log"]\n[plugins.log]\nuse = "request_log"\n'
    assert problems(log)[0].startswith("chain: nobody would be authenticated"), "a plugin that does not authenticate"
    for bind in ("0.0.0.0:1", "[::]:1", "10.1.2.3:1", f"unix:{tmp_path}/s"):
        [problem] = problems(OPEN.replace("127.0.0.1:1", bind))
        assert problem.startswith("server.insecure: is for loopback only")


def test_insecure_is_refused_off_loopback_whatever_the_chain(problems):
    [problem] = problems(BASE + '[server]\ninsecure = true\nbind = "0.0.0.0:80"\n')
    assert problem.startswith("server.insecure: is for loopback only")


def test_a_model_s_own_chain_authenticates_nobody(problems):
    text = 'chain = []\n[plugins.keys]\nuse = "api_keys"\n[providers.e]\nuse = "echo"\n'
    assert problems(text + '[models.m]\ntargets = ["e"]\nchain = ["keys"]\n')[0].startswith("chain: nobody")


def test_the_file_is_named_by_the_environment_or_lies_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCKGATE_CONFIG", raising=False)
    assert config.locate() is None
    (tmp_path / "lockgate.toml").touch()
    assert config.locate() == tmp_path / "lockgate.toml"
    monkeypatch.setenv("LOCKGATE_CONFIG", "other.toml")
    assert config.locate() == tmp_path / "other.toml", "also where it does not exist: it was asked for"


def test_a_copy_for_workers_reads_as_the_file_it_was_made_of(tmp_path, monkeypatch):
    home, copies = tmp_path / "home", tmp_path / "copies"
    (home / "own").mkdir(parents=True)
    (copies / "plugins").mkdir(parents=True)
    text = BASE + '[server]\nplugins_dir = "own"\nstate = "state"\n'
    for folder in (home, copies):
        (folder / "lockgate.toml").write_text(text)
    (copies / "origin.json").write_text(json.dumps({"path": str(home / "lockgate.toml"), "folder": str(home)}))
    monkeypatch.setenv("LOCKGATE_ACTIVE", str(copies / "lockgate.toml"))
    settings, _ = config.assemble(copies / "lockgate.toml")
    assert settings.path == home / "lockgate.toml"
    assert settings.server.state == home / "state"
    assert settings.server.plugins_dir == copies / "plugins"


def test_the_reference_in_the_documentation_is_current():
    done = subprocess.run([sys.executable, REPOSITORY / "docs" / "generate.py", "--check"], check=False)
    assert done.returncode == 0, "run: python docs/generate.py"


def test_every_key_has_help():
    from proxy.config import connection, models, reference, sections

    schemas = (sections.FileSchema, sections.ServerSchema, connection.ConnectionSchema, sections.KeysSchema)
    rows = [row for schema in (*schemas, models.ModelSchema) for row in reference.options(schema)]
    assert not [row.key for row in rows if not row.help]


def test_a_weighted_target_and_a_provider_of_its_own_kind_are_printed_as_they_were_written(load):
    text = BASE + '[providers.e]\nuse = "echo"\n[models.m]\ntargets = ["e", { to = "e/x", weight = 2 }]\n'
    printed = as_toml(load(text))
    assert 'targets = ["e", { to = "e/x", weight = 2 }]' in printed
    assert as_toml(load(printed)) == printed
