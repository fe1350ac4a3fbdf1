package spec

import "fmt"

// ManifestVersion is the version of the manifest's format.
const ManifestVersion = 1

// Manifest is what a program says of itself when it is deployed: its app and functions. The Go SDK prints it when
// the program runs with the ManifestEnv variable set.
type Manifest struct {
	Format    int        `json:"format"`
	App       string     `json:"app"`
	Functions []Function `json:"functions"`
}

// ManifestEnv set to "1" makes a program built with an SDK print its manifest as JSON and exit.
const ManifestEnv = "FRESHET_MANIFEST"

// DecodeManifest reads and checks a manifest. The functions' Code is not yet set: the deploy fills it in.
func DecodeManifest(data []byte) (Manifest, error) {
	var m Manifest
	if err := strictJSON(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	if m.Format != ManifestVersion {
		return Manifest{}, FieldError{
			Field: "format", Value: fmt.Sprint(m.Format),
			Mend: fmt.Sprintf("this freshet reads format %d: use a matching SDK", ManifestVersion),
		}
	}
	if !ValidName(m.App) {
		return Manifest{}, FieldError{Field: "app", Value: m.App, Mend: "use " + NamePattern}
	}
	for i, f := range m.Functions {
		if f.App != m.App {
			return Manifest{}, FieldError{Field: fmt.Sprintf("functions[%d].app", i), Value: f.App, Mend: "use the manifest's app, " + m.App}
		}
	}
	return m, nil
}
