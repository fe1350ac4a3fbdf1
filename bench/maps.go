package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

const (
	mapCount  = 10_000
	mapWindow = 256
)

// mapCalls times a map of many inputs, in one request, beside the queue's own rate with as many calls in flight.
func mapCalls(ctx context.Context, s *system, f *floors, r *report) error {
	var ours, floor []float64
	for range rateRounds {
		rate, err := f.nats.rate(ctx, mapWindow, mapCount)
		if err != nil {
			return err
		}
		floor = append(floor, rate)
		began := time.Now()
		if err := s.mapAll(ctx, "warm"); err != nil {
			return err
		}
		ours = append(ours, mapCount/time.Since(began).Seconds())
	}
	r.add(values("map_10000", "calls/s", ours, slices.Min[[]float64], median(floor)))
	return nil
}

// mapAll maps one input many times.
func (s *system) mapAll(ctx context.Context, function string) error {
	address := fmt.Sprintf("%s/v1/functions/bench/%s/map?window=%d", s.local.Gateway(), function, mapWindow)
	lines := bytes.Repeat(append(slices.Clone(input), '\n'), mapCount)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(lines))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if end := fmt.Appendf(nil, `"inputs":%d,"failed":0}`, mapCount); !bytes.HasSuffix(bytes.TrimSpace(body), end) {
		return fmt.Errorf("map bench.%s: %s: it ended in %s", function, response.Status, body[max(0, len(body)-200):])
	}
	return nil
}
