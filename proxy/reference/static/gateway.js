// Calls of the gateway that serves this page, and of no other.

import { Events } from "./sse.js";

/** Why a call has no answer: `status` (0 where there is none), `error` as the gateway tells it, the request's `id`. */
export class Failure extends Error {
  constructor(status, error, id) {
    super(error.message);
    this.status = status;
    this.error = error;
    this.id = id;
  }
}

/** Return a GET's JSON; throws `Failure`. */
export async function get(path, key) {
  const response = await ask(path, { headers: authorization(key) });
  return read(response);
}

/**
 * Send a chat request and hand over what comes: `onhead(response)`, then `onwhole(completion)` or, of a stream,
 * `online(line)` and `onchunk(chunk)`. Returns whether a stream ended with `[DONE]`; throws `Failure`.
 */
export async function chat(body, key, signal, { onhead, onwhole, online, onchunk }) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { ...authorization(key), "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  onhead(response);
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
    onwhole(await read(response));
    return true;
  }
  let done = false;
  const id = response.headers.get("x-request-id");
  const events = new Events((data) => {
    if (data === "[DONE]") {
      done = true;
      return;
    }
    const chunk = parsed(data);
    if (chunk?.error) throw new Failure(response.status, chunk.error, id);
    onchunk(chunk);
  }, online);
  // No TextDecoderStream: a pipe drops what it holds when its source breaks, and the last event is what tells why.
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { value, done: over } = await reader.read();
      if (over) break;
      events.push(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw new Failure(0, cut("The connection broke before the answer was complete."), id);
  }
  if (!done) throw new Failure(0, cut("The answer ended before it was complete."), id);
  return done;
}

async function ask(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { message: "The gateway cannot be reached.", type: null, param: null, code: "unreachable" }, null);
  }
}

async function read(response) {
  const id = response.headers.get("x-request-id");
  let body;
  try {
    body = parsed(await response.text());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, cut("The connection broke before the answer was complete."), id);
  }
  if (response.ok && body) return body;
  const error = body?.error ?? { message: "What came is no answer of the gateway.", type: null, param: null, code: null };
  throw new Failure(response.status, error, id);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function authorization(key) {
  if (!key) return {};
  // Other characters cannot be in a header, and fetch would only say that something failed.
  if (!/^[\x21-\x7e]+$/.test(key)) {
    const message = "A key has letters, digits and signs only, without spaces: something else was copied with it.";
    throw new Failure(0, { message, type: null, param: null, code: "invalid_api_key" }, null);
  }
  return { Authorization: `Bearer ${key}` };
}

const cut = (message) => ({ message, type: null, param: null, code: "answer_cut" });
