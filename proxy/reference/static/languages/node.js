import { indented, json } from "./literals.js";

export function openai({ url, body }) {
  const use = body.stream === true
    ? `for await (const chunk of answer) {
  for (const choice of chunk.choices) process.stdout.write(choice.delta.content ?? "");
}
console.log();
`
    : `console.log(answer.choices[0].message.content);
`;
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${JSON.stringify(url)}, apiKey: process.env.LOCKGATE_KEY });
const answer = await client.chat.completions.create(${json(body)});
${use}`;
}

export function fetching({ url, body }) {
  const use = body.stream === true
    ? `let rest = "";
let done = false;
for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + piece).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ")) continue;
    if (line === "data: [DONE]") {
      done = true;
      continue;
    }
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(event.error.message);
    for (const choice of event.choices) process.stdout.write(choice.delta.content ?? "");
  }
}
if (!done) throw new Error("The answer is not complete.");
console.log();
`
    : `const completion = await answer.json();
console.log(completion.choices[0].message.content);
`;
  return `const answer = await fetch(${JSON.stringify(`${url}/chat/completions`)}, {
  method: "POST",
  headers: {
    Authorization: \`Bearer \${process.env.LOCKGATE_KEY}\`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify(${indented(json(body), 2)}),
});
if (!answer.ok) throw new Error(await answer.text());
${use}`;
}
