import { json } from "./literals.js";

export function php({ url, body }) {
  const streamed = body.stream === true;
  const take = `
    CURLOPT_WRITEFUNCTION => function ($curl, $piece) use (&$rest, &$done) {
        $rest .= $piece;
        while (($end = strpos($rest, "\\n")) !== false) {
            $line = substr($rest, 0, $end);
            $rest = substr($rest, $end + 1);
            if ($line === 'data: [DONE]') {
                $done = true;
            } elseif (str_starts_with($line, 'data: ')) {
                $event = json_decode(substr($line, 6), true);
                if (isset($event['error'])) {
                    throw new RuntimeException($event['error']['message']);
                }
                foreach ($event['choices'] as $choice) {
                    echo $choice['delta']['content'] ?? '';
                }
            }
        }
        return strlen($piece);
    },`;
  const end = streamed
    ? `if (curl_exec($curl) === false || !$done) {
    throw new RuntimeException(curl_error($curl) ?: trim($rest) ?: 'The answer is not complete.');
}
echo "\\n";
`
    : `$answer = curl_exec($curl);
if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
    throw new RuntimeException($answer ?: curl_error($curl));
}
echo json_decode($answer, true)['choices'][0]['message']['content'], "\\n";
`;
  return `<?php
$body = <<<'JSON'
${json(body)}
JSON;
${streamed ? "$rest = '';\n$done = false;\n" : ""}$curl = curl_init('${url}/chat/completions');
curl_setopt_array($curl, [
    CURLOPT_POSTFIELDS => $body,
    CURLOPT_HTTPHEADER => [
        'Authorization: Bearer ' . getenv('LOCKGATE_KEY'),
        'Content-Type: application/json',
    ],${streamed ? take : "\n    CURLOPT_RETURNTRANSFER => true,"}
]);
${end}`;
}
