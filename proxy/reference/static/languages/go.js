import { json } from "./literals.js";

export function go({ url, body }) {
  const streamed = body.stream === true;
  const text = json(body);
  // A raw string has all but its own quote.
  const literal = text.includes("`") ? JSON.stringify(text) : `\`${text}\``;
  const use = streamed
    ? `	done := false
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var event struct {
			Error   *struct{ Message string }
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			log.Fatal(err)
		}
		if event.Error != nil {
			log.Fatal(event.Error.Message)
		}
		for _, choice := range event.Choices {
			fmt.Print(choice.Delta.Content)
		}
	}
	if !done {
		log.Fatal("The answer is not complete.")
	}
	fmt.Println()
`
    : `	var completion struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.NewDecoder(answer.Body).Decode(&completion); err != nil {
		log.Fatal(err)
	}
	fmt.Println(completion.Choices[0].Message.Content)
`;
  return `package main

import (
${streamed ? '	"bufio"\n' : ""}	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := ${literal}
	request, err := http.NewRequest("POST", ${JSON.stringify(`${url}/chat/completions`)}, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("LOCKGATE_KEY"))
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		refused, _ := io.ReadAll(answer.Body)
		log.Fatal(string(refused))
	}
${use}}
`;
}
