"""What a first start without a configuration file tells: the one generated key, and how to use it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

TEXT = """
There is no lockgate.toml yet: this is the embedded model `echo`, on http://{bind}, for this machine alone.
This key is shown once and kept nowhere:

    {key}

Try it:

    curl http://{bind}/v1/chat/completions \\
      -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"model": "echo", "messages": [{{"role": "user", "content": "Hello"}}]}}'

"""


def show(server: dict[str, Any], key: str, log: Any) -> None:
    """Show the first key on the terminal; without one, write it to a file for the owner alone and log its name."""
    if sys.stdout.isatty():
        print(TEXT.format(bind=server["bind"], key=key), flush=True)
        return
    path = Path(server["state"]) / "first-key"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(key + "\n")
    log.info("The first key was written to %s: read it, and remove the file", path)
