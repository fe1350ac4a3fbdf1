package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const tarType = "application/x-tar"

// volumeAPI makes, lists and removes volumes, and the files in them. They are on this gateway's own node, or on a file system that it
// shares with those of the workers.
type volumeAPI struct {
	responder
	directory

	payloads *payloads
	store    *volumes.Store
}

// volumeView is what is told of a volume.
type volumeView struct {
	Name    string    `json:"name"`
	Changed time.Time `json:"changed"`
	// Functions are those that name it.
	Functions []string `json:"functions"`
}

// storedView is what was stored in a volume.
type storedView struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (a *volumeAPI) routes() []route {
	const volume = "/v1/volumes/{name}"
	namespace, file := []string{"namespace"}, []string{"namespace", "path"}
	return []route{
		{"GET /v1/volumes", verbVolume, a.handleList, "List volumes", namespace, "", 200, plainJSON},
		{"PUT " + volume, verbVolume, a.handleCreate, "Make a volume", namespace, "", 201, plainJSON},
		{"DELETE " + volume, verbVolume, a.handleDelete, "Remove a volume with all that is in it", []string{"namespace", "force"}, "", 204, ""},
		{"GET " + volume + "/files", verbVolume, a.handleFiles, "List files of a volume", []string{"namespace", "path", "recursive"}, "", 200, ndjson},
		{"GET " + volume + "/content", verbVolume, a.handleGet, "Fetch a file, or a folder as a tar", file, "", 200, anyType},
		{"PUT " + volume + "/content", verbVolume, a.handlePut, "Store a file, or the files of a tar", []string{"namespace", "path", "mode"}, anyType, 200, plainJSON},
		{"DELETE " + volume + "/content", verbVolume, a.handleRemove, "Remove a file or folder", []string{"namespace", "path", "recursive"}, "", 204, ""},
	}
}

// asked reads what a request is about.
func (a *volumeAPI) asked(r *http.Request, parameters ...string) (ask, error) {
	asked, err := askOf(r, parameters...)
	if err == nil && a.store == nil {
		err = unavailable("this gateway has no volumes: its operator names their directory by --volumes; ask a gateway that has them", nil)
	}
	return asked, err
}

// open opens the volume that a request is about.
func (a *volumeAPI) open(r *http.Request, parameters ...string) (*volumes.Tree, ask, error) {
	asked, err := a.asked(r, parameters...)
	if err != nil {
		return nil, asked, err
	}
	tree, err := a.store.Volume(asked.namespace, asked.name)
	return tree, asked, err
}

// decline answers with why a volume cannot do it.
func (a *volumeAPI) decline(w http.ResponseWriter, r *http.Request, asked ask, err error) {
	var none *volumes.NotFoundError
	var path *volumes.PathError
	switch {
	case errors.As(err, &none):
		p := &problem{Kind: kindNotFound, Message: none.Error()}
		if list, err := a.store.List(asked.namespace); err == nil { // else there is no hint
			var names []string
			for _, v := range list {
				names = append(names, v.Name)
			}
			p.Near = near(asked.name, names)
		}
		err = p
	case errors.As(err, &path):
		err = &problem{Kind: wire.KindInput, Message: path.Error()}
	case errors.Is(err, volumes.ErrFull):
		err = &problem{Kind: kindTooLarge, Message: "the disk of the volumes is full: remove what is not needed, with `freshet volume rm`"}
	}
	a.refuse(w, r, err)
}

func (a *volumeAPI) handleList(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r)
	var found []volumes.Info
	if err == nil {
		found, err = a.store.List(asked.namespace)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	list := []volumeView{} // an empty list in JSON, never null
	for _, v := range found {
		list = append(list, volumeView{v.Name, v.Changed, a.users(asked.namespace, v.Name)})
	}
	a.respond(w, http.StatusOK, list)
}

// users are the names of the functions that name a volume.
func (a *volumeAPI) users(namespace, name string) []string {
	return a.named(namespace, func(f spec.Function) bool { return f.UsesVolume(name) })
}

func (a *volumeAPI) handleCreate(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r)
	if err == nil {
		err = a.store.Create(asked.namespace, asked.name)
	}
	if errors.Is(err, volumes.ErrExists) {
		err = &problem{Kind: kindConflict, Message: "there is a volume " + asked.name + " already"}
	}
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	a.respond(w, http.StatusCreated, volumeView{asked.name, time.Now().UTC().Truncate(time.Second), a.users(asked.namespace, asked.name)})
}

func (a *volumeAPI) handleDelete(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r, "force")
	if err == nil {
		if users := a.users(asked.namespace, asked.name); len(users) > 0 && !asked.is("force") {
			err = &problem{Kind: kindConflict, Message: fmt.Sprintf(
				"volume %s is used by %s: deploy them without it first, or delete it with --force: their next worker would then not start",
				asked.name, strings.Join(users, ", "))}
		}
	}
	if err == nil {
		err = a.store.Remove(asked.namespace, asked.name)
	}
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handleFiles tells files as NDJSON, as they are found.
func (a *volumeAPI) handleFiles(w http.ResponseWriter, r *http.Request) {
	tree, asked, err := a.open(r, "path", "recursive")
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	defer tree.Close()
	encoder, told := json.NewEncoder(w), false
	err = tree.Walk(asked.flags("path"), asked.is("recursive"), func(e volumes.Entry) error {
		if !told {
			w.Header().Set("Content-Type", ndjson)
		}
		told = true
		return encoder.Encode(e)
	})
	switch {
	case err == nil && !told:
		w.Header().Set("Content-Type", ndjson)
		w.WriteHeader(http.StatusOK)
	case err != nil && !told:
		a.decline(w, r, asked, err)
	case err != nil:
		a.broke(r, asked, err)
	}
}

// broke ends an answer that has begun: whoever reads it sees that it is not whole.
func (a *volumeAPI) broke(r *http.Request, asked ask, err error) {
	if r.Context().Err() == nil {
		a.log.Warn().Err(err).Str("volume", asked.name).Msg("send files of a volume")
	}
	panic(http.ErrAbortHandler) // net/http's way to break a connection off
}

// handleGet answers with a file, or the range of it that is asked for, or with a folder as a tar.
func (a *volumeAPI) handleGet(w http.ResponseWriter, r *http.Request) {
	tree, asked, err := a.open(r, "path")
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	defer tree.Close()
	folder, err := tree.Folder(asked.flags("path"))
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	if folder {
		w.Header().Set("Content-Type", tarType)
		if r.Method == http.MethodHead {
			return
		}
		if err := tree.Pack(asked.flags("path"), w); err != nil {
			a.broke(r, asked, err)
		}
		return
	}
	file, info, err := tree.File(asked.flags("path"))
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	defer func() { _ = file.Close() }() // read only
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// handlePut stores a body as a file, or, when it is a tar, the files in it.
func (a *volumeAPI) handlePut(w http.ResponseWriter, r *http.Request) {
	tree, asked, err := a.open(r, "path", "mode")
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	defer tree.Close()
	stored, err := a.put(w, r, tree, asked)
	if err != nil {
		endConnection(w, r) // what is left of the body is nobody's
		a.decline(w, r, asked, err)
		return
	}
	a.respond(w, http.StatusOK, stored)
}

func (a *volumeAPI) put(w http.ResponseWriter, r *http.Request, tree *volumes.Tree, asked ask) (storedView, error) {
	mode, err := strconv.ParseUint("0"+asked.flags("mode"), 8, 32)
	if err != nil || mode > 0o777 {
		return storedView{}, badInput("query parameter mode", asked.flags("mode"), "use an octal number up to 777, such as 644")
	}
	if mode == 0 {
		mode = 0o644
	}
	room, err := a.store.Room()
	if err != nil {
		return storedView{}, err
	}
	if r.ContentLength > room {
		return storedView{}, volumes.ErrFull
	}
	body := a.payloads.pace(w, r)
	in := &bounded{in: body, left: room}
	stored := storedView{Files: 1}
	if r.Header.Get("Content-Type") == tarType {
		stored.Files, err = tree.Unpack(asked.flags("path"), in)
	} else {
		_, err = tree.Put(asked.flags("path"), fs.FileMode(mode), in)
	}
	if body.failed != nil {
		return stored, a.payloads.broken(int(body.read), body.failed)
	}
	body.allow(0)
	stored.Bytes = body.read
	return stored, err
}

// bounded reads so much that the disk is not full.
type bounded struct {
	in   io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, volumes.ErrFull
	}
	return n, err
}

func (a *volumeAPI) handleRemove(w http.ResponseWriter, r *http.Request) {
	tree, asked, err := a.open(r, "path", "recursive")
	if err == nil {
		defer tree.Close()
		err = tree.Remove(asked.flags("path"), asked.is("recursive"))
	}
	if err != nil {
		a.decline(w, r, asked, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// checkVolumes refuses functions that name volumes which there are not. A gateway without volumes leaves that to the nodes that have them.
func checkVolumes(store *volumes.Store, manifest spec.Manifest) error {
	if store == nil {
		return nil
	}
	for _, f := range manifest.Functions {
		for _, v := range f.OwnVolumes() {
			if !store.Has(f.Namespace, v.Name) {
				none := &volumes.NotFoundError{Namespace: f.Namespace, Name: v.Name}
				return badInput("functions."+f.Name+".volume", v.Name, none.Error())
			}
		}
	}
	return nil
}
