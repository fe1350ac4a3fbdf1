package sandbox

import (
	"fmt"
	"os"
)

// Pause stops all processes of the guest, for good or until Resume of gVisor's own.
func (s *Sandbox) Pause() error {
	if err := s.box.Pause(s.id); err != nil {
		return fmt.Errorf("pause sandbox: %w", err)
	}
	return nil
}

// TarUpper writes what the guest changed in its root, which has an Overlay, as a tar stream: what it removed is a character device
// with the number 0, and a directory that hides what is below it has the attribute trusted.overlay.opaque.
func (s *Sandbox) TarUpper(to *os.File) error {
	if err := s.box.TarRootfsUpperLayer(s.id, to); err != nil {
		return fmt.Errorf("read what the guest changed: %w", err)
	}
	return nil
}
