import { indented, json } from "./literals.js";

export function csharp({ url, body }) {
  const streamed = body.stream === true;
  const use = streamed
    ? `using var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
answer.EnsureSuccessStatusCode();
using var lines = new StreamReader(await answer.Content.ReadAsStreamAsync());
var done = false;
while (await lines.ReadLineAsync() is { } line)
{
    if (!line.StartsWith("data: ")) continue;
    if (line == "data: [DONE]") { done = true; continue; }
    using var chunk = JsonDocument.Parse(line[6..]);
    if (chunk.RootElement.TryGetProperty("error", out var error)) throw new Exception(error.ToString());
    foreach (var choice in chunk.RootElement.GetProperty("choices").EnumerateArray())
    {
        if (choice.GetProperty("delta").TryGetProperty("content", out var content)) Console.Write(content.ToString());
    }
}
if (!done) throw new Exception("The answer is not complete.");
Console.WriteLine();
`
    : `using var answer = await client.SendAsync(request);
answer.EnsureSuccessStatusCode();
using var completion = JsonDocument.Parse(await answer.Content.ReadAsStringAsync());
Console.WriteLine(completion.RootElement.GetProperty("choices")[0].GetProperty("message").GetProperty("content"));
`;
  return `using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

var body = """
    ${indented(json(body), 4)}
    """;
using var client = new HttpClient();
using var request = new HttpRequestMessage(HttpMethod.Post, ${JSON.stringify(`${url}/chat/completions`)});
var key = Environment.GetEnvironmentVariable("LOCKGATE_KEY");
request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", key);
request.Content = new StringContent(body, Encoding.UTF8, "application/json");
${use}`;
}
