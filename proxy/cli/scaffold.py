"""A plugin to start from, with its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

PLUGIN = '''"""Says here in one sentence what the plugin does."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from proxy import Exchange, Reject, hookimpl


class {cls}:
    """Refuses requests with more messages than an operator wants."""

    name = "{name}"

    class Config(Schema):
        """The options, as they stand in `[plugins.NAME]`."""

        most_messages = fields.Integer(
            strict=True,
            load_default=100,
            validate=validate.Range(min=1),
            metadata={{"help": "the most messages that one request may have"}},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self.most = config["most_messages"]

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        count = len(exchange.body["messages"])
        if count > self.most:
            raise Reject(400, "too_many_messages", f"At most {{self.most}} messages are taken here, not {{count}}.")
'''

TEST = '''"""What {cls} promises."""

from __future__ import annotations

from {name} import {cls}

from proxy.testing import configured, run


def request(messages: int) -> dict:
    return {{"messages": [{{"role": "user", "content": "Hello"}}] * messages}}


def test_a_request_within_the_limit_is_answered() -> None:
    assert run(configured({cls}, most_messages=2), request(messages=2)).status == 200


def test_a_request_with_too_many_messages_is_refused_and_goes_nowhere() -> None:
    result = run(configured({cls}, most_messages=2), request(messages=3))
    assert (result.status, result.json["error"]["code"]) == (400, "too_many_messages")
    assert not result.sent
'''

NEXT = """
Run its test:    python -m pytest {test}
Use it, in lockgate.toml:

    [server]
    plugins_dir = "{folder}"

    [plugins.{name}]
    use = "{name}"

and put "{name}" into a chain."""


def write(name: str, folder: Path) -> list[Path]:
    """Write `NAME.py` and `test_NAME.py` to the folder, which is made where missing, and return them.

    Raises `ValueError` for a name that is not a module's, `FileExistsError` rather than to write over a file.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name.startswith("test_"):
        raise ValueError(f"{name!r} is not a name for a plugin: use small letters, digits and _, such as no_images")
    folder.mkdir(parents=True, exist_ok=True)
    cls = "".join(part.capitalize() for part in name.split("_"))
    files = {folder / f"{name}.py": PLUGIN, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise FileExistsError(17, "exists already", str(path))
    for path, text in files.items():
        path.write_text(text.format(name=name, cls=cls), "utf-8")
    return list(files)
