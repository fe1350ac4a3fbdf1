package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Item is the end of one of a map's calls.
type Item struct {
	// Index is the input's place in the sequence, from 0.
	Index int
	// Response has the call's id and its output: JSON as the function wrote it (text as a JSON string), bytes as they are.
	Response Response
	// Err is the call's own error, an *Error.
	Err error
}

// maxWindow is the most calls that a gateway keeps in flight for one map.
const maxWindow = 4096

// Map calls the function once for each input, which is a JSON value, and yields each call's end in the order of the inputs. Up to
// concurrency calls are in flight, 1 to 4096; inputs are taken as there is room. An item that fails does not end the others. An error
// beside an item ends the map: it could not be begun, or gone on with within the client's patience. A connection that breaks, or a
// gateway that dies, is not noticed: the map goes on where it was, and runs nothing again that ran.
//
// The calls run in the cluster, one connection for all of them: request's Body, Reader, ContentType, Key and Keep count for nothing.
// The calls of a consumer who stops early end by themselves, and no more are begun.
func (c *Client) Map(ctx context.Context, request Request, inputs iter.Seq[[]byte], concurrency int) iter.Seq2[Item, error] {
	return c.mapAll(ctx, request, inputs, concurrency, "input")
}

// MapUnordered is Map, and yields each call's end as it comes: a slow one holds up no other.
func (c *Client) MapUnordered(ctx context.Context, request Request, inputs iter.Seq[[]byte], concurrency int) iter.Seq2[Item, error] {
	return c.mapAll(ctx, request, inputs, concurrency, "finished")
}

func (c *Client) mapAll(ctx context.Context, request Request, inputs iter.Seq[[]byte], concurrency int, order string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		window := min(max(concurrency, 1), maxWindow)
		m := &mapping{Client: c, request: request, inputs: inputs, order: order, window: window, backlog: newBacklog(2 * window), yield: yield}
		err := m.run(ctx)
		cancel()
		m.backlog.close()
		m.feeding.Wait()
		if err != nil && !errors.Is(err, errStopped) {
			yield(Item{}, fmt.Errorf("map %s: %w", request.Function, err))
		}
	}
}

// errStopped says that the consumer wants no more.
var errStopped = errors.New("stopped")

// mapping is a map under way, over as many connections as it takes.
type mapping struct {
	*Client
	request Request
	inputs  iter.Seq[[]byte]
	order   string
	window  int
	backlog *backlog
	feeding sync.WaitGroup
	yield   func(Item, error) bool
	batch   string // names the map to any gateway
}

// steady is how long a connection has to live to count as no failure.
const steady = 5 * time.Second

// run maps until the last line, however often the connection breaks.
func (m *mapping) run(ctx context.Context) error {
	var broken time.Time // since when no connection was of use
	pause := time.Duration(0)
	for {
		began := time.Now()
		lines, err := m.connection(ctx)
		if !errors.Is(err, errCutOff) || ctx.Err() != nil {
			return err
		}
		switch {
		case lines > 0 || broken.IsZero() || time.Since(began) > steady:
			broken, pause = time.Now(), 0
		case time.Since(broken) > m.patience:
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
		pause = min(2*pause+50*time.Millisecond, 2*time.Second)
	}
}

// connection sends the inputs that are not answered and reads ends until the last line, or errCutOff. It returns how many it read.
func (m *mapping) connection(ctx context.Context) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if m.batch == "" {
		if err := m.name(ctx); err != nil {
			return 0, err
		}
		m.feeding.Go(func() { m.backlog.feed(m.inputs) })
	}
	var upload *upload
	response, err := m.insist(ctx, func() Request {
		if upload != nil {
			upload.end()
		}
		upload = m.backlog.upload()
		return Request{Reader: upload}
	})
	if upload != nil {
		defer upload.end()
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }() // read as far as it goes
	return m.read(ctx, response)
}

// name has the gateway begin a batch by a map of nothing: then no input runs in a map that cannot be gone on with, and what is wrong
// with the request is known before an input is taken.
func (m *mapping) name(ctx context.Context) error {
	response, err := m.insist(ctx, func() Request { return Request{} })
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("%w: %w", errCutOff, err)
	}
	if m.batch = response.Header.Get("Freshet-Batch"); m.batch == "" {
		return errors.New("the gateway did not name the batch")
	}
	return nil
}

// beginWait is how long a gateway may take to answer that it takes a map.
const beginWait = 30 * time.Second

// insist sends a request until a gateway takes it or the patience is over.
func (m *mapping) insist(ctx context.Context, body func() Request) (*http.Response, error) {
	var response *http.Response
	_, err := m.again(ctx, func() (_ Response, wait time.Duration, err error) {
		response, wait, err = m.begin(ctx, body()) //nolint:bodyclose // the caller's to close
		return Response{}, wait, err
	})
	return response, err
}

// begin sends a request once; the ends are still to be read.
func (m *mapping) begin(ctx context.Context, request Request) (*http.Response, time.Duration, error) {
	address, err := m.address(m.request, "map")
	if err != nil {
		return nil, final, err
	}
	query := url.Values{"window": {strconv.Itoa(m.window)}, "order": {m.order}}
	if upload, ok := request.Reader.(*upload); ok {
		query.Set("batch", m.batch)
		query.Set("from", strconv.Itoa(upload.from))
		query.Set("sent", strconv.Itoa(upload.sent))
	}
	separator := "?"
	if strings.Contains(address, separator) {
		separator = "&"
	}
	ctx, cancel := context.WithCancel(ctx)
	impatient := time.AfterFunc(beginWait, cancel)
	request.Function, request.ContentType = m.request.Function, "application/x-ndjson"
	httpRequest, err := m.newRequest(ctx, http.MethodPost, address+separator+query.Encode(), request)
	if err != nil {
		cancel()
		return nil, final, err
	}
	response, err := m.http.Do(httpRequest)
	if err == nil && response.StatusCode == http.StatusOK && impatient.Stop() {
		return response, 0, nil // it ends with the context that it was given
	}
	defer cancel()
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("read the answer: %w", err)
	}
	return nil, waitFor(response), newError(response, body)
}

// mapLine is the end of a call, or of the map.
type mapLine struct {
	Index  int             `json:"index"`
	Call   string          `json:"call"`
	Output json.RawMessage `json:"output"`
	Base64 []byte          `json:"output_base64"`
	URL    string          `json:"output_url"`
	Error  *errorBody      `json:"error"`
	Done   *bool           `json:"done"`
}

// read yields the ends until the last line.
func (m *mapping) read(ctx context.Context, response *http.Response) (int, error) {
	lines := bufio.NewReaderSize(response.Body, 64<<10)
	for count := 0; ; count++ {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return count, fmt.Errorf("%w: %w", errCutOff, err)
		}
		var line mapLine
		if err := json.Unmarshal(text, &line); err != nil {
			return count, fmt.Errorf("read an end: %w", err)
		}
		if line.Done != nil {
			return count, m.end(line, response.StatusCode)
		}
		wrong, waited := m.backlog.answered(line.Index)
		if !waited {
			continue // read from an earlier connection
		}
		item, err := m.item(ctx, line)
		if err != nil {
			return count, err
		}
		if wrong != nil {
			item.Err = wrong
		}
		if !m.yield(item, nil) {
			return count, errStopped
		}
	}
}

// end reads the last line.
func (m *mapping) end(line mapLine, status int) error {
	switch {
	case line.Error == nil:
		return nil
	case line.Error.Kind == "unavailable": // the gateway stops; another one goes on
		return errCutOff
	}
	return &Error{Fault: line.Error.fault(), Status: status}
}

// item reads a line; what is too large for one is fetched.
func (m *mapping) item(ctx context.Context, line mapLine) (Item, error) {
	item := Item{Index: line.Index, Response: Response{Call: line.Call, ContentType: "application/json", Body: line.Output}}
	switch {
	case line.Error != nil:
		item.Err = &Error{Fault: line.Error.fault(), Call: line.Call}
	case line.Base64 != nil:
		item.Response.ContentType, item.Response.Body = "application/octet-stream", line.Base64
	case line.URL != "":
		output, err := m.again(ctx, func() (Response, time.Duration, error) {
			return m.send(ctx, http.MethodGet, m.base+line.URL, Request{Function: m.request.Function})
		})
		if err != nil {
			return item, fmt.Errorf("fetch the output of input %d: %w", line.Index, err)
		}
		item.Response.ContentType, item.Response.Body = output.ContentType, output.Body
	}
	return item, nil
}

// lineOf is an input as a line. One that is no JSON goes as something that is none either, so that it has its place.
func lineOf(index int, input []byte) (line []byte, wrong error) {
	line = bytes.Clone(bytes.TrimSpace(input))
	if len(line) == 0 || bytes.ContainsAny(line, "\n\r") {
		var flat bytes.Buffer
		if err := json.Compact(&flat, line); err != nil {
			message := fmt.Sprintf("input %d is no JSON: %v", index, err)
			return []byte("?"), &Error{Fault: wire.Error{Kind: wire.KindInput, Message: message}}
		}
		line = flat.Bytes()
	}
	return line, nil
}
