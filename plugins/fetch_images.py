"""Fetches images that requests name by URL, for models whose providers take nothing but the bytes."""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError, fields, validate

from proxy import Exchange, Fetcher, Reject, hookimpl, whole

if TYPE_CHECKING:
    from proxy import Gateway

_HOST = re.compile(r"(\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:\d{1,5})?")
#: What an image begins with, whatever its server says that it is.
_KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValidationError("must be a network such as 10.20.0.0/16") from None


class FetchImages:
    """Puts `data:` URLs in the place of URLs at hosts that the operator allows, and refuses all others."""

    name = "fetch_images"

    class Config(Schema):
        """Options of `[plugins.NAME]` with `use = "fetch_images"`."""

        hosts = fields.List(
            fields.String(
                validate=validate.Regexp(f"{_HOST.pattern}$", error="must be a host, *.DOMAIN or *, with :PORT or not")
            ),
            required=True,
            validate=validate.Length(min=1),
            metadata={"help": "hosts that images are fetched from: names, `*.domain`, or `*`; with a port if unusual"},
        )
        networks = fields.List(
            fields.String(validate=_network),
            load_default=list,
            metadata={"help": "networks that these hosts may be in; others but the public internet are refused"},
        )
        max_bytes = whole(
            1024,
            100 << 20,
            load_default=10 << 20,
            metadata={"help": "how large the images of one request may be together"},
        )
        max_images = whole(1, 100, load_default=10, metadata={"help": "how many images one request may name by URL"})
        timeout = fields.Float(
            validate=validate.Range(min=0, min_inclusive=False, max=60),
            load_default=5.0,
            metadata={"help": "seconds for all images of one request together"},
        )

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    @hookimpl
    def on_start(self, gateway: Gateway) -> None:
        own = self._config
        self._fetcher = Fetcher(gateway, own["hosts"], own["networks"], own["max_bytes"], own["timeout"])

    @hookimpl
    def on_stop(self) -> None:
        self._fetcher.close()

    @hookimpl
    def on_request(self, exchange: Exchange) -> None:
        named = [
            (part["image_url"], f"messages[{at}].content[{place}].image_url")
            for at, message in enumerate(exchange.body["messages"])
            if isinstance(message.get("content"), list)
            for place, part in enumerate(message["content"])
            if part["type"] == "image_url" and part["image_url"]["url"][:5].lower() != "data:"
        ]
        if not named:
            return
        most = self._config["max_images"]
        if len(named) > most:
            raise Reject(400, "invalid_image_url", f"At most {most} images are fetched here.", param=named[most][1])
        # The same image may be in every turn of a conversation.
        urls = list({image["url"]: path for image, path in named}.items())
        fetched = dict(zip(urls, self._fetcher.fetch(urls), strict=True))
        shown = {url: _data_url(data, path) for (url, path), data in fetched.items()}
        for image, _ in named:
            image["url"] = shown[image["url"]]
        exchange.findings[f"{self.name}.fetched"] = len(urls)


def _data_url(data: bytes, path: str) -> str:
    kind = next((kind for start, kind in _KINDS if start.match(data)), None)
    if kind is None:
        raise Reject(400, "invalid_image_url", "What the URL names is no PNG, JPEG, GIF or WebP image.", param=path)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
