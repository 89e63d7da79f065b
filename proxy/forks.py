"""Which process this is: what was opened before a fork is the parent's, and not to be used in the child."""

from __future__ import annotations

import os

#: Another one in each process, and asking for it is no system call. Ask for `forks.process`: a copy stays the parent's.
process = object()


def _forked() -> None:
    global process
    process = object()


os.register_at_fork(after_in_child=_forked)
