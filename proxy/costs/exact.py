"""Prompts counted by OpenAI's own tokenizer, where its library and its files are on the machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from proxy.costs import estimates
from proxy.errors import ConfigError

#: Texts that are longer, in characters, are estimated: a hostile one can keep the tokenizer busy for long.
LONGEST = 100_000
FALLBACK = "o200k_base"
URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"


class Counter:
    """Counts with the encodings whose files are in `$TIKTOKEN_CACHE_DIR`, and never fetches one.

    Models that tiktoken does not know are counted by o200k_base, whose file must be there. Raises `ConfigError`.
    """

    def __init__(self) -> None:
        try:
            import tiktoken
            import tiktoken.load
        except ImportError:
            raise ConfigError(["estimates.exact: needs tiktoken: pip install 'lockgate[tiktoken]'"]) from None
        folder = os.environ.get("TIKTOKEN_CACHE_DIR")
        if not folder:
            raise ConfigError(["estimates.exact: set TIKTOKEN_CACHE_DIR to the folder with tiktoken's files"])
        # tiktoken would fetch a file that is missing, or is not what it should be.
        tiktoken.load.read_file = _refuse  # type: ignore[assignment]
        self._tiktoken = tiktoken
        self._encodings: dict[str, Any] = {}
        if self._encoding(FALLBACK) is None:
            file = Path(folder) / hashlib.sha1(URL.format(FALLBACK).encode()).hexdigest()
            raise ConfigError([f"estimates.exact: {file} is missing or not tiktoken's {FALLBACK}"])

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """Count the prompt's tokens; what is no text is estimated, and so is a text that is too long."""
        encoding = self._of(body.get("model") or "")
        return estimates.prompt_tokens(body, lambda text: self._count(encoding, text))

    def _count(self, encoding: Any, text: str) -> int:
        if len(text) > LONGEST:
            return estimates.text_tokens(text)
        return len(encoding.encode_ordinary(text))

    def _of(self, model: str) -> Any:
        try:
            name = self._tiktoken.encoding_name_for_model(model)
        except KeyError:
            name = FALLBACK
        return self._encoding(name) or self._encoding(FALLBACK)

    def _encoding(self, name: str) -> Any:
        if name not in self._encodings:
            try:
                self._encodings[name] = self._tiktoken.get_encoding(name)
            except (OSError, ValueError):
                self._encodings[name] = None
        return self._encodings[name]


def _refuse(path: str) -> bytes:
    raise FileNotFoundError(path)
