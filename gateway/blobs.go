package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// handlePutBlob stores a blob under its digest, streamed and verified. One that is there is not read again.
func (g *Gateway) handlePutBlob(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	there, err := g.blobs.Has(r.Context(), digest)
	status := http.StatusOK
	if err == nil && !there {
		status = http.StatusCreated
		err = g.payloads.putBlob(w, r, g.blobs, digest)
	}
	if err != nil {
		g.refuse(w, r, blobProblem(digest, err))
		return
	}
	g.respond(w, status, map[string]string{"digest": digest})
}

// maxBlob is the largest program, or context of a build, in bytes.
const maxBlob = 16 << 30

// putBlob stores a body, which must come at the pace of a call's.
func (p *payloads) putBlob(w http.ResponseWriter, r *http.Request, store Blobs, digest string) error {
	tooLarge := &problem{Kind: kindTooLarge, Message: "body: a blob has at most " + decimal(maxBlob) + " bytes (16 GiB)"}
	if r.ContentLength > maxBlob {
		return tooLarge
	}
	body := p.pace(w, r)
	err := store.Put(r.Context(), digest, http.MaxBytesReader(w, io.NopCloser(body), maxBlob))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge
	case body.failed != nil:
		return p.broken(int(body.read), body.failed)
	case err == nil:
		body.allow(0)
	}
	return err
}

// handleGetBlob streams a blob; HEAD tells whether it is there.
func (g *Gateway) handleGetBlob(w http.ResponseWriter, r *http.Request) {
	in, err := g.blobs.Open(r.Context(), r.PathValue("digest"))
	if err != nil {
		g.refuse(w, r, blobProblem(r.PathValue("digest"), err))
		return
	}
	defer func() { _ = in.Close() }() // read only
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(in.Size(), 10))
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, in); err != nil { // the client sees a body that is too short
		g.exchange.log.Warn().Err(err).Str("digest", r.PathValue("digest")).Msg("send blob")
	}
}

func blobProblem(digest string, err error) *problem {
	var said *problem
	switch {
	case errors.As(err, &said):
		return said
	case errors.Is(err, blobs.ErrDigest):
		return badInput("digest", digest, err.Error())
	case errors.Is(err, blobs.ErrNotFound):
		return &problem{Kind: kindNotFound, Message: "no blob with digest " + digest + ": upload it with PUT /v1/blobs/" + digest}
	}
	return unavailable("the blob store failed; try again", err)
}
