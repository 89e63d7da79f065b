// Asks the gateway what its standard input lists, with the official client, and prints what a program would have seen.
import OpenAI from "openai";

const { base_url: baseURL, key: apiKey, asked } = JSON.parse(await new Response(process.stdin).text());
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20000 });
const seen = {};
for (const { name, stream } of asked) {
  const request = { model: "mock", messages: [{ role: "user", content: "Hi" }], user: name, stream };
  const told = { text: "", finish: null, error: null, status: null };
  try {
    const answer = await client.chat.completions.create(request);
    if (stream) {
      for await (const chunk of answer) {
        told.text += chunk.choices[0]?.delta.content ?? "";
        told.finish = chunk.choices[0]?.finish_reason ?? told.finish;
      }
    } else {
      told.text = answer.choices[0].message.content;
      told.finish = answer.choices[0].finish_reason;
    }
  } catch (error) {
    told.error = error.constructor.name;
    told.status = error.status ?? null;
  }
  seen[name] = told;
}
process.stdout.write(JSON.stringify(seen));
