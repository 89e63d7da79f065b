// What came of a request: the answer as it arrives, the raw events, figures, and errors with what to do.

import { byId, element, fill } from "./dom.js";
import { prose } from "./controls.js";
import { tabs } from "./tabs.js";

const OWN_ADVICE = {
  unreachable: "Check the network. A gateway that is restarted answers again within a few seconds: send it again then.",
  answer_cut: "What came is not the whole answer. Send the request again.",
};

/** The panel of one answer after another. `advice(status, code)` is what the API's description says of errors. */
export class AnswerView {
  constructor(advice) {
    this.advice = advice;
    this.raw = element("pre", { className: "raw", tabIndex: 0, "aria-label": "Raw events" });
    this.text = element("div", { className: "answer-text", tabIndex: 0 });
    const panels = [{ label: "Answer", panel: this.text }, { label: "Raw events", panel: this.raw }];
    this.tabs = tabs("Answer", panels);
    fill(byId("answer"), this.tabs.element);
    byId("answer").hidden = true;
  }

  /** Begin anew, at this moment. */
  begin() {
    this.started = performance.now();
    this.first = undefined;
    this.usage = this.ended = this.status = this.id = this.target = undefined;
    this.choices = new Map();
    this.finishes = new Map();
    fill(this.text);
    fill(this.raw);
    fill(byId("failure"));
    fill(byId("figures"));
    byId("answer").hidden = false;
    this.text.setAttribute("aria-busy", "true");
    this.say("Waiting for the answer…");
    byId("answer-title").scrollIntoView({ block: "nearest" });
  }

  /** Note the response's head. */
  head(response) {
    this.status = response.status;
    this.id = response.headers.get("x-request-id");
    this.target = response.headers.get("x-lockgate-target");
    this.figures();
  }

  /** Show a line of the stream as it came. */
  line(line) {
    this.raw.append(`${line}\n`);
  }

  /** Show what a chunk adds. */
  chunk(chunk) {
    if (chunk?.usage) this.usage = chunk.usage;
    for (const choice of chunk?.choices ?? []) {
      const delta = choice.delta ?? {};
      this.add(choice.index, "reasoning", delta.reasoning_content ?? delta.reasoning);
      this.add(choice.index, "content", delta.content);
      this.add(choice.index, "refusal", delta.refusal);
      for (const call of delta.tool_calls ?? []) this.call(choice.index, call.index ?? 0, call);
      if (choice.finish_reason) this.finishes.set(choice.index, choice.finish_reason);
    }
    this.figures();
  }

  /** Show a whole completion. */
  whole(completion) {
    fill(this.raw, JSON.stringify(completion, null, 2));
    const choices = (completion.choices ?? []).map(({ message, ...choice }) => {
      const calls = message?.tool_calls?.map((call, index) => ({ ...call, index }));
      return { ...choice, delta: { ...message, tool_calls: calls } };
    });
    this.chunk({ choices, usage: completion.usage });
  }

  /** Say how it ended. */
  end(text) {
    this.ended = performance.now();
    this.text.removeAttribute("aria-busy");
    this.figures();
    this.say(text);
  }

  /** Show an error: what, where, and what to do. */
  fail(failure) {
    const { message, param, code } = failure.error;
    const partial = this.choices.size > 0;
    const facts = [["Status", failure.status || null], ["Code", code], ["Parameter", param], ["Request", failure.id]]
      .filter(([, value]) => value !== null && value !== undefined);
    fill(
      byId("failure"),
      element(
        "div",
        { className: "failure" },
        element("p", { className: "failure-message" }, String(message ?? "No reason was given.")),
        element("dl", { className: "figures" }, ...facts.map(([name, value]) => figure(name, String(value)))),
        element("p", {}, element("strong", {}, "What to do: "), ...prose(this.advised(failure))),
        partial ? element("p", {}, "What came before is below. It is not the whole answer.") : null,
      ),
    );
    if (partial) return;
    // The error says it all.
    fill(byId("figures"));
    byId("answer").hidden = !this.raw.firstChild;
  }

  advised({ status, error }) {
    return OWN_ADVICE[error.code] ?? this.advice(status, error.code);
  }

  /** The text of the first answer so far. */
  said() {
    return this.choices.get("0:content")?.data ?? "";
  }

  say(text) {
    byId("answer-state").textContent = text;
  }

  add(index, kind, piece) {
    if (typeof piece !== "string" || piece === "") return;
    this.first ??= performance.now();
    const name = `${index}:${kind}`;
    let node = this.choices.get(name);
    if (!node) {
      node = document.createTextNode("");
      this.choices.set(name, node);
      const label = kind === "content" ? (index ? `Answer ${index + 1}` : null) : kind === "reasoning" ? "Reasoning" : "Refusal";
      this.text.append(element("div", { className: `said ${kind}` }, label ? element("p", { className: "label" }, label) : null, element("p", {}, node)));
    }
    node.appendData(piece);
  }

  call(index, at, { function: called, custom }) {
    this.first ??= performance.now();
    const name = `${index}:call:${at}`;
    let parts = this.choices.get(name);
    if (!parts) {
      parts = { name: document.createTextNode(""), input: document.createTextNode("") };
      this.choices.set(name, parts);
      this.text.append(element("div", { className: "said call" }, element("p", { className: "label" }, "Calls ", element("code", {}, parts.name)), element("pre", {}, parts.input)));
    }
    parts.name.appendData(called?.name ?? custom?.name ?? "");
    parts.input.appendData(called?.arguments ?? custom?.input ?? "");
  }

  figures() {
    const seconds = (at) => (at === undefined ? null : `${((at - this.started) / 1000).toFixed(2)} s`);
    const usage = this.usage && `${this.usage.prompt_tokens} + ${this.usage.completion_tokens} = ${this.usage.total_tokens} tokens`;
    const finish = [...new Set(this.finishes.values())].join(", ") || null;
    const all = [
      ["Status", this.status], ["Time to first token", seconds(this.first)], ["Total", seconds(this.ended)],
      ["Usage", usage], ["Finish", finish], ["Answered by", this.target], ["Request", this.id],
    ];
    fill(byId("figures"), ...all.filter(([, value]) => value).map(([name, value]) => figure(name, String(value))));
  }
}

function figure(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}
