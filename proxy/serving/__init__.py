"""The master's side of a start and of a reload; imported by `gunicorn.conf.py`, so it must stay light.

Nothing here imports plugins or the core that workers run: workers are forked from the master, and what it has imported
they would not load again at a reload. The check runs in a child process (`proxy.serving.preflight`).
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import tomllib
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from proxy.serving import address, welcome

#: How long a check may take, in seconds; a plugin that blocks while it is imported would hold the master for ever.
LONGEST_CHECK = 60.0
PACKAGE = Path(__file__).resolve().parent.parent
#: Where workers find the last good copy of the file (see `proxy.config.document`), and what the master knows of it.
ACTIVE = "LOCKGATE_ACTIVE"
SERVING = "LOCKGATE_SERVING"
LIBRARIES = ("flask", "marshmallow", "orjson", "pluggy", "requests", "sqlalchemy", "sqlalchemy.dialects.sqlite")
# `proxy` is taken from beside this file, whatever else is called so on the module path.
BOOT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from proxy.serving import preflight
del sys.path[0]
preflight.main()
"""


class Flight:
    """One check in a child process. `report` has `problems`, or `server`, what gunicorn needs."""

    def __init__(self, path: Path | None, **request: Any) -> None:
        request |= {"path": str(path) if path else None}
        self.path = path
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, str(PACKAGE.parent), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @cached_property
    def report(self) -> dict[str, Any]:
        """The answer to the check, once it is there."""
        return self._answer()

    def prepare(self, number: int) -> dict[str, Any]:
        """Have the database migrated and this master's copy `number` for workers written; return the answer and end."""
        assert self._process.stdin is not None
        wanted = json.dumps({"master": os.getpid(), "number": number})
        with suppress(BrokenPipeError):  # the answer will say why
            self._process.stdin.write(wanted.encode() + b"\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.close()
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], LONGEST_CHECK)
        line = self._process.stdout.readline() if ready else b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.close()
        if not ready:
            return {"problems": [f"the check took longer than {LONGEST_CHECK:.0f} s: does a plugin block on import?"]}
        return {"problems": [f"the check ended without an answer ({_ending(self._process.returncode)}): see above"]}


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def locate() -> Path | None:
    """Return the configuration file: `$LOCKGATE_CONFIG`, else `./lockgate.toml`, else `None`."""
    named = os.environ.get("LOCKGATE_CONFIG")
    path = Path(os.path.abspath(named or "lockgate.toml"))
    return path if named or path.exists() else None


def serving() -> dict[str, Any] | None:
    """Return what this very process serves, or `None` before its first check."""
    known: dict[str, Any] = json.loads(os.environ.get(SERVING, "{}"))
    # A second master, started by SIGUSR2, inherits the variable of the first.
    return known if known.get("pid") == os.getpid() else None


def begin() -> tuple[dict[str, Any], Flight | None]:
    """Return the server's settings for `gunicorn.conf.py`, and at a start the check that is under way.

    At a start, problems end the process. At a reload the check has been made already, so that nothing can fail here:
    gunicorn ends when its configuration file raises.
    """
    known = serving()
    if known is not None:
        return known, None
    path = locate()
    flight = Flight(path, quick=True)
    _preload(path)
    if flight.report["problems"]:
        refuse(path, flight.report["problems"])
    return flight.report["server"], flight


def _preload(path: Path | None) -> None:
    """Import the libraries of the workers while the check runs, unless they must be patched first, for gevent.

    Workers then start in a third of the time, and share the memory. None of these opens or starts anything.
    """
    try:
        text = path.read_text("utf-8-sig") if path else ""
        if tomllib.loads(text).get("server", {}).get("worker", "threads") != "threads":
            return
    except (OSError, ValueError, AttributeError):
        return  # the check will tell
    for library in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)


def start(arbiter: Any, flight: Flight | None) -> None:
    """Prepare the state and guard reloads; gunicorn's `on_starting`, called once, before it binds and forks."""
    if flight is None:
        return
    server = flight.report["server"]
    exposed = _exposed(server, arbiter)
    if exposed:
        refuse(flight.path, [exposed])
    answer = flight.prepare(1)
    if answer["problems"]:
        refuse(flight.path, answer["problems"])
    _serve(server, answer, 1)
    _guard(arbiter)
    _heed()
    if answer["first_key"]:
        welcome.show(server, answer["first_key"], arbiter.log)


def stop() -> None:
    """Enter the end in the audit; gunicorn's `on_exit`, called in the master when its workers have ended."""
    known = serving()
    if known is None:
        return
    # Now that nothing will be forked any more, the core may be imported here.
    from proxy.serving import ending

    ending.note(Path(os.environ[ACTIVE]), Path(known["state"]))


def _heed() -> None:
    """Have a worker end that is told to before it has signal handlers of its own.

    Those that it has from the fork are the master's, which forget the signal: the master would wait for
    `graceful_timeout`. Under gevent that is a tenth of a second of each start.
    """
    ends = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

    def forked() -> None:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)

    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, ends),
        after_in_child=forked,
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, ends),
    )


def forgive(arbiter: Any, worker: Any) -> None:
    """Let the master outlive a worker that cannot start; gunicorn's `post_fork`.

    gunicorn ends altogether when a worker fails in its start, which is right for the first ones. Later ones fail
    because of something that went away meanwhile, a database or a file with a secret: the others go on, and the master
    tries again.
    """
    if worker.age > arbiter.cfg.workers:
        # Both are this process's own copies; to the master, 1 is a worker that ended.
        arbiter.WORKER_BOOT_ERROR = arbiter.APP_LOAD_ERROR = 1


def _guard(arbiter: Any) -> None:
    """Have every SIGHUP checked first. A refused one changes nothing: no worker is replaced, nothing is read again."""
    reload = arbiter.handle_hup

    def handle_hup() -> None:
        problems = _renew(arbiter)
        if problems:
            arbiter.log.error("Reload refused, the old configuration stays: %s", "; ".join(problems))
        else:
            reload()

    arbiter.handle_hup = handle_hup


def _renew(arbiter: Any) -> list[str]:
    """Check the file as it is now; make it the one that is served, or return what is wrong."""
    known = serving() or {}
    try:
        path = locate()
        flight, number = Flight(path, serving=known), known.get("number", 0) + 1
        if flight.report["problems"]:
            flight.close()
            return list(flight.report["problems"])
        exposed = _exposed(flight.report["server"], arbiter, known.get("bind"))
        if exposed:
            flight.close()
            return [exposed]
        answer = flight.prepare(number)
        if not answer["problems"]:
            _serve(flight.report["server"], answer, number)
        return list(answer["problems"])
    except Exception as failure:
        # Whatever it is (no more processes, no more memory), the master and what it serves must outlive it.
        arbiter.log.exception("The check of the new configuration failed")
        return [f"the check could not be made: {failure}"]


def _serve(server: dict[str, Any], answer: dict[str, Any], number: int) -> None:
    known = server | {"pid": os.getpid(), "number": number}
    os.environ.update({ACTIVE: answer["active"], SERVING: json.dumps(known)})


def _exposed(server: dict[str, Any], arbiter: Any, was: str | None = None) -> str | None:
    """Say what is wrong where gunicorn listens elsewhere than the file says and nobody is authenticated."""
    if not server["insecure"]:
        return None
    overridden = was is None or arbiter.cfg.address != [address.parse(was)]
    if "LISTEN_FDS" in os.environ or (overridden and not all(map(address.is_loopback, arbiter.cfg.address))):
        return "server.insecure: is for loopback only, and gunicorn was told to listen elsewhere"
    return None


def refuse(path: Path | None, problems: list[str]) -> NoReturn:
    """List what is wrong and end."""
    where = path or "the built-in configuration"
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    print(f"lockgate: {count} in {where}:", *(f"  {problem}" for problem in problems), sep="\n", file=sys.stderr)
    sys.exit(1)


def command(arguments: tuple[str, ...] = (), settings: Path | None = None) -> list[str]:
    """Return the command line that starts gunicorn with these settings, those of the gateway if none are given."""
    beside, above = PACKAGE / "gunicorn.conf.py", PACKAGE.parent / "gunicorn.conf.py"
    settings = settings or (beside if beside.exists() else above)
    # The script and not `-m gunicorn`: for SIGUSR2 gunicorn starts sys.argv[0] again, which would be a file within
    # its package, and the modules beside that file would hide the standard library's.
    script = Path(sysconfig.get_path("scripts")) / "gunicorn"
    how = [str(script)] if script.exists() else ["-m", "gunicorn"]
    return [sys.executable, *how, "--config", str(settings), *arguments]
