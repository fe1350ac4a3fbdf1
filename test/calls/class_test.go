package calls

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/client"
)

// TestCombinationsOfParametersHaveWorkersOfTheirOwn: their values are set before the enter hook, and kept apart.
func TestCombinationsOfParametersHaveWorkersOfTheirOwn(t *testing.T) {
	const greeter = "/v1/functions/calls/greeter/call?method="
	for query, want := range map[string]string{
		"":                                    "hello you",
		"&param.greeting=hi&param.times=2":    "hi hi you",
		"&param.greeting=good%20day":          "good day you",
		"&param.times=1&param.greeting=hello": "hello you", // the defaults
	} {
		status, _, body := request(t, http.MethodPost, greeter+"greet"+query, strings.NewReader("you"))
		if status != http.StatusOK || string(body) != want {
			t.Errorf("greet%s: %d %q, want %q", query, status, body, want)
		}
	}
	polite := client.Request{Function: "calls.greeter", Method: "count", Body: []byte(`""`), ContentType: "application/json"}
	for times, want := range map[int]string{1: "2", 2: "1"} {
		parameters := map[string]any{"times": times}
		if times == 2 {
			parameters["greeting"] = "hi"
		}
		response, err := api(t).Do(t.Context(), polite.With(parameters))
		if err != nil || string(response.Body) != want {
			t.Errorf("the workers with %v greeted %s times: %v, want %s", parameters, response.Body, err, want)
		}
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<16)
	if status, _, body := request(t, http.MethodPost, greeter+"copy", bytes.NewReader(data)); status != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("a method that reads its input as it comes: %d %s, %d bytes of %d", status, body[:min(len(body), 300)], len(body), len(data))
	}
	status, _, body := request(t, http.MethodPost, greeter+"greet&param.times=many", strings.NewReader("you"))
	if status != http.StatusBadRequest || !strings.Contains(string(body), "param.times") {
		t.Errorf("a wrong value: %d %s", status, body)
	}
}
