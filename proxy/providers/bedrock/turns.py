"""Turns of a conversation as Converse's content blocks."""

from __future__ import annotations

import re

import orjson

from proxy.providers.parts import Media, Text, by_url, not_taken
from proxy.providers.translation import Block, ToolCall, ToolResult, Turn

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}


def told(turn: Turn) -> Turn:
    """Return a turn with its calls and results as text."""
    spoken = Turn(turn.role, [])
    for piece in turn.pieces:
        if isinstance(piece, ToolCall):
            spoken.pieces.append(Text(f"[Called {piece.name} with {orjson.dumps(piece.arguments).decode()}]"))
        elif isinstance(piece, ToolResult):
            spoken.pieces += [Text(f"[Result of {piece.name}:]"), *piece.content]
        else:
            spoken.pieces.append(piece)
    return spoken


def blocks(turn: Turn) -> list[Block]:
    """Return a turn as content blocks; raise `Reject` for media that are only named, or are of other kinds."""
    made: list[Block] = []
    called = False
    for piece in turn.pieces:
        if isinstance(piece, ToolCall):
            # The first call's thoughts began the message, before its text; those of others stood between the calls.
            made[len(made) if called else 0 : 0] = piece.carried or []
            called = True
            made.append({"toolUse": {"toolUseId": piece.id, "name": piece.name, "input": piece.arguments}})
        elif isinstance(piece, ToolResult):
            content = [block for inner in piece.content for block in _block(inner) if "cachePoint" not in block]
            result = {"toolUseId": piece.id, "content": content or [{"json": {}}], "status": "success"}
            made.append({"toolResult": result})
        else:
            made += _block(piece)
    return made


def _block(piece: Text | Media) -> list[Block]:
    return said(piece) if isinstance(piece, Text) else _media(piece)


def said(text: Text) -> list[Block]:
    """Return a text as content blocks."""
    return [{"text": text.text}, *_point(text.cache)]


def _point(cache: bool) -> list[Block]:
    return [{"cachePoint": {"type": "default"}}] if cache else []


def _media(media: Media) -> list[Block]:
    if media.url is not None:
        raise by_url(media)
    if media.kind == "image" and media.media_type in _IMAGES:
        block = {"image": {"format": _IMAGES[media.media_type], "source": {"bytes": media.data}}}
    elif media.kind == "file" and media.media_type in _DOCUMENTS:
        # Names must differ, and be of few kinds of characters.
        place = " ".join(re.findall(r"\d+", media.path))
        stem = re.sub(r"[^A-Za-z0-9()\[\]-]+", " ", (media.name or "").rpartition(".")[0]).strip()[:150]
        document = {"format": _DOCUMENTS[media.media_type], "name": f"{stem or 'document'} {place}"}
        block = {"document": {**document, "source": {"bytes": media.data}}}
    else:
        raise not_taken(media.path, f"Content of type '{media.media_type}' is not supported with this model.")
    return [block, *_point(media.cache)]
