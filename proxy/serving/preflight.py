"""What happens before gunicorn binds or reloads, in a process of its own: the check, the database, the workers' copy.

A process of its own because importing plugins has effects that nobody can take back: a plugin may end or block the
process, start threads, or stay in memory in its old version.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy import config
from proxy.catalog import Catalog
from proxy.config.document import ORIGIN, PLUGINS, Document
from proxy.errors import ConfigError
from proxy.serving import address
from proxy.settings import Settings


def main() -> None:
    """Answer the master: the check at once, and after a line on stdin (none: not wanted) what the preparation did.

    The argument is a JSON object: `path` of the file or null; `serving`, what runs now, at a reload; `show` to have the
    settings listed; `quick` to leave to the workers what costs as much time as their own start. The line on stdin is
    one, too: the copy for workers is number `number` of the master with the process id `master`. Each answer is one
    line of JSON, in which `problems` lists what is wrong.
    """
    preflight = Preflight(json.loads(sys.argv[1]))
    # Plugins may print while they are imported, and that must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer = _outcome(preflight.check)
    print(json.dumps(answer), file=answers, flush=True)
    line = ""
    if not answer["problems"]:
        _import_ahead()
        line = sys.stdin.readline()
    if line:
        answer = _outcome(lambda: preflight.prepare(**json.loads(line)))
        print(json.dumps(answer), file=answers, flush=True)
    sys.stderr.flush()
    os._exit(0)  # whatever threads and handlers plugins have started


def _import_ahead() -> None:
    """Import what `prepare` needs while the master is busy itself: it may not ask for it, and then nothing is lost."""
    for module in ("proxy.access.keys", "proxy.records.audit", "proxy.records.sqlite"):
        importlib.import_module(module)


def _outcome(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return step()
    except ConfigError as failure:
        return {"problems": failure.problems}
    except Exception as failure:
        traceback.print_exc()
        return {"problems": [f"the check itself failed: {type(failure).__name__}: {failure}"]}


class Preflight:
    """One run, for what the master has asked."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.document: Document
        self.settings: Settings

    def check(self) -> dict[str, Any]:
        """Check the file, its plugins and their chains; return what gunicorn must know of it."""
        self.document = Document.read(Path(self.request["path"]) if self.request["path"] else None)
        self.settings, catalog = config.build(self.document)
        server, serving = self.settings.server, self.request.get("serving")
        problems = _instances(self.settings, catalog) + _elsewhere(self.settings)
        if not problems and not self.request.get("quick"):
            from proxy.gateway import Gateway

            problems += _expired(self.settings)
            Gateway(self.settings, catalog)
        if serving is not None and serving["worker"] != server.worker:
            problems.append("server.worker: cannot be changed by a reload: restart Lockgate")
        if serving is not None and serving["bind"] != server.bind:
            problems += _unbindable(server.bind)
        answer: dict[str, Any] = {"problems": problems}
        answer["server"] = {name: getattr(server, name) for name in FOR_GUNICORN} | {"state": str(server.state)}
        answer["admin"] = {"bind": self.settings.admin.bind}
        if self.request.get("show"):
            from proxy.cli.listing import as_toml

            answer["shown"] = as_toml(self.settings)
        return answer

    def prepare(self, master: int, number: int) -> dict[str, Any]:
        """Migrate the database, write the copy that workers load, and make the first key where there is no file."""
        from proxy.access.keys import ensure_first_key
        from proxy.access.pepper import vet
        from proxy.records.database import Database, explained, location, migrate

        migrate(self.settings)
        with closing(Database(location(self.settings))) as database, explained(database):
            vet(self.settings, database)
        try:
            active = _copy(self.document, self.settings, master, number)
        except (OSError, shutil.Error) as failure:
            raise ConfigError([f"server.state: the copy for workers cannot be written: {failure}"]) from failure
        first_key = ensure_first_key(self.settings) if self.settings.path is None else None
        self._note(master, number, first_key)
        return {"problems": [], "active": str(active), "first_key": first_key}

    def _note(self, master: int, number: int, first_key: str | None) -> None:
        """Enter the start or the reload in the audit."""
        from proxy.records import audit

        path = str(self.settings.path) if self.settings.path else None
        digest = hashlib.sha256(self.document.text.encode()).hexdigest()
        act = "gateway.start" if self.request.get("serving") is None else "gateway.reload"
        try:
            audit.note(self.settings, act, master=master, number=number, config=path, sha256=digest)
            if first_key is not None:
                audit.note(self.settings, "key.create", key=first_key.split("_")[1])
        except OSError as failure:
            raise ConfigError([f"server.state: the audit cannot be written: {failure}"]) from failure


#: What the master must know of the server's settings.
FOR_GUNICORN = ("bind", "worker", "workers", "threads", "insecure", "proxied")


def _instances(settings: Settings, catalog: Catalog) -> list[str]:
    """Make every plugin and provider and every chain, as a worker does at its start; nothing is opened or started."""
    from proxy.chain import Chain

    problems: list[str] = []
    made: dict[str, Any] = {}
    for kind, shelf, entries in (
        ("plugins", catalog.plugins, settings.plugins),
        ("providers", catalog.providers, settings.providers),
    ):
        for name, entry in entries.items():
            try:
                instance = shelf[entry.use].make(entry.options)
            except ConfigError as failure:
                problems += failure.problems
            except Exception as failure:
                traceback.print_exc()
                problems.append(f"{kind}.{name}: cannot be made: {type(failure).__name__}: {failure}")
            else:
                made |= {name: instance} if kind == "plugins" else {}
    chains = {settings.chain, *(model.chain for model in settings.models.values() if model.chain is not None)}
    for chain in sorted(chains) if made.keys() >= settings.plugins.keys() else ():
        try:
            Chain({name: made[name] for name in chain})
        except ConfigError as failure:
            problems += [problem for problem in failure.problems if problem not in problems]
    return problems


def _elsewhere(settings: Settings) -> list[str]:
    """Refuse a state directory of another machine: neither locks nor shared memory hold there."""
    from proxy.counters.mounts import remote

    kind = remote(settings.server.state)
    where = f"server.state: {settings.server.state}"
    return [] if kind is None else [f"{where} is on a network file system ({kind}): put it on a local disk"]


def _expired(settings: Settings) -> list[str]:
    """Name certificates that are out of date; not at a start, since one provider less is better than no gateway."""
    from proxy.config.tls import expired

    problems = expired(settings.egress, "egress")
    for name, provider in settings.providers.items():
        own, egress = provider.connection, settings.egress
        if (own.ca_file, own.client_cert) != (egress.ca_file, egress.client_cert):
            problems += expired(own, f"providers.{name}")
    return problems


def _unbindable(bind: str) -> list[str]:
    """Try an address that a reload moves to: gunicorn would end where it cannot be bound."""
    where = address.parse(bind)
    if isinstance(where, str):
        if not os.access(os.path.dirname(where), os.W_OK | os.X_OK):
            return [f"server.bind: {where} cannot be made: its folder is not writable for this user"]
        if os.path.exists(where) and not Path(where).is_socket():
            return [f"server.bind: {where} exists and is not a socket"]
        return []
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
            probe.listen(1)
        except OSError as failure:
            return [f"server.bind: {bind} cannot be bound: {failure.strerror}"]
    return []


def _copy(document: Document, settings: Settings, master: int, number: int) -> Path:
    """Write the file and the plugins' folder to `<state>/active/<master>-<number>/`, for their owner alone."""
    os.umask(0o077)
    shelf = settings.server.state / "active"
    shelf.mkdir(parents=True, exist_ok=True)
    target = shelf / f"{master}-{number}"
    draft = shelf / f".{target.name}"
    for old in (draft, target):  # of an earlier process with the same id: nobody loads it
        shutil.rmtree(old, ignore_errors=True)
    draft.mkdir()
    (draft / "lockgate.toml").write_text(document.text, "utf-8")
    origin = {"path": str(document.path) if document.path else None, "folder": str(document.folder)}
    (draft / ORIGIN).write_text(json.dumps(origin), "utf-8")
    if settings.server.plugins_dir is not None:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(settings.server.plugins_dir, draft / PLUGINS, copy_function=shutil.copyfile, ignore=skip)
    draft.rename(target)
    for old in shelf.iterdir():
        if _is_over(old.name, master, number):
            shutil.rmtree(old, ignore_errors=True)
    return target / "lockgate.toml"


def _is_over(name: str, master: int, number: int) -> bool:
    """Say whether nobody loads a copy any more. The one before the newest stays: a worker may be reading it."""
    pid, _, count = name.lstrip(".").partition("-")
    if not (pid.isdigit() and count.isdigit()):
        return False
    return int(count) < number - 1 if int(pid) == master else not os.path.exists(f"/proc/{pid}")
