import { json } from "./literals.js";

// Between single quotes a shell changes nothing; a single quote itself stands outside of them.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl({ url, body }) {
  return `curl${body.stream === true ? " --no-buffer" : ""} ${quoted(`${url}/chat/completions`)} \\
  --header "Authorization: Bearer $LOCKGATE_KEY" \\
  --header "Content-Type: application/json" \\
  --data-raw ${quoted(json(body))}
`;
}
