// JSON values as literals of other languages.

/** Return JSON, indented. */
export const json = (value) => JSON.stringify(value, null, 2);

/** Return text with each line but the first moved right. */
export const indented = (text, by) => text.replaceAll("\n", `\n${" ".repeat(by)}`);

/** Return a value as a Python literal; JSON's escapes in strings are Python's too. */
export function python(value, by = 0) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const inner = Array.isArray(value)
    ? value.map((one) => python(one, by + 4))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one, by + 4)}`);
  if (!inner.length) return open + close;
  const pad = " ".repeat(by);
  return `${open}\n${inner.map((one) => `${pad}    ${one},\n`).join("")}${pad}${close}`;
}
