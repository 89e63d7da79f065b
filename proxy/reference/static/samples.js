// The request as it stands, in the reader's language.

import { byId, element, fill } from "./dom.js";
import { csharp } from "./languages/csharp.js";
import { go } from "./languages/go.js";
import { java } from "./languages/java.js";
import { fetching, openai as nodeOpenai } from "./languages/node.js";
import { php } from "./languages/php.js";
import { openai, requests } from "./languages/python.js";
import { ruby } from "./languages/ruby.js";
import { curl } from "./languages/shell.js";
import { tabs } from "./tabs.js";

export const LANGUAGES = [
  { label: "curl", sample: curl, needs: "Needs curl." },
  { label: "Python openai", sample: openai, needs: "Needs the package openai." },
  { label: "Python requests", sample: requests, needs: "Needs the package requests." },
  { label: "Node openai", sample: nodeOpenai, needs: "Needs the package openai; an ES module (.mjs)." },
  { label: "Node fetch", sample: fetching, needs: "Needs Node 18 or newer; an ES module (.mjs)." },
  { label: "Ruby", sample: ruby, needs: "Needs Ruby 2.5 or newer." },
  { label: "PHP", sample: php, needs: "Needs PHP 8 with curl." },
  { label: "Go", sample: go, needs: "Needs Go 1.20 or newer." },
  { label: "Java", sample: java, needs: "Needs Java 15 or newer, as Sample.java." },
  { label: "C#", sample: csharp, needs: "Needs .NET 7 or newer." },
];

/** Keep the samples in step with a draft. */
export function samples(draft) {
  const code = element("code");
  const panel = element("div", {}, element("pre", { className: "sample", tabIndex: 0, "aria-label": "Sample" }, code));
  const known = new Set(Object.keys(draft.schemas.resolve(draft.schema).properties));
  let chosen = LANGUAGES[0];
  const draw = () => {
    code.textContent = chosen.sample({ url: `${location.origin}/v1`, body: draft.body, known });
    byId("sample-needs").textContent = chosen.needs;
  };
  const made = tabs("Language", LANGUAGES.map(({ label }) => ({ label, panel })), (index) => {
    chosen = LANGUAGES[index];
    draw();
  });
  fill(byId("languages"), made.element);
  draft.listen(draw);
  byId("copy").addEventListener("click", async () => {
    byId("copied").textContent = (await copied(code)) ? "Copied." : "It could not be copied: select it and copy it.";
    byId("copy").textContent = byId("copied").textContent === "Copied." ? "Copied" : "Copy failed";
    setTimeout(() => {
      byId("copy").textContent = "Copy";
    }, 1500);
  });
}

async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    // Without TLS, or without leave, browsers have no clipboard for pages, but still copy a selection.
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  }
}
