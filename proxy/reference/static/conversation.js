// The editor of `messages`: turns with a role and a text each; what is more than that is written as JSON.

import { element, fill, freshId } from "./dom.js";
import { problemLine } from "./controls.js";
import { written } from "./schemas.js";

/** Return the editor: `element`, `show(messages)`, `complain(problems)`, whose paths begin behind `messages`. */
export function conversation(schemas, schema, onchange) {
  const forms = schemas.resolve(schemas.resolve(schema).items).anyOf.map((form) => schemas.resolve(form));
  const roles = forms.map((form) => form.properties.role.enum[0]);
  const list = element("ol", { className: "turns" });
  const whole = problemLine();
  let messages = [];
  let turns = [];

  function change(next, redraw, focus) {
    messages = next;
    if (redraw) draw(focus);
    onchange(messages);
  }

  const replaced = (at, message) => messages.map((one, index) => (index === at ? message : one));

  function draw(focus) {
    turns = (Array.isArray(messages) ? messages : []).map((message, at) => turn(message, at));
    fill(list, ...turns.map((one) => one.element));
    if (focus !== undefined) turns[focus]?.focus();
  }

  function turn(message, at) {
    const form = forms.find((one) => one.properties.role.enum[0] === message?.role);
    const texts = form ? textMembers(schemas, form) : [];
    const plain = form && Object.entries(message).every(([name, value]) =>
      name === "role" || (typeof value === "string" && texts.some((text) => text.name === name)));
    const problem = problemLine();
    const role = element(
      "select",
      {
        "aria-label": `Role of turn ${at + 1}`,
        onchange: () => {
          const next = forms[roles.indexOf(role.value)];
          const { content } = messages[at] ?? {};
          const said = typeof content === "string" ? content : "";
          change(replaced(at, { ...schemas.skeleton(next), role: role.value, content: said }), true, at);
        },
      },
      ...roles.map((name) => element("option", { value: name }, name)),
    );
    if (form) role.value = message.role;
    else role.selectedIndex = -1;
    const body = plain ? plainTurn(message, at, texts, form) : rawTurn(message, at, problem);
    return {
      focus: () => body.input.focus(),
      complain(found) {
        problem.show([...(body.wrong?.() ?? []), ...found]);
        if (found.length) body.input.setAttribute("aria-invalid", "true");
        else body.input.removeAttribute("aria-invalid");
      },
      element: element(
        "li",
        { className: "turn" },
        element(
          "div",
          { className: "turn-head" },
          role,
          element("span", { className: "turn-buttons" },
            ...(plain ? [button("JSON", `Write turn ${at + 1} as JSON`, () => asJson(at))] : []),
            button("↑", `Move turn ${at + 1} up`, () => move(at, -1), at === 0),
            button("↓", `Move turn ${at + 1} down`, () => move(at, 1), at === messages.length - 1),
            button("×", `Remove turn ${at + 1}`, () => remove(at))),
        ),
        ...body.elements,
        problem.element,
      ),
    };
  }

  function plainTurn(message, at, texts, form) {
    const shown = texts.filter(({ name }) => name === "content" || name in message || form.required.includes(name));
    let main;
    const elements = shown.map(({ name, long }) => {
      const label = name === "content" ? `Text of turn ${at + 1}` : `${name} of turn ${at + 1}`;
      const input = element(long ? "textarea" : "input", {
        "aria-label": label,
        value: message[name] ?? "",
        placeholder: name === "content" ? "" : name,
        spellcheck: long,
        oninput: () => {
          message = { ...message, [name]: input.value };
          if (long) fit(input);
          change(replaced(at, message), false);
        },
      });
      if (long) {
        main = input;
        fit(input);
      }
      return input;
    });
    return { elements, input: main ?? elements[0] };
  }

  function rawTurn(message, at) {
    let wrong;
    const area = element("textarea", {
      className: "code",
      "aria-label": `Turn ${at + 1} as JSON`,
      spellcheck: false,
      value: JSON.stringify(message, null, 2) ?? "",
      oninput: () => {
        fit(area);
        try {
          const value = JSON.parse(area.value);
          wrong = undefined;
          change(replaced(at, value), false);
        } catch (error) {
          wrong = `is no JSON: ${error.message}`;
          onchange(messages, wrong);
        }
      },
    });
    fit(area);
    return { elements: [area], input: area, wrong: () => (wrong ? [wrong] : []) };
  }

  function asJson(at) {
    const message = messages[at];
    // Parts instead of a text: what most needs JSON.
    const parts = [{ type: "text", text: message.content ?? "" }];
    change(replaced(at, { ...message, content: parts }), true, at);
  }

  function move(at, by) {
    const next = [...messages];
    next.splice(at + by, 0, ...next.splice(at, 1));
    change(next, true, at + by);
  }

  function remove(at) {
    change(messages.filter((_, index) => index !== at), true, Math.max(0, at - 1));
  }

  const add = element("button", {
    type: "button",
    className: "small",
    onclick: () => {
      const turnsNow = Array.isArray(messages) ? messages : [];
      const role = turnsNow.at(-1)?.role === "user" ? "assistant" : "user";
      change([...turnsNow, { role, content: "" }], true, turnsNow.length);
    },
  }, "Add a turn");
  const legend = freshId("conversation");
  return {
    element: element("div", { className: "field", role: "group", "aria-labelledby": legend },
      element("p", { className: "label", id: legend }, element("code", {}, "messages"), element("span", { className: "mark required" }, "required")), list, whole.element, add),
    show(value) {
      messages = value ?? [];
      draw();
    },
    complain(problems) {
      whole.show(problems.filter(({ path }) => typeof path[0] !== "number").map(told));
      turns.forEach((one, at) => one.complain(problems.filter(({ path }) => path[0] === at).map(told)));
    },
  };
}

const told = ({ path, text, refused }) => {
  const inner = written(path.slice(typeof path[0] === "number" ? 1 : 0));
  return refused || !inner ? text : `${inner} ${text}`;
};

function button(text, label, onclick, disabled = false) {
  return element("button", { type: "button", className: "small", "aria-label": label, title: label, onclick, disabled }, text);
}

/** The members of a message that are texts, alone or among other forms; `content` gets the room. */
function textMembers(schemas, form) {
  const isText = (schema) => {
    const rules = schemas.resolve(schema);
    return [rules.type].flat().includes("string") || (rules.anyOf ?? []).some(isText);
  };
  return Object.entries(form.properties)
    .filter(([name, schema]) => name !== "role" && isText(schema))
    .map(([name]) => ({ name, long: name === "content" }));
}

function fit(area) {
  area.rows = Math.min(16, Math.max(2, area.value.split("\n").length));
}
