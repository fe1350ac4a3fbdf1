package index

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// GOROOT is where the machine's Go is, by its own word.
func GOROOT(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its root: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
