"""A provider for Ollama's own API, which streams lines of JSON."""

from __future__ import annotations

import orjson
from marshmallow import Schema, fields

from proxy import UpstreamError
from proxy.failures import failure
from proxy.providers.base import Outgoing
from proxy.providers.chunks import Chunks, finish_reason, folded, usage
from proxy.providers.translation import asks, unsupported

OPTIONS = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_completion_tokens": "num_predict"}
REFUSED = ("tools", "functions", "n", "logprobs", "modalities", "response_format", "web_search_options")
DROPPED = ("stop", "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "verbosity")


class OllamaChat:
    """Speaks Ollama's /api/chat, texts only."""

    name = "ollama_chat"
    native = False
    parameters = frozenset({"think"})

    class Config(Schema):
        base_url = fields.Url(require_tld=False, load_default="http://127.0.0.1:11434")

    def __init__(self, config):
        self.url = config["base_url"] + "/api/chat"

    def open(self, exchange, body):
        for name in REFUSED:
            if asks(body, name):
                raise unsupported(name)
        request = {name: body[name] for name in ("model", "think") if name in body}
        request["stream"] = exchange.stream
        request["messages"] = [{"role": each["role"], "content": text_of(each)} for each in body["messages"]]
        request["options"] = {own: body[name] for name, own in OPTIONS.items() if body.get(name) is not None}
        outgoing = Outgoing(self.url, orjson.dumps(request), {"Content-Type": "application/json"})
        return Call(exchange, outgoing, [name for name in DROPPED if asks(body, name)])


class Call:
    def __init__(self, exchange, outgoing, dropped):
        self.outgoing, self.dropped, self.complete = outgoing, dropped, False
        self.chunks, self.rest = Chunks(exchange), b""

    def frames(self, chunk):
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return [line for line in lines if line]

    def events(self, line):
        said = orjson.loads(line)
        if "error" in said:
            raise failure(500, {}, said["error"])
        events = self.chunks.reasoning(said["message"].get("thinking") or "")
        events += self.chunks.text(said["message"]["content"])
        if said["done"]:
            self.complete = True
            events += self.chunks.finish(finish_reason(said.get("done_reason")))
            events += self.chunks.usage(usage(said.get("prompt_eval_count") or 0, said.get("eval_count") or 0))
        return events

    def completion(self, body):
        return folded(self.events(body))

    def error(self, status, headers, body) -> UpstreamError:
        said = orjson.loads(body) if body.startswith(b"{") else {}
        return failure(status, headers, said.get("error", ""))


def text_of(message):
    content = message["content"] or ""
    if isinstance(content, str):
        return content
    if any(part["type"] != "text" for part in content):
        raise unsupported("messages", "Only texts are supported with this model.")
    return "".join(part["text"] for part in content)
