import { indented, json } from "./literals.js";

export function java({ url, body }) {
  const streamed = body.stream === true;
  const text = json(body).replaceAll("\\", "\\\\");
  const use = streamed
    ? `        var answer = client.send(request, HttpResponse.BodyHandlers.ofLines());
        // Each line that begins with "data: " holds a chunk; after a complete answer comes "data: [DONE]".
        answer.body().filter(line -> line.startsWith("data: ")).forEach(System.out::println);
`
    : `        var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
`;
  return `import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Sample {
    public static void main(String[] arguments) throws Exception {
        var body = """
            ${indented(text, 12)}
            """;
        var request = HttpRequest.newBuilder(URI.create(${JSON.stringify(`${url}/chat/completions`)}))
            .header("Authorization", "Bearer " + System.getenv("LOCKGATE_KEY"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        var client = HttpClient.newHttpClient();
${use}        if (answer.statusCode() != 200) System.exit(1);
    }
}
`;
}
