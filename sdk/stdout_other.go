//go:build !linux

package freshet

import "os"

// takeStdout is the process's standard output, in whose place os.Stdout is standard error from here on. Workers run Linux: this serves
// who tries a program out by hand.
func takeStdout() (*os.File, error) {
	protocol := os.Stdout
	os.Stdout = os.Stderr
	return protocol, nil
}
