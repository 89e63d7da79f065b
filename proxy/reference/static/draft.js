// The request as it stands: the one place that form, JSON view, samples and Send all look at.

/** A JSON body; whoever changes it names itself, so that it is not told of its own change. */
export class Draft {
  #listeners = [];

  constructor(schemas, schema) {
    this.schemas = schemas;
    this.schema = schema;
    this.body = {};
    this.unreadable = undefined;
    this.refusal = undefined;
  }

  /** Call `listener` after each change that is not `who`'s. */
  listen(listener, who = undefined) {
    this.#listeners.push({ listener, who });
  }

  /** Set a parameter, or take it out where the value is undefined. */
  set(name, value, who) {
    const body = { ...this.body };
    if (value === undefined) delete body[name];
    else body[name] = value;
    this.replace(body, who);
  }

  /** Set the whole body. */
  replace(body, who) {
    this.body = body;
    this.unreadable = undefined;
    this.refusal = undefined;
    this.#tell(who);
  }

  /** Say that what was typed is no JSON, and why: the body stays as it was. */
  spoil(reason, who) {
    this.unreadable = reason;
    this.#tell(who);
  }

  /** Note what the gateway says is wrong: `{param, text}`. */
  refuse(refusal) {
    this.refusal = refusal;
    this.#tell();
  }

  /** Return what is wrong with the body, the gateway's own finding included. */
  problems() {
    const found = this.schemas.problems(this.schema, this.body);
    if (!this.refusal?.param) return found;
    // What is known here already need not be said twice.
    const path = this.refusal.param.split(/\.?\[(\d+)\]|\./).filter(Boolean)
      .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
    if (found.some((one) => one.path[0] === path[0])) return found;
    return [...found, { path, text: this.refusal.text, refused: true }];
  }

  #tell(who) {
    for (const { listener, who: own } of this.#listeners) {
      if (own === undefined || own !== who) listener();
    }
  }
}
