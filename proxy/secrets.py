"""Secrets and paths in the configuration: where they are read from, and what keeps a secret from being shown."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from marshmallow import ValidationError, fields

from proxy.errors import ConfigError

SECRET_MASK = "***"
#: The longest secret that is read from a file, in bytes: a certificate chain with its key is well below it.
LONGEST_FILE = 1 << 20
#: The shortest secret of the gateway's own, in characters: 128 bits in hexadecimal.
SHORTEST = 32

_folder: ContextVar[Path | str] = ContextVar("folder")


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Within the block, relative paths in the configuration start at `folder`."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def resolve(path: str) -> Path:
    """Return `path` as an absolute one: `~` is the home directory, relative ones start at the file's folder."""
    return Path(os.path.abspath(os.path.join(_folder.get(""), os.path.expanduser(path))))


class Secret:
    """A text that no log, error or listing shows; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __repr__(self) -> str:
        return SECRET_MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(SECRET_MASK, spec)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: it would be written down")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self


class SecretField(fields.Field[Secret]):
    """A secret option: `{ env = "NAME" }` or `{ file = "/path" }`, never the text itself. Loads as a `Secret`."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Secret:
        if isinstance(value, str):
            # The text is not repeated: it is the secret.
            raise ValidationError('a secret is not written here: use { env = "NAME" } or { file = "/path" }')
        if not isinstance(value, dict) or len(value) != 1 or not {"env", "file"} & value.keys():
            raise ValidationError('must be { env = "NAME" } or { file = "/path" }')
        [(kind, where)] = value.items()
        if not isinstance(where, str) or not where:
            raise ValidationError({kind: [f"must be a text that names the {_KINDS[kind]}"]})
        return Secret(_from_env(where) if kind == "env" else _from_file(where))


_KINDS = {"env": "environment variable", "file": "file"}


def _from_env(name: str) -> str:
    text = os.environ.get(name)
    if text is None:
        raise ValidationError(f"environment variable {name} is not set: set it before Lockgate starts")
    if not text.strip():
        raise ValidationError(f"environment variable {name} is empty")
    return text.strip()


def _from_file(name: str) -> str:
    path = resolve(name)
    _look(path, "file")
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
        text = raw.decode().strip()
    except OSError as failure:
        raise ValidationError(f"{path} cannot be read ({failure.strerror}): make it readable for this user") from None
    except UnicodeDecodeError:
        raise ValidationError(f"{path} is not UTF-8 text") from None
    if len(raw) > LONGEST_FILE:
        raise ValidationError(f"{path} is longer than {LONGEST_FILE} bytes")
    if not text:
        raise ValidationError(f"{path} is empty")
    return text


def _look(path: Path, kind: str) -> None:
    """Raise `ValidationError` unless there is a `"file"` or a `"folder"` at `path`.

    Looked at before it is opened: opening a FIFO would block for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValidationError(f"{path} does not exist") from None
    except (OSError, ValueError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "not a path"
        raise ValidationError(f"{path} cannot be reached ({why})") from None
    if not (stat.S_ISREG(mode) if kind == "file" else stat.S_ISDIR(mode)):
        raise ValidationError(f"{path} is not a {kind}")


class PathField(fields.Field[Path]):
    """A path option; relative ones start at the configuration's folder. Loads as an absolute `Path`.

    `exists` asks for a readable `"file"` or a `"folder"`.
    """

    def __init__(self, *, exists: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exists = exists

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValidationError("must be a path")
        path = resolve(value)
        if self.exists is None:
            return path
        _look(path, self.exists)
        if not os.access(path, os.R_OK if self.exists == "file" else os.R_OK | os.X_OK):
            raise ValidationError(f"{path} cannot be read: make it readable for this user")
        return path


def kept(configured: Secret | None, where: str, path: Path) -> bytes:
    """Return a secret of the gateway's own: the configured one, else that of the file at `path`, made when missing.

    `where` names the configured one in an error. Raises `ConfigError` for a short one, or a file open to others.
    """
    if configured is not None:
        return _long_enough(configured.reveal(), where)
    try:
        if not path.exists():
            write_once(path, f"{secrets.token_hex(32)}\n")
        with path.open(encoding="utf-8", errors="replace") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError([f"{path} is open to other users (mode {mode:04o}): chmod 600 {path}"])
            return _long_enough(file.read(), str(path))
    except OSError as failure:
        raise ConfigError([f"{path}: {failure.strerror}: the file must be readable for this user"]) from failure


def _long_enough(text: str, where: str) -> bytes:
    text = text.strip()
    if len(text) < SHORTEST:
        raise ConfigError([f"{where}: must have at least {SHORTEST} characters, e.g. from `openssl rand -hex 32`"])
    return text.encode()


def write_once(path: Path, text: str) -> None:
    """Make the file whole and for its owner alone; where another process was faster, its file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # unlike a rename, refuses to replace
    except FileExistsError:
        pass
    finally:
        draft.unlink()
