// Tabs as the ARIA practices describe them: arrow keys move, only the chosen tab is in the order of the Tab key.

import { element, freshId } from "./dom.js";

/** Return tabs: `element`, and `choose(index)`. `entries` are `{label, panel}`, `onchoose` is told the index. */
export function tabs(label, entries, onchoose = () => {}) {
  const buttons = entries.map(({ label: text, panel }) => {
    panel.id ||= freshId("panel");
    const button = element("button", {
      type: "button",
      role: "tab",
      id: freshId("tab"),
      "aria-controls": panel.id,
    }, text);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    return button;
  });
  const panels = [...new Set(entries.map(({ panel }) => panel))];
  const list = element("div", { role: "tablist", className: "tabs", "aria-label": label }, ...buttons);

  function choose(index) {
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
    });
    for (const panel of panels) panel.hidden = panel !== entries[index].panel;
    entries[index].panel.setAttribute("aria-labelledby", buttons[index].id);
    onchoose(index);
  }

  list.addEventListener("click", (event) => {
    const index = buttons.indexOf(event.target);
    if (index >= 0) choose(index);
  });
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const index = (to + buttons.length) % buttons.length;
    choose(index);
    buttons[index].focus();
  });
  choose(0);
  return { element: element("div", {}, list, ...panels), choose };
}
