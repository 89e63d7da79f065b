// One control for each parameter, made from its schema: what it is, how it is typed, what is wrong beside it.

import { element, freshId } from "./dom.js";

const kindsIn = (rules) => [rules.type ?? []].flat();

/** Return text in which what stands between backticks is code. */
export function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

/**
 * Return the control of a parameter: `element`, `show(value)` and `complain(texts)`. `required` marks it so.
 *
 * `onchange` is told each new value, undefined where the parameter is not to be sent.
 */
export function control(name, schemas, schema, required, onchange) {
  const rules = schemas.resolve(schema);
  const id = freshId("control");
  const input = inputFor(schemas, rules, onchange);
  const problem = element("p", { id: `${id}-problem`, className: "problem", hidden: true });
  input.focus.id = id;
  input.focus.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
  const label = element(
    "label",
    { htmlFor: id },
    element("code", {}, name),
    required ? element("span", { className: "mark required" }, "required") : null,
    rules.deprecated ? element("span", { className: "mark" }, "deprecated") : null,
  );
  const box = input.focus.type === "checkbox";
  const block = element(
    "div",
    { className: "field", "data-parameter": name },
    box ? element("div", { className: "check" }, input.focus, label) : label,
    ...input.elements,
    problem,
    element("p", { id: `${id}-help`, className: "help" }, ...prose(rules.description ?? "")),
  );
  return {
    element: block,
    show: input.show,
    complain(texts) {
      const all = [...(input.own?.() ?? []), ...texts];
      problem.hidden = all.length === 0;
      problem.textContent = all.join("; ");
      if (all.length) input.focus.setAttribute("aria-invalid", "true");
      else input.focus.removeAttribute("aria-invalid");
    },
  };
}

function inputFor(schemas, given, onchange) {
  // One form or null is that form.
  const forms = (given.anyOf ?? []).filter((form) => form.type !== "null");
  const rules = forms.length === 1 ? schemas.resolve(forms[0]) : given;
  const kinds = kindsIn(rules).filter((kind) => kind !== "null");
  if (rules.enum) return choice(rules.enum, rules, onchange);
  if (kinds.length === 1 && kinds[0] === "boolean") {
    return choice([true, false, ...(kindsIn(rules).includes("null") ? [null] : [])], rules, onchange);
  }
  if (kinds.length === 1 && (kinds[0] === "number" || kinds[0] === "integer")) return line(rules, onchange, asNumber);
  if (kinds.length === 1 && kinds[0] === "string") return line(rules, onchange, (text) => text);
  if (kinds.length === 1 && kinds[0] === "object" && rules.properties) return group(schemas, rules, onchange);
  return json(schemas, rules, onchange);
}

/** An object's members, each with a control of its own, behind a box that says whether it is sent at all. */
function group(schemas, rules, onchange) {
  let value;
  const members = Object.entries(rules.properties).map(([name, schema]) => [
    name,
    control(name, schemas, schema, (rules.required ?? []).includes(name), (next) => {
      value = { ...value };
      if (next === undefined) delete value[name];
      else value[name] = next;
      onchange(value);
    }),
  ]);
  const inside = element("div", { className: "group" }, ...members.map(([, member]) => member.element));
  const box = element("input", {
    type: "checkbox",
    onchange: () => {
      show(box.checked ? schemas.skeleton(rules) : undefined);
      onchange(value);
    },
  });
  function show(next) {
    value = next;
    const there = next !== undefined && next !== null;
    box.checked = there;
    inside.hidden = !there;
    for (const [name, member] of members) member.show(there ? next[name] : undefined);
  }
  return { elements: [inside], focus: box, show };
}

const asNumber = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

function choice(values, rules, onchange) {
  const unset = "default" in rules ? `not sent (${JSON.stringify(rules.default)})` : "not sent";
  const select = element(
    "select",
    { onchange: () => onchange(select.value === "" ? undefined : JSON.parse(select.value)) },
    element("option", { value: "" }, unset),
    ...values.map((value) => element("option", { value: JSON.stringify(value) }, String(value))),
  );
  const show = (value) => {
    select.value = value === undefined ? "" : JSON.stringify(value);
    // Something that is none of the choices, from the JSON view: it is shown as it is.
    if (select.selectedIndex < 0) {
      select.append(element("option", { value: JSON.stringify(value) }, JSON.stringify(value)));
      select.value = JSON.stringify(value);
    }
  };
  return { elements: [select], focus: select, show };
}

function line(rules, onchange, parsed) {
  const input = element("input", {
    type: "text",
    inputMode: parsed === asNumber ? "decimal" : "text",
    autocomplete: "off",
    spellcheck: false,
    placeholder: "default" in rules ? String(rules.default) : "not sent",
    oninput: () => onchange(input.value === "" ? undefined : parsed(input.value)),
  });
  const show = (value) => {
    input.value = value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  };
  return { elements: [input], focus: input, show };
}

/** What has no simpler control is written as JSON, from skeletons of its forms. */
function json(schemas, rules, onchange) {
  const text = kindsIn(rules).includes("string") || (rules.anyOf ?? []).some((form) => kindsIn(schemas.resolve(form)).includes("string"));
  let wrong = [];
  const area = element("textarea", {
    rows: 1,
    className: "code",
    spellcheck: false,
    placeholder: text ? "text or JSON" : "JSON",
    oninput: () => {
      grow(area);
      const value = read(area.value, text);
      wrong = value.wrong ? [value.wrong] : [];
      onchange(value.value, value.wrong);
    },
  });
  const show = (value) => {
    wrong = [];
    area.value = value === undefined ? "" : typeof value === "string" && text ? value : JSON.stringify(value, null, 2);
    grow(area);
  };
  const many = kindsIn(rules).includes("array");
  const forms = formsOf(schemas, many ? rules.items : rules);
  const insert = forms.map(({ label, schema }) => element("button", {
    type: "button",
    className: "small",
    onclick: () => {
      const made = schemas.skeleton(schema);
      const { value } = read(area.value, text);
      const next = many ? [...(Array.isArray(value) ? value : []), made] : made;
      show(next);
      onchange(next);
      area.focus();
    },
  }, `${many ? "Add" : "Use"} ${label}`));
  const elements = insert.length ? [element("div", { className: "inserts" }, ...insert), area] : [area];
  return { elements, focus: area, show, own: () => wrong };
}

function read(text, lenient) {
  if (text.trim() === "") return { value: undefined };
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return lenient && !/^\s*[[{"]/.test(text) ? { value: text } : { value: undefined, wrong: `is no JSON: ${error.message}` };
  }
}

/** The objects among the forms of a schema, each with the word that tells it from the others. */
function formsOf(schemas, schema) {
  const rules = schemas.resolve(schema);
  if (rules.anyOf && !rules.properties) return rules.anyOf.flatMap((form) => formsOf(schemas, form));
  if (!rules.properties) return [];
  const tag = Object.values(rules.properties).find((member) => member.enum?.length === 1);
  return [{ schema: rules, label: tag ? tag.enum[0] : "object" }];
}

function grow(area) {
  area.rows = Math.min(14, Math.max(1, area.value.split("\n").length));
}

/** Return one paragraph for problems, and how to fill it. */
export function problemLine() {
  const line = element("p", { className: "problem", hidden: true });
  return {
    element: line,
    show(texts) {
      line.hidden = texts.length === 0;
      line.textContent = texts.join("; ");
    },
  };
}
