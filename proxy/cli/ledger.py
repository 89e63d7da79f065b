"""`lockgate ledger`: how the ledger is doing, and the shipper as a command."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from proxy.cli import config_option, json_option, opening, times


@click.group()
def ledger() -> None:
    """Look after the ledger, where the journal's records are shipped."""


@ledger.command()
@config_option
@json_option
def status(path: Path | None, as_json: bool) -> None:
    """Say how much is in the ledger, how far the journal is behind and what keeps it; exit code 1 if something does."""
    from sqlalchemy import func, select

    from proxy.errors import ConfigError
    from proxy.records import host, shipping
    from proxy.records.database import Database, explained, location
    from proxy.records.tables import requests

    settings = opening.read(path)
    state = settings.server.state
    told = shipping.told(state) or {}
    runs = host.ships(state)
    facts: dict[str, Any] = {"shipper": told.get("pid") if runs else None, "problem": told.get("problem")}
    with closing(Database(location(settings))) as database:
        facts["database"] = database.store.name
        # Its name is made by the first shipper, which owns it.
        shipper = shipping.Shipper(database, state) if (state / "host").exists() else None
        try:
            with explained(database), database.read() as connection:
                query = select(func.count(), func.min(requests.c.time), func.max(requests.c.time))
                facts["requests"], oldest, newest = connection.execute(query).one()
            facts |= {"oldest": times.stamp(oldest), "newest": times.stamp(newest)}
            if shipper is not None:
                shipper.begin()
                facts["behind_bytes"] = shipper.behind_bytes
        except ConfigError as failure:
            facts |= {"problem": failure.problems[0], "behind_bytes": told.get("behind_bytes")}
    facts["looked"] = times.stamp(told.get("time"))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        facts["shipper"] = f"process {facts['shipper']}" if runs else "none runs on this host"
        click.echo("\n".join(f"{name:<13} {value}" for name, value in facts.items() if value is not None))
    sys.exit(facts["problem"] is not None)


@ledger.command()
@click.option("--once", is_flag=True, help="End when what is there has been shipped.")
@click.option("--wait", is_flag=True, help="Where another shipper runs, wait for its end instead of refusing.")
@config_option
def ship(path: Path | None, once: bool, wait: bool) -> None:
    """Be this host's shipper, until SIGTERM: for `[ledger] ship = false`, or what a removed gateway has left."""
    import logging

    from proxy.records import election, host, shipping
    from proxy.records.database import migrate

    settings = opening.read(path)
    with opening.told():
        migrate(settings)
        state = settings.server.state
        while (descriptor := host.lock(state)) is None:
            if not wait:
                opening.fail([f"another shipper runs on this host (process {(shipping.told(state) or {}).get('pid')})"])
            time.sleep(0.2)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        problem = election.run(election.request(settings), (lambda _: True) if once else stopped.wait)
        os.close(descriptor)
        if problem is not None:
            opening.fail([problem])
