"""What Bedrock says, in frames of its own layout, and botocore as judge of what it is sent and how it is signed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator
from upstreams import Request, chunked, head, json_answer

_SERVICE = botocore.session.Session().get_service_model("bedrock-runtime")

USAGE = {"inputTokens": 10, "outputTokens": 7, "totalTokens": 23, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 2}


def judged(body: dict[str, Any], operation: str = "Converse") -> dict[str, Any]:
    """Return the body of a request that botocore's model of the operation allows in every part."""
    shape = _SERVICE.operation_model(operation).input_shape
    report = ParamValidator().validate({"modelId": "m", **body}, shape)
    assert not report.has_errors(), report.generate_report()
    return body


def signed(request: Request, secret: str, region: str) -> bool:
    """Tell whether a request carries the signature that botocore makes of what has arrived."""
    headers = request.headers
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"content-type", "host", "x-amz-date"} <= set(names)
    url = f"http://{headers['host']}{request.path}"
    again = AWSRequest(request.method, url, {name: headers[name] for name in names if name != "host"}, request.body)
    again.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", secret), "bedrock", region)
    text = auth.string_to_sign(again, auth.canonical_request(again))
    return headers["authorization"].endswith("Signature=" + auth.signature(text, again))


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one frame of an event stream."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    start = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + payload
    return start + struct.pack("!I", zlib.crc32(start))


def event(name: str, body: dict[str, Any]) -> bytes:
    """Return an event as a frame, padded as Bedrock pads them."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps({**body, "p": "abcdefgh"}).encode())


def exception(name: str, message: str) -> bytes:
    """Return an exception within a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def message(*blocks: dict[str, Any], stop: str = "end_turn", usage: dict[str, int] = USAGE) -> dict[str, Any]:
    """Return an answer of Converse."""
    output = {"message": {"role": "assistant", "content": list(blocks)}}
    return {"output": output, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 5}}


def thinking(text: str, signature: str = "sig+/=") -> dict[str, Any]:
    """Return a block of reasoning."""
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}


def tool_use(name: str, id: str = "tooluse_1", **arguments: Any) -> dict[str, Any]:
    """Return a call."""
    return {"toolUse": {"toolUseId": id, "name": name, "input": arguments}}


def events(message: dict[str, Any], split: int = 3) -> Iterator[bytes]:
    """Yield an answer as ConverseStream's frames, its texts in pieces of `split` characters."""
    yield event("messageStart", {"role": "assistant"})
    for index, block in enumerate(message["output"]["message"]["content"]):
        at = {"contentBlockIndex": index}
        if "toolUse" in block:
            start = {"toolUseId": block["toolUse"]["toolUseId"], "name": block["toolUse"]["name"]}
            yield event("contentBlockStart", {**at, "start": {"toolUse": start}})
        for delta in _deltas(block, split):
            yield event("contentBlockDelta", {**at, "delta": delta})
        yield event("contentBlockStop", at)
    yield event("messageStop", {"stopReason": message["stopReason"]})
    yield event("metadata", {"usage": message["usage"], "metrics": message["metrics"]})


def _deltas(block: dict[str, Any], split: int) -> Iterator[dict[str, Any]]:
    def cut(text: str) -> list[str]:
        return [text[at : at + split] for at in range(0, len(text), split)]

    if "text" in block:
        yield from ({"text": piece} for piece in cut(block["text"]))
    elif "toolUse" in block and block["toolUse"]["input"]:
        yield from ({"toolUse": {"input": piece}} for piece in cut(json.dumps(block["toolUse"]["input"])))
    elif "citationsContent" in block:
        cited = block["citationsContent"]
        yield from ({"text": piece} for part in cited["content"] for piece in cut(part["text"]))
        yield from ({"citation": citation} for citation in cited["citations"])
    elif "reasoningContent" in block:
        said = block["reasoningContent"]
        if "redactedContent" in said:
            yield {"reasoningContent": said}
        else:
            yield from ({"reasoningContent": {"text": piece}} for piece in cut(said["reasoningText"]["text"]))
            yield {"reasoningContent": {"signature": said["reasoningText"]["signature"]}}


def streaming(*parts: bytes, last: bool = True) -> bytes:
    """Return frames as an answer of ConverseStream."""
    start = head(200, content_type="application/vnd.amazon.eventstream", transfer_encoding="chunked")
    return start + chunked(*parts, last=last)


def answer(message: dict[str, Any]) -> Any:
    """Return a script that answers with a message, by whichever operation it was asked."""

    def script(request: Request) -> bytes:
        return streaming(*events(message)) if request.path.endswith("/converse-stream") else json_answer(message)

    return script
