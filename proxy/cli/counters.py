"""`lockgate counters`: mends the counters from what is written down of each exchange."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli import config_option, opening
from proxy.cli.administration import audit
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.settings import Settings

PROBE = """
import sys
from pathlib import Path
from proxy.counters.lmdb import Lmdb
store = Lmdb(Path(sys.argv[1]), int(sys.argv[2]))
store.read()
store.close()
"""


@click.group()
def counters() -> None:
    """Mend the counters of limits and budgets."""


@counters.command()
@config_option
def repair(path: Path | None) -> None:
    """Count again from journal and ledger what was spent of each budget.

    No budget gets more room by that: what is counted now stays, unless the records say more. A file that is damaged is
    put aside first; stop Lockgate before, or what it counts meanwhile is lost. Limits a minute begin anew then.
    """
    from proxy import config
    from proxy.counters import Unavailable, open_store, rebuilding

    with opening.opened(path) as (settings, database):
        aside = _set_aside(settings) if settings.counters.store == "lmdb" else None
        if aside is not None:
            click.echo(f"The counters are damaged: they are put aside as {aside}.", err=True)
        _, catalog = config.assemble(path or config.locate())
        entries = rebuilding.entries(rebuilding.spent(settings, catalog, database))
        audit(settings, "counters.repair", windows=len(entries), aside=aside and aside.name)
        with closing(open_store(settings)) as store:
            try:
                store.restore(entries)
            except Unavailable as failure:
                raise ConfigError([str(failure)]) from failure
    click.echo(f"{len(entries)} {'window' if len(entries) == 1 else 'windows'} counted again.")


def _set_aside(settings: Settings) -> Path | None:
    """Rename the file if it is damaged, and return its new name."""
    from proxy.counters.lmdb import FILE

    where = settings.server.state / FILE
    if not where.exists():
        return None
    # In a process of its own: what is damaged may end whoever reads it.
    probe = [sys.executable, "-c", PROBE, str(settings.server.state), str(settings.counters.size_mib << 20)]
    if subprocess.run(probe, capture_output=True).returncode == 0:
        return None
    aside = where.with_name(f"{FILE}.damaged-{int(time.time())}")
    try:
        where.rename(aside)
        where.with_name(f"{FILE}-lock").unlink(missing_ok=True)
    except OSError as failure:
        raise ConfigError([f"{where}: {failure.strerror}"]) from failure
    return aside
