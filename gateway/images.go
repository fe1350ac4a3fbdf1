package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// maxBuild is the largest request for a build, in bytes: a Dockerfile, and secrets.
	maxBuild = 4 << 20
	// maxNaming is the largest request that says what an image's name means.
	maxNaming = 1 << 10
	// buildBeat is how often a build's answer that has nothing new to say says so: proxies end answers that are silent.
	buildBeat = 15 * time.Second
)

// What a build reserves that does not say.
const (
	defaultBuildCPU      = 1000
	defaultBuildMemoryMB = 2048
)

// images builds images, lists and removes them.
type images struct {
	responder
	directory

	payloads *payloads
	blobs    Blobs
	jobs     Jobs
}

// imageView is an image in answers.
type imageView struct {
	blobs.Image

	// Reference is what a function's image field names it by.
	Reference string `json:"reference"`
}

func viewOf(image blobs.Image) imageView {
	return imageView{Image: image, Reference: blobs.Reference + "sha256:" + image.Digest}
}

// handleList lists the images that were built in the cluster.
func (g *images) handleList(w http.ResponseWriter, r *http.Request) {
	all, err := g.blobs.Images().List(r.Context())
	if err != nil {
		g.refuse(w, r, unavailable("the blob store failed; try again", err))
		return
	}
	views := make([]imageView, len(all))
	for i, image := range all {
		views[i] = viewOf(image)
	}
	g.respond(w, http.StatusOK, views)
}

// handleImage shows what a name means.
func (g *images) handleImage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("image")
	image, err := g.blobs.Images().Find(r.Context(), name)
	if err != nil {
		g.refuse(w, r, imageProblem(name, err))
		return
	}
	g.respond(w, http.StatusOK, viewOf(image))
}

func imageProblem(name string, err error) *problem {
	if errors.Is(err, blobs.ErrNotFound) {
		return &problem{Kind: kindNotFound, Message: "no image " + name + " was built here: GET /v1/images lists those that were"}
	}
	return unavailable("the blob store failed; try again", err)
}

// handleRemove removes an image by its name or digest, unless a function uses it.
func (g *images) handleRemove(w http.ResponseWriter, r *http.Request) {
	if err := permit(r.Context(), queue.Function{}); err != nil { // others may need it, in any namespace
		g.refuse(w, r, err)
		return
	}
	name := r.PathValue("image")
	all, err := g.blobs.Images().List(r.Context())
	if err != nil {
		g.refuse(w, r, unavailable("the blob store failed; try again", err))
		return
	}
	for _, image := range all {
		if name != "sha256:"+image.Digest && (image.Name == "" || blobs.WithTag(name) != image.Name) {
			continue
		}
		if user := g.userOf(image); user != "" {
			g.refuse(w, r, &problem{Kind: kindConflict, Message: "function " + user + " uses the image " + name + ": deploy it with another one first"})
			return
		}
	}
	if err := g.blobs.Images().Remove(r.Context(), name); err != nil {
		g.refuse(w, r, imageProblem(name, err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handleName has a registry's tag mean an image that is here. A build cannot say so itself: whoever builds is not who says what others'
// images mean.
func (g *images) handleName(w http.ResponseWriter, r *http.Request) {
	err := permit(r.Context(), queue.Function{}) // others use it, in any namespace
	var body []byte
	if err == nil {
		body, err = g.payloads.readAll(w, r, maxNaming, "what an image's name means")
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	name := blobs.WithTag(r.PathValue("image"))
	var request struct {
		Digest string `json:"digest"`
	}
	if err := decodeStrict(body, &request); err != nil {
		g.refuse(w, r, badInput("body", string(body), `send {"digest": "sha256:…"}: `+err.Error()))
		return
	}
	if !spec.ValidImageName(name) || !spec.NamesRegistry(name) {
		g.refuse(w, r, badInput("image", name, "name a registry's image in full, such as docker.io/library/debian:12-slim"))
		return
	}
	image, err := g.blobs.Images().Built(r.Context(), strings.TrimPrefix(request.Digest, "sha256:"))
	if err != nil {
		g.refuse(w, r, imageProblem(request.Digest, err))
		return
	}
	image.Name = name
	if err := g.blobs.Images().Put(r.Context(), image); err != nil {
		g.refuse(w, r, unavailable("the blob store failed; try again", err))
		return
	}
	g.respond(w, http.StatusOK, viewOf(image))
}

// userOf is a function that uses the image.
func (g *images) userOf(image blobs.Image) string {
	for _, entry := range g.functions.List() {
		named, ok := strings.CutPrefix(entry.Spec.Image, blobs.Reference)
		if ok && (named == "sha256:"+image.Digest || image.Name != "" && blobs.WithTag(named) == image.Name) {
			return entry.Spec.JobID()
		}
	}
	return ""
}

// buildRequest is the body of a request for a build.
type buildRequest struct {
	Build spec.Build `json:"build"`
	// Secrets are by id, in base64.
	Secrets map[string][]byte `json:"secrets"`
	// Resources are what the build reserves on its node.
	Resources spec.Resources `json:"resources"`
	// NetworkMode is the task's: what steps reach. Default "bridge".
	NetworkMode string `json:"network_mode"`
}

// buildLine is a line of the answer; the last one has the image or the error.
type buildLine struct {
	Line  string     `json:"line,omitempty"`
	Image *imageView `json:"image,omitempty"`
	Error *problem   `json:"error,omitempty"`
}

// handleBuild builds an image on a node, and answers while it does with what the build says. A client who goes away ends it.
func (g *images) handleBuild(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err == nil && !spec.ValidName(namespaceOf(query)) {
		err = badInput("query parameter namespace", namespaceOf(query), "use "+spec.NamePattern)
	}
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	request, err := g.readBuild(w, r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", ndjson)
	w.WriteHeader(http.StatusOK)
	said := &buildAnswer{encoder: json.NewEncoder(w), control: http.NewResponseController(w)}
	said.send(buildLine{Line: "starting a build"})
	stop := said.beat(r.Context())
	err = g.jobs.Build(r.Context(), jobs.Build{
		Namespace: namespaceOf(query), Build: request.Build, Secrets: request.Secrets, Resources: request.Resources, NetworkMode: request.NetworkMode,
	}, said.line)
	stop()
	if err == nil {
		err = g.tellImage(r.Context(), said)
	}
	if err != nil {
		said.send(buildLine{Error: g.buildProblem(r, err)})
	}
}

func (g *images) readBuild(w http.ResponseWriter, r *http.Request) (buildRequest, error) {
	var request buildRequest
	body, err := g.payloads.readAll(w, r, maxBuild, "a request for a build, whose files go into its context,")
	if err != nil {
		return request, err
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return request, badInput("body", string(body), `send {"build": {…}, "secrets": {…}, "resources": {…}}: `+err.Error())
	}
	return request, g.checkBuild(r.Context(), &request)
}

// checkBuild refuses what a job would fail of, and sets what the request leaves out.
func (g *images) checkBuild(ctx context.Context, request *buildRequest) error {
	b := &request.Build
	if len(b.Secrets) > 0 {
		return badInput("build.secrets", "", "send the secrets themselves, in base64, in a member secrets beside build")
	}
	digest, isBlob := strings.CutPrefix(b.Context, "sha256:")
	if b.Context != "" && !isBlob {
		return badInput("build.context", b.Context, "upload the context with PUT /v1/blobs/{digest} and write sha256: and its digest")
	}
	if err := (spec.Config{Build: b, Container: spec.Container{NetworkMode: request.NetworkMode}}).Validate(); err != nil {
		return &problem{Kind: wire.KindInput, Message: err.Error()}
	}
	if request.Resources.CPU == 0 {
		request.Resources.CPU = defaultBuildCPU
	}
	if request.Resources.MemoryMB == 0 {
		request.Resources.MemoryMB = defaultBuildMemoryMB
	}
	if request.Resources.CPU < 1 || request.Resources.MemoryMB < spec.MinMemoryMB {
		return badInput("resources", "", "use 1 MHz or more of cpu, and 128 MB or more of memory")
	}
	if !isBlob {
		return nil
	}
	there, err := g.blobs.Has(ctx, digest)
	if err != nil {
		return blobProblem(digest, err)
	}
	if !there {
		return blobProblem(digest, blobs.ErrNotFound)
	}
	return nil
}

// tellImage ends the answer with the image that the build named last.
func (g *images) tellImage(ctx context.Context, said *buildAnswer) error {
	digest, ok := strings.CutPrefix(said.last, blobs.BuiltLine)
	if !ok {
		return &problem{Kind: kindInternal, Message: "the build ended without naming its image"}
	}
	image, err := g.blobs.Images().Built(ctx, digest)
	if err != nil {
		return imageProblem("sha256:"+digest, err)
	}
	view := viewOf(image)
	said.send(buildLine{Image: &view})
	return nil
}

func (g *images) buildProblem(r *http.Request, err error) *problem {
	var failed *wire.Error
	if errors.As(err, &failed) {
		return ended(failed)
	}
	p := asProblem(err)
	if r.Context().Err() == nil {
		g.log.Error().Err(err).Msg("build image")
	}
	return p
}

// buildAnswer is the answer to a request for a build.
type buildAnswer struct {
	mu      sync.Mutex
	encoder *json.Encoder
	control *http.ResponseController
	last    string
}

// line passes on a line of the build.
func (a *buildAnswer) line(text string) {
	a.mu.Lock()
	a.last = text
	a.mu.Unlock()
	a.send(buildLine{Line: text})
}

// send writes a line of the answer. A client who cannot be written to has gone, which ends the build.
func (a *buildAnswer) send(line buildLine) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = errors.Join(a.encoder.Encode(line), a.control.Flush())
}

// beat sends empty lines until stop is called, or the context ends.
func (a *buildAnswer) beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(buildBeat)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				a.send(buildLine{})
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}
