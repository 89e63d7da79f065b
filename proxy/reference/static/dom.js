// Makes elements. Text is only ever set as text: nothing here, or anywhere on the page, parses markup.

/** Return an element with properties, `aria-…`, `data-…` and other attributes, and children: elements or strings. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Replace what is inside an element. */
export const fill = (parent, ...children) => parent.replaceChildren(...children);

let count = 0;

/** Return an id that no other element has. */
export const freshId = (name) => `${name}-${++count}`;
