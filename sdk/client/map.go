package client

import (
	"context"
	"iter"
	"sync"
)

// Item is the end of one of a map's calls.
type Item struct {
	// Index is the input's place in the sequence, from 0.
	Index    int
	Response Response
	Err      error
}

// Map calls the function once for each input, at most concurrency at a time, and yields each call's end as it comes. An
// error of one item does not end the others; a consumer that stops cancels what runs. Inputs are taken as there is room.
func (c *Client) Map(ctx context.Context, request Request, inputs iter.Seq[[]byte], concurrency int) iter.Seq[Item] {
	return func(yield func(Item) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		ends := make(chan Item)
		running.Go(func() { c.fanOut(ctx, request, inputs, concurrency, ends) })
		for item := range ends {
			if !yield(item) {
				cancel()
				for range ends { // lets the calls end
				}
				return
			}
		}
	}
}

// fanOut makes the calls and closes ends after the last one.
func (c *Client) fanOut(ctx context.Context, request Request, inputs iter.Seq[[]byte], concurrency int, ends chan<- Item) {
	defer close(ends)
	slots := make(chan struct{}, max(concurrency, 1))
	var calls sync.WaitGroup
	defer calls.Wait()
	index := 0
	for input := range inputs {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		item, one := Item{Index: index}, request
		one.Body, one.Key = input, ""
		calls.Go(func() {
			item.Response, item.Err = c.Do(ctx, one)
			<-slots
			ends <- item // the consumer reads to the end, also after it stopped
		})
		index++
	}
}
