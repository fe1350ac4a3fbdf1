package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/volumes"
)

// volumeBody is a body for a path of the API; its size is -1 where it is not known.
type volumeBody struct {
	path        string
	query       url.Values
	body        io.Reader
	contentType string
	size        int64
}

// put streams a body and decodes the answer.
func (a apiClient) put(ctx context.Context, u volumeBody, into any) error {
	address := a.base + u.path + "?" + u.query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, address, u.body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	request.ContentLength = u.size
	request.Header.Set("Content-Type", u.contentType)
	response, err := a.exchange(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// source is what is to be stored: a file, standard input, or a folder as a tar.
type source struct {
	io.Reader

	folder bool
	size   int64 // -1 where it is not known
	mode   string
	close  func()
	// failed says why a folder could not be read.
	failed func() error
}

func openSource(cmd *cobra.Command, local string) (source, error) {
	none := func() error { return nil }
	if local == "-" {
		return source{Reader: cmd.InOrStdin(), size: -1, close: func() {}, failed: none}, nil
	}
	info, err := os.Stat(local)
	if err != nil {
		return source{}, fmt.Errorf("open what is to be stored: %w", err)
	}
	if info.IsDir() {
		return openFolder(local)
	}
	file, err := os.Open(local)
	if err != nil {
		return source{}, fmt.Errorf("open what is to be stored: %w", err)
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		size = -1 // a pipe
	}
	mode := strings.TrimPrefix(fmt.Sprintf("%o", info.Mode().Perm()), "0")
	return source{Reader: file, size: size, mode: mode, close: func() { _ = file.Close() }, failed: none}, nil
}

// openFolder packs a folder while it is read.
func openFolder(local string) (source, error) {
	tree, err := volumes.OpenTree(local)
	if err != nil {
		return source{}, err
	}
	out, in := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := tree.Pack("", in)
		_ = in.CloseWithError(err) // always nil
		packed <- err
	}()
	var failure error
	ended := false
	wait := func() error {
		if !ended {
			ended = true
			_ = out.Close() // ends the packing where nobody reads on
			failure = <-packed
			tree.Close()
		}
		return failure
	}
	return source{Reader: out, folder: true, size: -1, close: func() { _ = wait() }, failed: wait}, nil
}
