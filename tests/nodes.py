"""The official clients for Node, run as programs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("node")


def missing() -> str | None:
    """Return why programs for Node cannot run here, or `None`."""
    if shutil.which("node") is None:
        return "node is not installed (Debian: nodejs, npm)"
    if not (FOLDER / "node_modules").is_dir():
        return "the packages for Node are not installed: npm ci --prefix tests/node"
    return None


def run(program: str, said: Any) -> Any:
    """Run `tests/node/PROGRAM` with `said` as JSON on its standard input; return the JSON that it prints."""
    done = subprocess.run(
        ["node", FOLDER / program], input=json.dumps(said), capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
