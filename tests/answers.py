"""Answers as upstreams give them: in every legal framing, broken on the way, and none at all."""

from __future__ import annotations

from upstreams import End, bytewise, chunked, gzipped, head, json_answer, sse, stream_answer, streaming

from proxy.testing import completion, stream

#: The same answer, "Hello there", in every framing that is legal.
LEGAL = {
    "as OpenAI sends it": lambda: stream_answer(),
    "one byte at a time": lambda: [
        streaming(),
        *(chunked(b, last=False) for b in bytewise(sse(stream()))),
        b"0\r\n\r\n",
    ],
    "CRLF": lambda: stream_answer(sse(stream(), end=b"\r\n")),
    "CR": lambda: stream_answer(sse(stream(), end=b"\r")),
    "a byte order mark": lambda: stream_answer(b"\xef\xbb\xbf" + sse(stream())),
    "comments": lambda: stream_answer(
        b": hello\n\n:\n" + sse(stream()).replace(b"\n\n", b"\n\n: OPENROUTER PROCESSING\n\n")
    ),
    "an id": lambda: stream_answer(b"id: 1\n" + sse(stream()) + b": x\n\n"),
    "retry": lambda: stream_answer(b"retry: 3000\n\n" + sse(stream())),
    "event names": lambda: stream_answer(sse(stream()).replace(b"data: {", b"event: message\ndata: {")),
    "an event without data": lambda: stream_answer(b"event: ping\n\ndata:\n\n" + sse(stream())),
    "data over several lines": lambda: stream_answer(
        sse(stream()).replace(b',"choices"', b',\ndata: "choices"').replace(b', "choices"', b',\ndata: "choices"')
    ),
    "no space after the colon": lambda: stream_answer(sse(stream()).replace(b"data: ", b"data:")),
    "gzip": lambda: gzipped(sse(stream()), content_type="text/event-stream"),
    "the end of the connection as the end": lambda: [
        head(200, content_type="text/event-stream", connection="close"),
        sse(stream()),
        End("fin"),
    ],
    "data after [DONE]": lambda: stream_answer(sse(stream()) + b"data: {}\n\n"),
    "a whole completion instead": lambda: json_answer(completion()),
}


def hello(*more: dict) -> bytes:
    """The beginning of a stream: its first two events, and more."""
    return sse([*stream()[:2], *more], done=False)


#: Streams that begin well and are none in the end.
BROKEN = {
    "the connection ends": lambda: [streaming(), chunked(hello(), last=False), End("fin")],
    "the connection is reset": lambda: [streaming(), chunked(hello(), last=False), End("rst")],
    "the body ends without [DONE]": lambda: stream_answer(sse(stream(), done=False)),
    "no finish reason": lambda: stream_answer(hello() + b"data: [DONE]\n\n"),
    "the end is in the middle of an event": lambda: stream_answer(hello()[:-20]),
    "garbage": lambda: stream_answer(hello() + b"data: {nonsense\n\n"),
    "invalid UTF-8": lambda: stream_answer(hello() + b'data: {"choices": [], "x": "\xff\xfe"\n\n'),
    "HTML": lambda: stream_answer(hello() + b"data: <html></html>\n\n"),
    "a line without end": lambda: [
        streaming(),
        chunked(hello(), last=False),
        *[chunked(b"x" * 65536, last=False)] * 160,
    ],
    "an error object": lambda: stream_answer(hello({"error": {"message": "boom", "type": "server_error"}})),
    "an error text": lambda: stream_answer(hello({"error": "boom"})),
    "a flat error": lambda: stream_answer(hello({"message": "boom", "code": "x"})),
    "an error event": lambda: stream_answer(hello() + b'event: error\ndata: {"type": "overloaded"}\n\n'),
    "an error within a chunk": lambda: stream_answer(hello({**stream()[2], "error": {"message": "boom"}})),
    "a bad chunk size": lambda: [streaming(), chunked(hello(), last=False), b"zz\r\n"],
}

#: What is no answer from the beginning.
WORTHLESS = {
    "an empty body": lambda: json_answer(b""),
    "not JSON": lambda: json_answer(b"<html>login</html>"),
    "an error with status 200": lambda: json_answer({"error": {"message": "boom", "code": 500}}),
    "no choices": lambda: json_answer({"object": "chat.completion"}),
    "choices null": lambda: json_answer({"choices": None}),
    "no content": lambda: head(204),
    "a body shorter than its length": lambda: [
        head(200, content_type="application/json", content_length=500),
        b'{"ch',
        End("fin"),
    ],
    "a reset": lambda: [head(200, content_type="application/json", content_length=500), End("rst")],
    "a closed connection": lambda: [End("fin")],
    "a header without end": lambda: [b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", End("fin")],
    "too many headers": lambda: [head(200, **{f"h{n}": 1 for n in range(101)}), End("fin")],
    "no HTTP": lambda: [b"SSH-2.0-OpenSSH_9.2\r\n", End("fin")],
    "a stream without events": lambda: stream_answer(b""),
    "only [DONE]": lambda: stream_answer(b"data: [DONE]\n\n"),
    "an error first": lambda: stream_answer(sse([{"error": {"message": "boom"}}], done=False)),
}
