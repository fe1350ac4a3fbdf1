package freshet

import "embed"

// Source is this module's own source, without its examples. The command line serves it to the Go command, so that programs build with the
// SDK that belongs to it before that is published, and where nothing can be reached. No program that does not name it carries it.
//
//go:embed go.mod *.go client/*.go freshettest/*.go spec/*.go web/*.go wire/*.go wire/*/*.go python/*.go python/*.py python/freshet/*.py python/freshet/*/*.py
var Source embed.FS // immutable
