"""What is entered in the audit when a gateway ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from marshmallow import EXCLUDE

from proxy.config.document import Document
from proxy.config.journal import JournalSchema
from proxy.records import audit, index
from proxy.secrets import kept, relative_to


def note(active: Path, state: Path) -> None:
    """Enter the end of this process, which served the copy `active`; never raises.

    Of the configuration only the journal's key is read: a plugin that is imported could keep the process from ending.
    """
    try:
        document = Document.read(active)
        with relative_to(document.folder):
            loaded = JournalSchema(only=("key",), unknown=EXCLUDE).load(document.table.get("journal", {}))
        key = kept(loaded["key"], "journal.key", state / "journal.key")
        audit.enter(index.Index(state / "journal", key), "gateway.stop", master=os.getpid())
    except Exception as failure:
        print(f"lockgate: the end could not be entered in the audit: {failure}", file=sys.stderr)
