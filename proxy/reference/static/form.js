// The form of Try It: every parameter of the request, the conversation, and the JSON view, all on one draft.

import { element, freshId } from "./dom.js";
import { control } from "./controls.js";
import { conversation } from "./conversation.js";
import { written } from "./schemas.js";

const FIRST = ["model", "messages", "stream"];

/** Return the form of a draft: `element`, and `offer(models)` for the model's field. */
export function form(draft, examples) {
  const { properties: members, required } = draft.schemas.resolve(draft.schema);
  const models = element("datalist", { id: freshId("models") });
  const controls = new Map();
  const spoilt = new Map();

  for (const [name, schema] of Object.entries(members)) {
    const changed = (value, wrong) => {
      if (wrong) spoilt.set(name, wrong);
      else spoilt.delete(name);
      draft.set(name, value, name);
      if (spoilt.size) draft.spoil(`${[...spoilt.keys()].join(", ")}: no JSON`, name);
    };
    const made = name === "messages"
      ? conversation(draft.schemas, schema, changed)
      : control(name, draft.schemas, schema, required.includes(name), changed);
    controls.set(name, made);
    draft.listen(() => {
      spoilt.delete(name);
      made.show(draft.body[name]);
    }, name);
  }
  const model = controls.get("model").element.querySelector("input");
  model.setAttribute("list", models.id);
  model.placeholder = "a model's name";

  const more = element("summary");
  const others = [...controls.keys()].filter((name) => !FIRST.includes(name));
  const example = exampleChoice(draft, examples);
  const json = jsonView(draft);

  draft.listen(() => {
    const problems = draft.problems();
    for (const [name, made] of controls) {
      const own = problems.filter(({ path }) => path[0] === name).map((one) => ({ ...one, path: one.path.slice(1) }));
      made.complain(name === "messages" ? own : own.map(({ path, text, refused }) => (path.length && !refused ? `${written(path)} ${text}` : text)));
    }
    const count = others.filter((name) => name in draft.body).length;
    more.textContent = count ? `More parameters (${count} set)` : "More parameters";
  });

  return {
    element: element(
      "div",
      {},
      example,
      ...FIRST.map((name) => controls.get(name).element),
      models,
      element("details", { className: "more" }, more,
        element("div", { className: "grid" }, ...others.map((name) => controls.get(name).element))),
      json,
    ),
    offer(names) {
      models.replaceChildren(...names.map((name) => element("option", { value: name })));
    },
  };
}

function exampleChoice(draft, examples) {
  const id = freshId("example");
  const entries = Object.values(examples);
  const select = element(
    "select",
    {
      id,
      onchange: () => {
        if (select.value === "") return;
        const { value } = entries[Number(select.value)];
        draft.replace({ ...structuredClone(value), model: draft.body.model || value.model });
        select.value = "";
      },
    },
    element("option", { value: "" }, "Choose…"),
    ...entries.map(({ summary }, at) => element("option", { value: String(at) }, summary)),
  );
  return element("div", { className: "field inline" }, element("label", { htmlFor: id }, "Begin with an example"), select);
}

function jsonView(draft) {
  const id = freshId("json");
  const problem = element("p", { className: "problem", id: `${id}-problem`, hidden: true });
  const area = element("textarea", {
    id,
    className: "code",
    rows: 12,
    spellcheck: false,
    "aria-describedby": problem.id,
    oninput: () => {
      let body;
      try {
        body = JSON.parse(area.value);
      } catch (error) {
        draft.spoil(`The JSON view holds no JSON: ${error.message}`, area);
        return complain(`No JSON: ${error.message}. The form keeps what was last right.`);
      }
      if (body === null || typeof body !== "object" || Array.isArray(body)) {
        draft.spoil("The JSON view holds no object.", area);
        return complain("The body must be an object.");
      }
      draft.replace(body, area);
      return complain("");
    },
  });
  function complain(text) {
    problem.hidden = !text;
    problem.textContent = text;
    if (text) area.setAttribute("aria-invalid", "true");
    else area.removeAttribute("aria-invalid");
  }
  draft.listen(() => {
    if (draft.unreadable) return;
    area.value = JSON.stringify(draft.body, null, 2);
    area.rows = Math.min(28, Math.max(6, area.value.split("\n").length));
    complain("");
  }, area);
  return element("div", { className: "field json" }, element("label", { htmlFor: id }, "The body as JSON"), area, problem);
}
