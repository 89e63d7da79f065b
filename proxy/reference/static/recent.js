// Recent Requests of the key that is in use, page by page.

import { byId, element, fill } from "./dom.js";
import { get } from "./gateway.js";

const PAGE = 10;
const SHIPPED_MS = 2500;
const LOOKS = 8;
const LOOK_MS = 750;
const HEADINGS = ["Time", "Status", "Model", "Tokens", "Duration", "Streamed", "User agent"];

/** The list; `key()` is the key in use, `advised(failure)` what to do about an error. */
export class Recent {
  #cursors = [undefined];
  #asked = 0;

  constructor(key, advised) {
    this.key = key;
    this.advised = advised;
    byId("recent-refresh").addEventListener("click", () => this.refresh());
    byId("recent-older").addEventListener("click", () => this.#turn([...this.#cursors, this.next]));
    byId("recent-newer").addEventListener("click", () => this.#turn(this.#cursors.slice(0, -1)));
  }

  /** Show the newest now, and once more when the ledger has what has just ended; another page is left alone. */
  follow() {
    if (this.#cursors.length > 1) return;
    this.refresh();
    setTimeout(() => {
      if (this.#cursors.length === 1) this.refresh();
    }, SHIPPED_MS);
  }

  /** Return what is recorded of a request with an error, once it is there; undefined where it does not come. */
  async find(id) {
    for (let look = 0; look < LOOKS && this.key(); look += 1) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      const page = await get("/v1/requests?limit=20", this.key()).catch(() => ({ data: [] }));
      const found = page.data.find((one) => one.id === id);
      if (found) return found.error ? found : undefined;
    }
    return undefined;
  }

  /** Show the newest again, or that a key is needed. */
  async refresh() {
    await this.#turn([undefined]);
  }

  async #turn(cursors) {
    const key = this.key();
    const asked = ++this.#asked;
    byId("recent-refresh").disabled = !key;
    if (!key) return this.#empty("Enter a key to see its history.");
    const cursor = cursors.at(-1);
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(cursor ? { after: cursor } : {}) });
      const page = await get(`/v1/requests?${query}`, key);
      // Another key, or another page, has been asked for meanwhile.
      if (asked !== this.#asked) return undefined;
      this.#cursors = cursors;
      this.next = page.next_cursor;
      this.#show(page);
    } catch (failure) {
      if (asked === this.#asked) this.#empty(`${failure.error?.message ?? failure.message} ${this.advised(failure).replaceAll("`", "")}`);
    }
    return undefined;
  }

  #empty(text) {
    byId("recent-state").textContent = text;
    byId("recent-table").hidden = byId("recent-pager").hidden = true;
    fill(byId("recent-table"));
  }

  #show(page) {
    if (!page.data.length) return this.#empty("Nothing is known of this key yet; a request is told here a few seconds after its end.");
    const number = this.#cursors.length;
    const source = page.source === "journal" ? " From this host alone, as the ledger cannot be reached." : "";
    byId("recent-state").textContent = `Page ${number}, ${page.data.length} requests.${source}`;
    fill(
      byId("recent-table"),
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...HEADINGS.map((name) => element("th", { scope: "col" }, name)))),
        element("tbody", {}, ...page.data.map(row)),
      ),
    );
    byId("recent-table").hidden = false;
    byId("recent-pager").hidden = number === 1 && !page.has_more;
    byId("recent-newer").disabled = number === 1;
    byId("recent-older").disabled = !page.has_more;
    return undefined;
  }
}

function row(one) {
  const time = new Date(one.created * 1000);
  const tokens = one.usage && `${one.usage.prompt_tokens} + ${one.usage.completion_tokens}${one.estimated ? " (estimated)" : ""}`;
  const status = one.status ? `${one.status}${one.error ? ` ${one.error}` : ""}` : one.state;
  const kind = String(one.status ?? "0")[0];
  return element(
    "tr",
    {},
    element("td", {}, element("time", { dateTime: time.toISOString() }, time.toLocaleString())),
    element("td", {}, element("span", { className: `status status-${kind}` }, status)),
    element("td", {}, one.model ?? one.path ?? "–"),
    element("td", { className: "number" }, tokens ?? "–"),
    element("td", { className: "number" }, one.duration === null ? "–" : `${one.duration.toFixed(2)} s`),
    element("td", {}, one.streamed ? "streamed" : "whole"),
    element("td", { className: "agent", title: one.user_agent ?? "" }, one.user_agent ?? "–"),
  );
}
