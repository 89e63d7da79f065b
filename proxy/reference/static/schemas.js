// JSON Schema as far as the gateway's OpenAPI document uses it: what is wrong with a value, and values to begin with.

const KINDS = {
  string: "a string",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  array: "an array",
  object: "an object",
  null: "null",
};

const kindOf = (value) =>
  value === null ? "null" : Array.isArray(value) ? "array" : typeof value;

const isKind = (value, kind) =>
  kind === "integer" ? Number.isInteger(value) : kindOf(value) === kind;

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const listed = (names) => names.map((name) => (name === null ? "null" : String(name))).join(", ");
const kindsIn = (schema) => (schema.type === undefined ? [] : [schema.type].flat());

/** The schemas of a document. */
export class Schemas {
  constructor(document) {
    this.document = document;
  }

  /** Return a schema, or what it refers to with what is said beside the reference. */
  resolve(schema) {
    if (!schema.$ref) return schema;
    const { $ref, ...beside } = schema;
    return { ...$ref.slice(2).split("/").reduce((part, name) => part[name], this.document), ...beside };
  }

  /** Return what is wrong with a value: `{path, text}` each, where `path` is a list of names and indices. */
  problems(schema, value, path = []) {
    const rules = this.resolve(schema);
    const wrong = (text) => [{ path, text }];
    const kinds = kindsIn(rules);
    if (kinds.length && !kinds.some((kind) => isKind(value, kind))) {
      return wrong(`must be ${kinds.map((kind) => KINDS[kind]).join(" or ")}`);
    }
    if (rules.enum && !rules.enum.some((one) => same(one, value))) return wrong(`must be one of ${listed(rules.enum)}`);
    if ("const" in rules && !same(rules.const, value)) return wrong(`must be ${JSON.stringify(rules.const)}`);
    const found = { number: numberProblem, string: textProblem }[kindOf(value)]?.(rules, value);
    return [
      ...(found ? wrong(found) : []),
      ...(Array.isArray(value) ? this.#ofArray(rules, value, path) : []),
      ...(kindOf(value) === "object" ? this.#ofObject(rules, value, path) : []),
      ...(rules.anyOf ? this.#ofForms(rules.anyOf, value, path) : []),
      ...(rules.allOf ?? []).flatMap((rule) => this.problems(rule, value, path)),
      ...(rules.if && this.#fits(rules.if, value) ? this.problems(rules.then, value, path) : []),
      ...(rules.not && this.#fits(rules.not, value) ? wrong("holds what may not stand together") : []),
    ];
  }

  /** Return the smallest value that fits a schema, to be changed by whoever needs it. */
  skeleton(schema) {
    const rules = this.resolve(schema);
    if (rules.enum) return rules.enum[0];
    if (rules.anyOf && !rules.properties) return this.skeleton(rules.anyOf[0]);
    const kind = kindsIn(rules)[0];
    if (kind === "object") {
      return Object.fromEntries((rules.required ?? []).map((name) => [name, this.skeleton(rules.properties[name])]));
    }
    if (kind === "array") return rules.minItems ? [this.skeleton(rules.items)] : [];
    return { string: rules.minLength ? "name" : "", boolean: false }[kind] ?? rules.minimum ?? 0;
  }

  #fits(schema, value) {
    return this.problems(schema, value).length === 0;
  }

  #ofArray(rules, value, path) {
    const found = [];
    if (value.length < (rules.minItems ?? 0)) found.push({ path, text: `must have at least ${entries(rules.minItems)}` });
    if (value.length > (rules.maxItems ?? Infinity)) {
      found.push({ path, text: `must have at most ${entries(rules.maxItems)}` });
    }
    if (rules.contains && !value.some((one) => this.#fits(rules.contains, one))) {
      found.push({ path, text: "lacks an entry" });
    }
    if (rules.items) found.push(...value.flatMap((one, at) => this.problems(rules.items, one, [...path, at])));
    return found;
  }

  #ofObject(rules, value, path) {
    const names = Object.keys(value);
    const found = [];
    for (const name of rules.required ?? []) {
      if (!Object.hasOwn(value, name)) found.push({ path: [...path, name], text: "is missing" });
    }
    if (names.length > (rules.maxProperties ?? Infinity)) {
      found.push({ path, text: `must have at most ${entries(rules.maxProperties)}` });
    }
    for (const name of names) {
      const beyond = typeof rules.additionalProperties === "object" ? rules.additionalProperties : undefined;
      const member = Object.hasOwn(rules.properties ?? {}, name) ? rules.properties[name] : beyond;
      if (rules.propertyNames && this.problems(rules.propertyNames, name).length) {
        found.push({ path, text: `has a name with more than ${rules.propertyNames.maxLength} characters` });
      }
      if (member) found.push(...this.problems(member, value[name], [...path, name]));
    }
    return found;
  }

  #ofForms(forms, value, path) {
    const all = forms.map((form) => this.problems(form, value, path));
    if (all.some((found) => found.length === 0)) return [];
    const meant = forms.map((form) => this.#meant(this.resolve(form), value));
    const best = Math.max(...meant);
    if (best > 1 || meant.filter((one) => one === best).length === 1) return all[meant.indexOf(best)];
    const tags = forms.flatMap((form) => Object.entries(this.resolve(form).properties ?? {})
      .filter(([, member]) => member.enum?.length === 1));
    if (best === 1 && tags.length) {
      const [tag] = tags[0];
      const known = tags.filter(([name]) => name === tag).map(([, member]) => member.enum[0]);
      return [{ path: [...path, tag], text: tag in value ? `must be one of ${listed(known)}` : "is missing" }];
    }
    const needed = forms.flatMap((form) => this.resolve(form).required ?? []);
    if (best === 1 && needed.length) return [{ path, text: `needs one of ${listed(needed)}` }];
    const kinds = forms.flatMap((form) => kindsIn(this.resolve(form)));
    return [{ path, text: `must be ${[...new Set(kinds)].map((kind) => KINDS[kind]).join(" or ")}` }];
  }

  // 2: the form's own tag is there; 1: the JSON type is; 0: something else altogether.
  #meant(form, value) {
    if (form.anyOf && !form.type) return Math.max(...form.anyOf.map((inner) => this.#meant(this.resolve(inner), value)));
    const kinds = kindsIn(form);
    if (kinds.length && !kinds.some((kind) => isKind(value, kind))) return 0;
    const tags = Object.entries(form.properties ?? {}).filter(([, member]) => member.enum?.length === 1);
    return tags.length && tags.every(([name, member]) => value?.[name] === member.enum[0]) ? 2 : 1;
  }
}

function numberProblem(rules, value) {
  const { minimum: low, maximum: high } = rules;
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return "is too large for this page to keep exactly";
  if (low !== undefined && value < low) return `must be at least ${low}`;
  if (high !== undefined && value > high) return `must be at most ${high}`;
  return undefined;
}

function textProblem(rules, value) {
  // Characters, not UTF-16 units, as the gateway counts.
  const length = rules.minLength || rules.maxLength ? [...value].length : 0;
  if (length < (rules.minLength ?? 0)) return "must not be empty";
  if (length > (rules.maxLength ?? Infinity)) return `must have at most ${rules.maxLength} characters`;
  if (rules.pattern && !new RegExp(rules.pattern, "u").test(value)) return `must match ${rules.pattern}`;
  return undefined;
}

const entries = (count) => (count === 1 ? "one entry" : `${count} entries`);

/** Return a path as the gateway writes it in `param`: `messages[0].content`. */
export function written(path) {
  return path.map((part, at) => (typeof part === "number" ? `[${part}]` : at ? `.${part}` : part)).join("");
}
