"""The content of OpenAI's messages for providers that translate: texts, and media by their bytes or their address."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import Reject

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_OFFICE = "application/vnd.openxmlformats-officedocument"
#: What a file is by the end of its name, where the request does not say it.
MEDIA_TYPES = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "xml": "application/xml",
    "doc": "application/msword",
    "docx": f"{_OFFICE}.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
}


@dataclass(slots=True)
class Text:
    """A text that is not blank. `cache` says that what comes up to here is a part of the prompt worth caching."""

    text: str
    cache: bool = False


@dataclass(slots=True)
class Media:
    """An "image", a "file" or an "audio": its bytes in base64, or the `url` where it lies. `path` is its place."""

    kind: str
    path: str
    media_type: str = ""
    data: str = field(default="", repr=False)
    url: str | None = None
    name: str | None = None
    cache: bool = False


def pieces(content: Any, path: str) -> list[Text | Media]:
    """Return the content of a message, a text or a list of parts; blank texts are left out.

    Raises `Reject` for what is no base64, and for what only OpenAI's own store holds.
    """
    if content is None or isinstance(content, str):
        return [Text(content)] if content and not content.isspace() else []
    found: list[Text | Media] = []
    for at, part in enumerate(content):
        place, kind = f"{path}[{at}]", part["type"]
        cache = bool(part.get("prompt_cache_breakpoint") or part.get("cache_control"))
        if kind in ("text", "refusal"):
            if part[kind] and not part[kind].isspace():
                found.append(Text(part[kind], cache))
        elif kind == "image_url":
            media = Media("image", f"{place}.image_url", cache=cache)
            found.append(_located(media, part["image_url"]["url"]))
        elif kind == "file":
            found.append(_file(part["file"], f"{place}.file", cache))
        elif kind == "input_audio":
            audio = part["input_audio"]
            found.append(Media("audio", place, f"audio/{audio['format']}", _base64(audio["data"], place)))
        else:
            raise not_taken(place, f"Content of type '{kind}' is not supported with this model.")
    return found


def not_taken(path: str, message: str) -> Reject:
    """Return what content is answered with that the upstream does not take."""
    return Reject(400, "unsupported_value", message, param=path)


def by_url(media: Media) -> Reject:
    """Return what a medium is answered with that is named by URL where the upstream wants its bytes."""
    return not_taken(media.path, "This model takes no URLs of images and files; send the data as a 'data:' URL.")


def _file(file: dict[str, Any], path: str, cache: bool) -> Media:
    media, data = Media("file", path, name=file.get("filename"), cache=cache), file.get("file_data")
    if not data:
        raise not_taken(path, "Files by id are not supported with this model; send 'file_data'.")
    if data.startswith(("data:", "https://", "http://")):
        media = _located(media, data)
    else:
        media.data = _base64(data, path)
    if media.media_type in ("", "application/octet-stream"):
        media.media_type = MEDIA_TYPES.get((media.name or "").rpartition(".")[2].lower(), "application/pdf")
    return media


def _located(media: Media, url: str) -> Media:
    """Take in a `data:` URL (RFC 2397), or note where the bytes lie."""
    match = _DATA_URL.match(url)
    if match is None:
        if not url.startswith(("https://", "http://")):
            message = "A URL must begin with 'https://' or 'http://', or be a 'data:' URL."
            raise Reject(400, "invalid_value", message, param=media.path)
        media.url = url
        return media
    media.media_type = (match[1] or "text/plain").lower().replace("image/jpg", "image/jpeg")
    data = url[match.end() :]
    if match[3]:
        media.data = _base64(data, media.path)
    else:
        media.data = base64.b64encode(urllib.parse.unquote_to_bytes(data)).decode()
    return media


def _base64(text: str, path: str) -> str:
    """Return base64 as strict readers take it."""
    try:
        raw = binascii.a2b_base64(text)
        if not raw:
            raise ValueError
    except ValueError:
        raise Reject(400, "invalid_value", "The data must be base64, and not empty.", param=path) from None
    return base64.b64encode(raw).decode() if re.search(r"[^A-Za-z0-9+/=]", text) else text
