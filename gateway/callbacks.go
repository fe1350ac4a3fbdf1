package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	// callbacksAtOnce is how many callers all gateways together tell at the same time.
	callbacksAtOnce = 64
	// callbackTimeout bounds one try.
	callbackTimeout = 20 * time.Second
	// callbackTries is how often it is tried; the pauses double from a second to an hour, so that it takes about a day.
	callbackTries    = 36
	callbackMaxPause = time.Hour
)

// callbacks tells callers that their spawned calls have ended, by a POST that is signed.
type callbacks struct {
	*caller

	secret []byte
	client *http.Client
}

// newCallbacks makes no use of proxies, follows no redirects, and reaches private networks only where it is told to: whoever may
// spawn must not be able to reach what only the gateway can.
func newCallbacks(c *caller, secret string, private bool) *callbacks {
	dialer := &net.Dialer{Timeout: callbackTimeout / 2}
	if !private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error { return checkPublic(address) }
	}
	return &callbacks{caller: c, secret: []byte(secret), client: &http.Client{
		Timeout: callbackTimeout, Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// checkPublic refuses addresses that are not of the public internet.
func checkPublic(address string) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	ip := parsed.Addr().Unmap()
	shared := netip.MustParsePrefix("100.64.0.0/10") // carrier-grade NAT
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || shared.Contains(ip) {
		return fmt.Errorf("%s is not a public address", ip)
	}
	return nil
}

// check refuses an address that cannot be told.
func (b *callbacks) check(address string) error {
	if len(b.secret) == 0 {
		return badInput("header Freshet-Callback", address, "this gateway tells nobody: its operator sets FRESHET_CALLBACK_SECRET")
	}
	if err := checkText("header Freshet-Callback", address, queue.MaxHeader); err != nil {
		return err
	}
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || parsed.User != nil || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return badInput("header Freshet-Callback", address, "use an address such as https://example.com/done, without user and password")
	}
	return nil
}

// follow tells callers until the context ends.
func (b *callbacks) follow(ctx context.Context) error {
	consumer, err := queue.OpenCallbacks(ctx, b.js, callbacksAtOnce)
	if err != nil {
		return err
	}
	var telling sync.WaitGroup
	defer telling.Wait()
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		telling.Go(func() { b.tell(ctx, msg) })
	}, jetstream.PullMaxMessages(callbacksAtOnce))
	if err != nil {
		return fmt.Errorf("take callbacks: %w", err)
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}

// tell makes one try.
func (b *callbacks) tell(ctx context.Context, msg jetstream.Msg) {
	call, address := queue.ParseCallback(nats.Header(msg.Headers()))
	err := b.post(ctx, call, address)
	if err == nil {
		_ = msg.Ack() // on a lost connection it is told once more
		return
	}
	tries := uint64(1)
	if meta, err := msg.Metadata(); err == nil {
		tries = meta.NumDelivered
	}
	if tries >= callbackTries {
		b.exchange.log.Warn().Err(err).Str("call", call).Uint64("tries", tries).Msg("give up to tell the caller that a call ended")
		_ = msg.Term()
		return
	}
	b.exchange.log.Debug().Err(err).Str("call", call).Uint64("tries", tries).Msg("tell the caller that a call ended; trying again")
	pause := callbackMaxPause
	if tries < 13 {
		pause = min(pause, time.Second<<(tries-1))
	}
	_ = msg.NakWithDelay(pause)
}

func (b *callbacks) post(ctx context.Context, call, address string) error {
	batch, err := b.load(ctx, call)
	if err != nil {
		return err
	}
	view, err := b.view(ctx, batch, call)
	if err != nil {
		return err
	}
	body, err := json.Marshal(view)
	if err != nil {
		return fmt.Errorf("encode what ended: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	h := request.Header
	h.Set("Content-Type", "application/json")
	h.Set("Freshet-Call", call)
	h.Set("Idempotency-Key", call)
	h.Set("Freshet-Signature", sign(b.secret, time.Now(), body))
	response, err := b.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // its status is what counts
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	if response.StatusCode/100 != 2 {
		return errors.New(response.Status)
	}
	return nil
}

// view is what is told of a call, or of a whole batch.
func (b *callbacks) view(ctx context.Context, batch queue.Batch, call string) (any, error) {
	if queue.InputOf(call) < 0 {
		return b.viewEnd(ctx, batch)
	}
	result, err := b.awaitStored(ctx, call, 0)
	if err != nil {
		return nil, err
	}
	view := viewCall(batch, call)
	view.end(result)
	return view, nil
}

// sign is the time and a MAC over it and the body: who has the secret can tell that a POST is from here, and recent.
func sign(secret []byte, now time.Time, body []byte) string {
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(at + ".")) // never fails: hash.Hash
	_, _ = mac.Write(body)
	return "t=" + at + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
