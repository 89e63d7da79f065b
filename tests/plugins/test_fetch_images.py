"""Images by URL: fetched from allowed hosts at public addresses, within bounds, and refused otherwise."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from gateways import Gateway
from geminis import judged, said, text, whole
from marshmallow import ValidationError
from upstreams import FIN, Gate, Upstream, gzipped, head

from plugins.fetch_images import FetchImages
from proxy.fetching import public
from proxy.testing import Rig, configured

PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)
KINDS = {"image/png": PNG, "image/jpeg": b"\xff\xd8\xff\xe0", "image/gif": b"GIF89a", "image/webp": b"RIFF1234WEBP"}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
    + ["192.0.0.8", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"]
    + ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1"]
    + ["2001::1", "2001:db8::1"],
)
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:1.1.1.1"])
def test_addresses_of_the_public_internet(address: str) -> None:
    assert public(address)


def image(data: bytes, **headers: Any) -> bytes:
    return head(200, **{"content_type": "text/plain", "content_length": len(data), **headers}) + data


def asking(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]}


@pytest.fixture
def images(upstream: Upstream) -> Upstream:
    """A server of images on this machine."""
    upstream.scripts = [lambda _: image(PNG)]
    return upstream


@pytest.fixture
def rig(images: Upstream) -> Iterator[Rig]:
    hosts = [f"localhost:{images.port}", f"*.corp.example:{images.port}"]
    options = {"networks": ["127.0.0.0/8", "::1/128"], "max_bytes": 4096, "max_images": 2, "timeout": 5}
    with Rig(configured(FetchImages, hosts=hosts, **options)) as made:
        yield made


def test_an_image_is_sent_as_its_bytes(rig: Rig, images: Upstream) -> None:
    for kind, data in KINDS.items():
        images.scripts = [lambda _, data=data: image(data)]
        url = f"http://localhost:{images.port}/a.png?x=1#y"
        result = rig.run(asking(url, "data:image/png;base64,AAAA", url))
        assert result.upstream_body is not None
        first, kept, again = (part["image_url"] for part in result.upstream_body["messages"][0]["content"][1:])
        assert first == again == {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}", "detail": "low"}
        assert kept["url"] == "data:image/png;base64,AAAA"
    assert len(images.requests) == len(KINDS)
    asked = images.requests[0]
    assert (asked.method, asked.path, asked.headers["host"]) == ("GET", "/a.png?x=1", f"localhost:{images.port}")
    assert "authorization" not in asked.headers and "cookie" not in asked.headers


@pytest.mark.parametrize(
    "url",
    ["http://example.com/a.png", "http://localhost/a.png", "http://localhost.example.com:{port}/a.png"]
    + ["http://xlocalhost:{port}/a.png", "http://corp.example:{port}/a.png", "http://xcorp.example:{port}/a.png"]
    + ["http://user@localhost:{port}/a.png", "http://localhost:{port}@10.0.0.1/"]
    + ["ftp://localhost:{port}/a.png", "file:///etc/passwd", "//localhost:{port}/a.png", "a.png", ""]
    + ["http://127.0.0.1:{port}/a.png", "http://2130706433:{port}/a.png", "http://0x7f000001:{port}/a.png"]
    + [
        "http://[::1]:{port}/a.png",
        "http://localhost:{port}\\@a.example/",
        "http://localhost:{port}/a b",
        "http://:{port}/",
    ]
    + ["http://localhost:99999/a.png", "http://lokälhost:{port}/", "http://localhost:{port}/" + "x" * 5000],
)
def test_a_url_that_is_not_allowed_is_refused_and_nobody_is_asked(rig: Rig, images: Upstream, url: str) -> None:
    result = rig.run(asking(url.replace("{port}", str(images.port))))
    assert (result.status, result.upstream_body) == (400, None)
    error = result.json["error"]
    assert (error["code"], error["param"]) == ("invalid_image_url", "messages[0].content[1].image_url")
    assert images.connections == []


NO_IMAGES = {
    "another kind": lambda: image(b"<html>", content_type="image/png"),
    "an SVG": lambda: image(b"<svg/>", content_type="image/svg+xml"),
    "nothing": lambda: image(b""),
    "too many bytes": lambda: image(PNG + bytes(5000)),
    "too many bytes without a length": lambda: [head(200, connection="close"), PNG + bytes(50000), FIN],
    "a compressed bomb": lambda: gzipped(bytes(10**7)),
    "a redirect": lambda: head(302, location="http://localhost/b.png", content_length=0),
    "an error": lambda: head(404, content_length=0),
    "half of it": lambda: [head(200, content_length=100), PNG, FIN],
    "no HTTP": lambda: [b"SSH-2.0\r\n", FIN],
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_refused(rig: Rig, images: Upstream, name: str) -> None:
    images.scripts = [lambda _: NO_IMAGES[name]()]
    result = rig.run(asking(f"http://localhost:{images.port}/secret-path"))
    assert (result.status, result.upstream_body) == (400, None)
    assert result.json["error"]["code"] == "invalid_image_url"
    assert len(images.requests) == 1


def test_all_images_of_a_request_share_the_bounds(rig: Rig, images: Upstream) -> None:
    images.scripts = [lambda _: image(PNG + bytes(2500))]
    urls = [f"http://localhost:{images.port}/{name}.png" for name in "abc"]
    assert rig.run(asking(urls[0])).status == 200
    assert "too large" in rig.run(asking(*urls[:2])).json["error"]["message"]
    assert "At most 2" in rig.run(asking(*urls)).json["error"]["message"]


def test_a_host_that_drips_is_not_waited_for(images: Upstream) -> None:
    gate = Gate()
    images.scripts = [lambda _: [b"HTTP/1.1 200 OK\r\nx: ", *[b"x"] * 10, gate]]
    hosts = [f"localhost:{images.port}"]
    with Rig(configured(FetchImages, hosts=hosts, networks=["127.0.0.0/8", "::1/128"], timeout=0.3)) as rig:
        result = rig.run(asking(f"http://localhost:{images.port}/"))
    assert result.status == 400 and "upstream_timeout" in result.json["error"]["message"]
    assert images.wait_end().ended_by == "client"
    gate.open()


def test_every_address_of_a_name_must_be_public_and_the_checked_one_is_connected_to(
    images: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looked_up = socket.getaddrinfo, []
    answers: list[list[str]] = []

    def resolving(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "images.example":
            return real(host, port, *args, **kwargs)
        looked_up.append(host)
        return [entry for address in answers.pop(0) for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    url = f"http://images.example:{images.port}/"
    with Rig(configured(FetchImages, hosts=["*:" + str(images.port)])) as rig:
        for mixed in (["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"]):
            answers.append(mixed)
            result = rig.run(asking(url))
            assert result.status == 400 and "upstream_unreachable" in result.json["error"]["message"]
    assert images.connections == []
    with Rig(configured(FetchImages, hosts=["*:" + str(images.port)], networks=["127.0.0.0/8"])) as rig:
        # Whoever answers for the name says something else the second time: there is no second time.
        answers += [["127.0.0.1"], ["10.0.0.1"]]
        assert rig.run(asking(url)).status == 200
    assert len(looked_up) == 4 and images.requests[0].headers["host"] == f"images.example:{images.port}"


def test_hosts_and_networks_are_checked_at_the_start() -> None:
    for wrong in ({"hosts": []}, {"hosts": ["http://a"]}, {"hosts": ["a/b"]}, {"hosts": ["a"], "networks": ["10/8.1"]}):
        with pytest.raises(ValidationError):
            configured(FetchImages, **wrong)


def test_a_provider_that_wants_bytes_gets_them(start_gateway: Callable[..., Gateway], upstream: Upstream) -> None:
    upstream.scripts = [
        lambda asked: image(PNG) if asked.method == "GET" else whole(said(text("A dot."), finish="STOP"))
    ]
    gateway = start_gateway(f"""
        chain = ["keys"]
        plugins.keys = {{ use = "api_keys" }}
        providers.gemini = {{ use = "gemini", base_url = "http://{upstream.address}/v1beta" }}
        models.with = {{ targets = ["gemini/gemini-3-pro"], chain = ["images"] }}
        models.without = {{ targets = ["gemini/gemini-3-pro"] }}
        [plugins.images]
        use = "fetch_images"
        hosts = ["localhost:{upstream.port}"]
        networks = ["127.0.0.0/8", "::1/128"]
    """)
    with gateway.client() as client:
        asked = asking(f"http://localhost:{upstream.port}/a.png")
        assert client.chat.completions.create(model="with", **asked).choices[0].message.content == "A dot."
        sent = judged(upstream.requests[-1])["contents"][0]["parts"][1]
        assert sent == {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}
        with pytest.raises(openai.BadRequestError, match="takes no URLs"):
            client.chat.completions.create(model="without", **asked)
    assert len(upstream.requests) == 2
