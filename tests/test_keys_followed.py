"""Keys and teams in real gateways: every worker follows the database, and lives without it for a while."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from crowds import until
from gateways import ECHO, REPOSITORY, Gateway, new_key
from wire import Wire

from proxy.access import keys, teams
from proxy.config import assemble
from proxy.records.database import Database, location, upgrade

#: A change is followed within 2 s; this is for machines that are busy with other things.
PATIENCE_S = 15.0
OK = (200, None)
REFUSED = (401, "invalid_api_key")


def write(gateway: Gateway, function: Callable[..., Any], *arguments: Any, **details: Any) -> Any:
    """Change something in the database of a gateway, as another process does."""
    settings, _ = assemble(gateway.config)
    with closing(Database(location(settings))) as database, database.write() as connection:
        return function(connection, *arguments, **details)


@contextlib.contextmanager
def connected(gateway: Gateway, key: str) -> Iterator[tuple[int, Wire]]:
    """Open a connection; yield the worker that has accepted it, too."""
    with Wire(gateway.address, key) as wire:
        ours = f":{gateway.port:04X} 0100007F:{wire.socket.getsockname()[1]:04X} "
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            # A line may be there twice: the table moves while it is read.
            line = next((line for line in Path("/proc/net/tcp").read_text().splitlines() if ours in line), "")
            # The kernel gives the socket a number when it is accepted.
            inode = line.split()[9] if line else "0"
            for pid in gateway.worker_pids() if inode != "0" else ():
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        if os.readlink(descriptor) == f"socket:[{inode}]":
                            yield pid, wire
                            return
        raise AssertionError("no worker accepted the connection")


def told(wire: Wire) -> tuple[int, str | None]:
    """Status and error code of a request."""
    answer = wire.get("/v1/models")
    return answer.status, answer.json["error"]["code"] if "error" in answer.json else None


def settles(gateway: Gateway, key: str, expected: tuple[int, str | None]) -> bool:
    """Wait until every worker has given this answer to the key."""
    waiting = set(gateway.worker_pids())
    deadline = time.monotonic() + PATIENCE_S
    while waiting and time.monotonic() < deadline:
        with connected(gateway, key) as (pid, wire):
            if told(wire) == expected:
                waiting.discard(pid)
    return not waiting


def test_every_worker_follows_a_new_a_rotated_and_a_revoked_key_and_its_team(start_gateway):
    gateway = start_gateway(ECHO, server={"workers": 3})
    assert len(gateway.worker_pids()) == 3
    key = new_key(gateway.config, "app", team="web")
    assert settles(gateway, key, (403, "unknown_team"))
    write(gateway, teams.create, "web")
    pepper = (gateway.folder / "var" / "pepper").read_bytes().strip()
    _, rotated = write(gateway, keys.rotate, pepper, key.split("_")[1], grace_s=3600)
    assert settles(gateway, rotated, OK) and settles(gateway, key, OK)
    write(gateway, keys.revoke, key.split("_")[1])
    assert settles(gateway, rotated, REFUSED) and settles(gateway, key, REFUSED)
    assert settles(gateway, gateway.key, OK)


def test_a_database_that_is_held_or_gone_stops_no_request_for_a_while_then_all_get_503_until_it_is_back(start_gateway):
    gateway = start_gateway(ECHO + "\n[keys]\nstale_hours = 0.0015\n")
    path = gateway.folder / "var" / "lockgate.db"
    away = path.with_name("away")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert settles(gateway, gateway.key, OK) and settles(gateway, "lg_unknown", REFUSED)
        other.execute("ROLLBACK")
    path.rename(away)
    gateway.wait_log("keys: cannot read the database, going on with what it held")
    assert settles(gateway, gateway.key, OK)
    gateway.wait_log("keys: the database could not be read for 0.0015 h: every key gets a 503 now")
    assert settles(gateway, gateway.key, (503, "keys_unavailable"))
    assert settles(gateway, "lg_unknown", (503, "keys_unavailable"))
    away.rename(path)
    assert settles(gateway, gateway.key, OK)
    gateway.wait_log("keys: the database can be read again")


def test_a_gateway_whose_pepper_is_lost_does_not_start_and_makes_no_other(tmp_path):
    config = tmp_path / "lockgate.toml"
    config.write_text(ECHO + '[server]\nbind = "127.0.0.1:0"\nstate = "var"\n')
    new_key(config)
    pepper = tmp_path / "var" / "pepper"
    pepper.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", str(REPOSITORY / "gunicorn.conf.py")],
        cwd=tmp_path,
        env={**os.environ, "LOCKGATE_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"var/pepper is missing, .*restore it from a backup", done.stdout + done.stderr)
    assert not pepper.exists()


def test_gateways_follow_a_postgresql_that_they_share_and_outlive_it_with_new_workers_too(
    start_gateway, postgresql, tmp_path, monkeypatch
):
    secret = tmp_path / "shared-pepper"
    secret.write_text("p" * 40)
    monkeypatch.setenv("TEST_DATABASE", postgresql.create())
    toml = ECHO + f'\n[keys]\npepper = {{ file = "{secret}" }}\n[database]\nurl = {{ env = "TEST_DATABASE" }}\n'
    (tmp_path / "lockgate.toml").write_text(toml + f'[server]\nstate = "{tmp_path}/var"\n')
    upgrade(assemble(tmp_path / "lockgate.toml")[0])
    first, second = start_gateway(toml), start_gateway(toml, worker="gevent")
    key = new_key(first.config, "app")
    assert settles(first, key, OK) and settles(second, key, OK)
    copies = [gateway.folder / "var" / "keys.copy" for gateway in (first, second)]
    before = [copy.stat().st_mtime_ns for copy in copies]
    write(second, keys.revoke, key.split("_")[1])
    assert settles(first, key, REFUSED) and settles(second, key, REFUSED)
    # A worker refuses the key a moment before the copy says so too.
    until(lambda: all(copy.stat().st_mtime_ns > then for copy, then in zip(copies, before, strict=True)))
    postgresql.kill()
    try:
        for gateway in (first, second):
            for pid in gateway.worker_pids():
                os.kill(pid, signal.SIGKILL)
        for gateway in (first, second):
            gateway.wait_log(
                r"Booting worker(?s:.*)Booting worker(?s:.*)keys: cannot read the database, going on with what"
            )
            assert settles(gateway, gateway.key, OK) and settles(gateway, key, REFUSED)
    finally:
        postgresql.start()
    for gateway in (first, second):
        gateway.wait_log("keys: the database can be read again")
