// Puts the page together: the description is fetched, then form, samples, answer and recent requests share one draft.

import { AnswerView } from "./answer.js";
import { byId } from "./dom.js";
import { Draft } from "./draft.js";
import { form } from "./form.js";
import { chat, Failure, get } from "./gateway.js";
import { Recent } from "./recent.js";
import { samples } from "./samples.js";
import { Schemas, written } from "./schemas.js";

const description = await get("/openapi.json");
const operation = description.paths["/v1/chat/completions"].post;
const request = operation.requestBody.content["application/json"];
const draft = new Draft(new Schemas(description), request.schema);
const view = new AnswerView(advice);
const recent = new Recent(() => key, (failure) => view.advised(failure));
const shape = form(draft, request.examples);

// In memory alone: never in storage, in the URL, or in the samples.
let key = "";
let abort;

byId("form").append(shape.element);
samples(draft);
draft.listen(tellState);
draft.replace({
  model: "",
  messages: [{ role: "user", content: "Say hello." }],
  stream: true,
  stream_options: { include_usage: true },
});

function advice(status, code) {
  const answer = operation.responses[status];
  const told = answer && draft.schemas.resolve(answer);
  const byCode = Object.values(operation.responses).map((one) => draft.schemas.resolve(one)["x-codes"]?.[code]).find(Boolean);
  return told?.["x-codes"]?.[code] ?? byCode ?? told?.description ?? "Ask the people who run the gateway, with the request's id.";
}

function tellState() {
  const problems = draft.problems();
  const [first] = problems;
  const place = first && written(first.path);
  byId("draft-state").textContent = draft.unreadable
    ?? (first ? `${first.refused ? "Refused" : "Not right yet"}: ${first.refused ? place : `${place} ${first.text}`}${problems.length > 1 ? `, and ${problems.length - 1} more` : ""}` : "");
}

async function useKey() {
  const given = byId("key").value.trim();
  if (given === key) return;
  key = given;
  byId("key-state").textContent = "";
  byId("key-state").classList.remove("bad");
  shape.offer([]);
  await Promise.all([loadModels(), recent.refresh()]);
}

async function loadModels() {
  const asked = key;
  if (!asked) return;
  byId("key-state").textContent = "Looking for the models of this key…";
  try {
    const { data } = await get("/v1/models", asked);
    if (asked !== key) return;
    const names = data.map(({ id }) => id);
    shape.offer(names);
    if (!draft.body.model && names.length) draft.set("model", names[0]);
    byId("key-state").textContent = names.length
      ? `This key may use ${names.length === 1 ? "one model" : `${names.length} models`}: ${names.slice(0, 6).join(", ")}${names.length > 6 ? ", …" : ""}`
      : "No model is listed for this key; one that a pattern allows can be typed in.";
  } catch (failure) {
    if (asked !== key) return;
    byId("key-state").classList.add("bad");
    byId("key-state").textContent = `${failure.error?.message ?? failure.message} ${view.advised(failure).replaceAll("`", "")}`;
  }
}

async function send() {
  if (abort) return;
  useKey();
  if (draft.unreadable) {
    view.say(`Nothing was sent. ${draft.unreadable}`);
    return;
  }
  abort = new AbortController();
  byId("send").disabled = true;
  byId("stop").disabled = false;
  view.begin();
  try {
    await chat(draft.body, key, abort.signal, {
      onhead: (response) => view.head(response),
      onwhole: (completion) => view.whole(completion),
      online: (line) => view.line(line),
      onchunk: (chunk) => view.chunk(chunk),
    });
    view.end("The answer is complete.");
  } catch (failure) {
    told(failure);
  } finally {
    abort = undefined;
    byId("stop").disabled = true;
    byId("send").disabled = false;
    if (key) recent.follow();
  }
}

function told(failure) {
  if (failure.name === "AbortError") {
    view.end("Stopped. What had come by then is not the whole answer.");
    return;
  }
  const known = failure instanceof Failure
    ? failure
    : new Failure(0, { message: "This page failed to read the answer.", type: null, param: null, code: "answer_cut" }, null);
  view.end("There is an error.");
  view.fail(known);
  if (known.error.code === "answer_cut" && known.id) explain(known);
  // This one names no parameter, as OpenAI's does not.
  const param = known.error.code === "model_not_found" ? "model" : known.error.param;
  if (param) draft.refuse({ param, text: String(known.error.message) });
}

// When a connection breaks, browsers throw away what they have not handed over yet, often the very event that says why.
// The gateway's record of the request says it too.
async function explain(failure) {
  const { started } = view;
  const record = await recent.find(failure.id);
  if (!record || view.started !== started) return;
  const message = "The answer broke off. The gateway's record of the request says why.";
  view.fail(new Failure(record.status, { message, type: null, param: null, code: record.error }, failure.id));
}

byId("send").addEventListener("click", send);
byId("stop").addEventListener("click", () => abort?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
});
byId("key-use").addEventListener("click", useKey);
byId("key").addEventListener("change", useKey);
byId("key").addEventListener("keydown", (event) => {
  if (event.key === "Enter") useKey();
});
byId("key-show").addEventListener("click", () => {
  const shown = byId("key-show").getAttribute("aria-pressed") !== "true";
  byId("key-show").setAttribute("aria-pressed", String(shown));
  byId("key").classList.toggle("secret", !shown);
});
