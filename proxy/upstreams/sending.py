"""What is sent to an upstream: a request's line and headers, the provider's, the plugins' and the core's."""

from __future__ import annotations

import re

from requests.utils import requote_uri

from proxy.errors import Reject
from proxy.providers.base import Outgoing
from proxy.upstreams.adapter import Origin
from proxy.upstreams.heads import NAME

#: A path and query that are sent as they are (RFC 3986, 3.3 and 3.4).
_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")


def request(outgoing: Outgoing, origin: Origin) -> bytes:
    """Return a request as it is sent, in one piece: head and body are one packet where they fit.

    Raises `ValueError` where a header of the provider's is none.
    """
    url = outgoing.url
    start = url.find("/", 8)
    target = url[start:] if start > 0 else "/"
    if not _TARGET.fullmatch(target):
        target = requote_uri(target).partition("#")[0]
    # A stream that is compressed is a stream that is buffered somewhere.
    headers = {
        "host": f"Host: {origin.host}", "user-agent": "User-Agent: lockgate",
        "accept-encoding": "Accept-Encoding: identity",
    }  # fmt: skip
    for name, value in outgoing.headers.items():
        headers[name.lower()] = f"{name}: {value}"
    # Where the body ends is not for a configuration to say.
    headers.pop("transfer-encoding", None)
    headers["content-length"] = f"Content-Length: {len(outgoing.body)}"
    lines = [f"{outgoing.method} {origin.absolute}{target} HTTP/1.1", *origin.headers, *headers.values()]
    for line in lines:
        if not (line.isascii() and line.isprintable()):
            raise ValueError(f"the header {line.partition(':')[0]!r} is no printable ASCII")
    lines += ["", ""]
    return "\r\n".join(lines).encode() + outgoing.body


def beside(own: dict[str, str], added: dict[str, str]) -> dict[str, str]:
    """Return a provider's headers with those that plugins add, which replace none of them and none of the core's.

    Raises `Reject` where what is added is no header.
    """
    taken = {name.lower() for name in own} | _CORE
    for name, value in added.items():
        if not NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise Reject(500, "plugin_error", "A plugin of the gateway has made a header that is none.")
    return {name: value for name, value in added.items() if name.lower() not in taken} | own


#: What says where a request ends and how its answer comes is the core's to say.
_CORE = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"accept-encoding", "user-agent", "proxy-authorization", "proxy-connection"}
)
