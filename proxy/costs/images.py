"""How many tokens an image counts for: its size from its first bytes, and the providers' published rules."""

from __future__ import annotations

import binascii
import math
import struct
from typing import Any

#: Width and height that are assumed where an image is only named, or its size cannot be read.
UNKNOWN = (1024, 1024)
#: Of a `data:` URI so much is decoded, in characters, to find the size; in a JPEG it stands behind the metadata.
HEAD_CHARACTERS = 128 << 10

#: OpenAI's rule for its larger models: a base, and so much for each tile of 512 pixels.
#: https://platform.openai.com/docs/guides/images-vision#calculating-costs
_TILES = (
    ("gpt-4o-mini", 2833, 5667),
    ("gpt-5", 70, 140),
    ("o1", 75, 150),
    ("o3", 75, 150),
)
_TILE = (85, 170)
#: OpenAI's rule for its smaller models: patches of 32 pixels, 1536 at most, times a factor; same source.
_PATCHES = (
    ("gpt-4.1-mini", 1.62),
    ("gpt-4.1-nano", 2.46),
    ("gpt-5-mini", 1.62),
    ("gpt-5-nano", 2.46),
    ("o4-mini", 1.72),
)
_JPEG_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def part_tokens(model: str, part: Any) -> int:
    """Return what an `image_url` object of a message counts for; `model` chooses the rule, OpenAI's tiles at large."""
    said = part if isinstance(part, dict) else {}
    url = said.get("url")
    return tokens(model, *(size(url) if isinstance(url, str) else UNKNOWN), low=said.get("detail") == "low")


def tokens(model: str, width: int, height: int, low: bool = False) -> int:
    """Return what an image of so many pixels counts for."""
    name = model.rpartition("/")[2]
    if "claude" in name:
        # https://docs.anthropic.com/en/docs/build-with-claude/vision: larger ones are scaled down to about 1,600.
        return min(math.ceil(width * height / 750), 1600)
    if "gemini" in name:
        # https://ai.google.dev/gemini-api/docs/tokens: up to 384 pixels a flat 258, else for each tile of 768.
        small = width <= 384 and height <= 384
        return 258 if small else 258 * math.ceil(width / 768) * math.ceil(height / 768)
    for prefix, factor in _PATCHES:
        if name.startswith(prefix):
            return math.ceil(min(math.ceil(width / 32) * math.ceil(height / 32), 1536) * factor)
    base, tile = next(((base, tile) for prefix, base, tile in _TILES if name.startswith(prefix)), _TILE)
    return base if low else base + tile * _tiles(width, height)


def size(url: str) -> tuple[int, int]:
    """Return width and height of a PNG, GIF, JPEG or WebP in a `data:` URI; `UNKNOWN` for everything else."""
    head, comma, data = url[:256].partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return UNKNOWN
    start = len(head) + 1
    try:
        # The first few bytes tell all but the JPEGs.
        raw = _decoded(url, start, 64)
        found = _read(raw)
        if found is None and raw.startswith(b"\xff\xd8"):
            found = _jpeg(_decoded(url, start, HEAD_CHARACTERS))
    except (ValueError, IndexError, struct.error):
        found = None
    return found if found is not None and min(found) > 0 else UNKNOWN


def _tiles(width: int, height: int) -> int:
    """OpenAI scales into a square of 2048 pixels, then the shorter side to 768, and cuts that up."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return max(1, math.ceil(round(width * scale, 3) / 512)) * max(1, math.ceil(round(height * scale, 3) / 512))


def _decoded(url: str, start: int, characters: int) -> bytes:
    data = url[start : start + characters]
    return binascii.a2b_base64(data[: len(data) // 4 * 4]) if data else b""


def _read(raw: bytes) -> tuple[int, int] | None:
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack(">II", raw[16:24])
    if raw.startswith((b"GIF87a", b"GIF89a")):
        return struct.unpack("<HH", raw[6:10])
    if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
        kind = raw[12:16]
        if kind == b"VP8X":
            return 1 + int.from_bytes(raw[24:27], "little"), 1 + int.from_bytes(raw[27:30], "little")
        if kind == b"VP8L":
            bits = int.from_bytes(raw[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if kind == b"VP8 ":
            width, height = struct.unpack("<HH", raw[26:30])
            return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(raw: bytes) -> tuple[int, int] | None:
    """Walk the segments to the first frame header (ITU-T T.81, B.1.1)."""
    at = 2
    while at + 9 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker in _JPEG_SIZE:
            height, width = struct.unpack(">HH", raw[at + 5 : at + 9])
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return None
