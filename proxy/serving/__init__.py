"""The master's side of a start and of a reload; imported by `gunicorn.conf.py`, so it must stay light.

Nothing here imports plugins or the core that workers run: workers are forked from the master, and what it has imported
they would not load again at a reload. The check runs in a child process (`proxy.serving.preflight`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import sysconfig
import tomllib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from proxy.serving import address, welcome
from proxy.serving.flight import PACKAGE as PACKAGE
from proxy.serving.flight import Flight as Flight

#: Where workers find the last good copy of the file (see `proxy.config.document`), and what the master knows of it.
ACTIVE = "LOCKGATE_ACTIVE"
SERVING = "LOCKGATE_SERVING"
LIBRARIES = ("flask", "marshmallow", "orjson", "pluggy", "requests", "sqlalchemy", "sqlalchemy.dialects.sqlite")


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
