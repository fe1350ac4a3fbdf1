package freshet

import (
	"fmt"
	"os"
	"syscall"
)

// takeStdout is the process's standard output, in whose place it has standard error from here on, its children too.
func takeStdout() (*os.File, error) {
	protocol, err := syscall.Dup(1)
	if err != nil {
		return nil, fmt.Errorf("keep the protocol's descriptor: %w", err)
	}
	syscall.CloseOnExec(protocol)
	if err := syscall.Dup3(2, 1, 0); err != nil {
		return nil, fmt.Errorf("move standard output: %w", err)
	}
	return os.NewFile(uintptr(protocol), "protocol"), nil
}
