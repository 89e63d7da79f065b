// Server-sent events from text in any pieces.

/** Takes pieces of text and calls `onevent` with each event's data and `online` with each line as it came. */
export class Events {
  #rest = "";
  #data = [];
  #afterCr = false;

  constructor(onevent, online = () => {}) {
    this.onevent = onevent;
    this.online = online;
  }

  /** Take the next piece. */
  push(piece) {
    // The LF of a CR LF that was cut in two is no line of its own.
    let text = this.#afterCr && piece.startsWith("\n") ? piece.slice(1) : piece;
    if (piece) this.#afterCr = piece.endsWith("\r");
    text = this.#rest + text;
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    this.online(line);
    if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    else if (line === "" && this.#data.length) {
      const data = this.#data.join("\n");
      this.#data = [];
      this.onevent(data);
    }
  }
}
