"""The check of a configuration in a child process, as the master sees it; `preflight.py` is what runs there."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

#: How long a check may take, in seconds; a plugin that blocks while it is imported would hold the master for ever.
LONGEST_CHECK = 60.0
PACKAGE = Path(__file__).resolve().parent.parent
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
