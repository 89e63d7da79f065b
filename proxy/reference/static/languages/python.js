import { python } from "./literals.js";

export function openai({ url, body, known }) {
  const own = Object.entries(body).filter(([name]) => known.has(name));
  const beyond = Object.entries(body).filter(([name]) => !known.has(name));
  const given = own.map(([name, value]) => `    ${name}=${python(value, 4)},\n`);
  if (beyond.length) given.push(`    extra_body=${python(Object.fromEntries(beyond), 4)},\n`);
  const use = body.stream === true
    ? `for chunk in answer:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print()
`
    : `print(answer.choices[0].message.content)
`;
  return `import os

from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(url)}, api_key=os.environ["LOCKGATE_KEY"])
answer = client.chat.completions.create(
${given.join("")})
${use}`;
}

export function requests({ url, body }) {
  const streamed = body.stream === true;
  const use = streamed
    ? `for line in answer.iter_lines():
    if not line.startswith(b"data: "):
        continue
    if line == b"data: [DONE]":
        break
    event = json.loads(line[6:])
    if "error" in event:
        raise RuntimeError(event["error"]["message"])
    for choice in event["choices"]:
        print(choice["delta"].get("content") or "", end="", flush=True)
else:
    raise RuntimeError("The answer is not complete.")
print()
`
    : `print(answer.json()["choices"][0]["message"]["content"])
`;
  return `${streamed ? "import json\n" : ""}import os

import requests

answer = requests.post(
    ${JSON.stringify(`${url}/chat/completions`)},
    headers={"Authorization": f"Bearer {os.environ['LOCKGATE_KEY']}"},
    json=${python(body, 4)},
    timeout=600,
${streamed ? "    stream=True,\n" : ""})
answer.raise_for_status()
${use}`;
}
