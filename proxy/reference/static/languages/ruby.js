import { indented, json } from "./literals.js";

export function ruby({ url, body }) {
  const use = body.stream === true
    ? `  http.request(request) do |answer|
    answer.value # raises unless it is a success
    rest = String.new
    done = false
    answer.read_body do |piece|
      rest << piece
      while (line = rest.slice!(/\\A.*\\n/))
        next unless line.start_with?("data: ")
        data = line.delete_prefix("data: ").chomp
        next done = true if data == "[DONE]"
        event = JSON.parse(data)
        raise event["error"]["message"] if event["error"]
        event["choices"].each { |choice| print choice["delta"]["content"] }
      end
    end
    raise "The answer is not complete." unless done
    puts
  end
`
    : `  answer = http.request(request)
  answer.value # raises unless it is a success
  puts JSON.parse(answer.body)["choices"][0]["message"]["content"]
`;
  return `require "json"
require "net/http"

uri = URI(${JSON.stringify(`${url}/chat/completions`)})
request = Net::HTTP::Post.new(
  uri,
  "Authorization" => "Bearer #{ENV.fetch("LOCKGATE_KEY")}",
  "Content-Type" => "application/json"
)
request.body = <<~'JSON'
  ${indented(json(body), 2)}
JSON
Net::HTTP.start(uri.host, uri.port, use_ssl: uri.scheme == "https", read_timeout: 600) do |http|
${use}end
`;
}
