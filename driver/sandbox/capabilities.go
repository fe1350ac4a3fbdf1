package sandbox

import (
	"fmt"
	"slices"
	"strings"

	"gvisor.dev/gvisor/runsc/specutils"
)

const capNetRaw = "CAP_NET_RAW"

// DefaultCapabilities are what an ordinary task's root may do within its sandbox: docker's set without raw sockets, as Nomad's
// docker driver has it. A function's handler needs none.
func DefaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// Capabilities are the default ones with some added and some dropped, as Config.Capabilities takes them. Names are written in
// either case, with or without "CAP_"; "all" means each that gVisor knows. What is dropped by name is never there, and dropping
// "all" leaves just what is added by name.
func Capabilities(add, drop []string) ([]string, error) {
	known := specutils.AllCapabilities().Bounding
	added, addAll, err := capabilityNames("cap_add", add, known)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := capabilityNames("cap_drop", drop, known)
	if err != nil {
		return nil, err
	}
	set := DefaultCapabilities()
	switch {
	case dropAll:
		set = nil
	case addAll:
		set = slices.Clone(known)
	}
	set = append(set, added...)
	set = slices.DeleteFunc(set, func(name string) bool { return slices.Contains(dropped, name) })
	slices.Sort(set)
	return slices.Compact(set), nil
}

func capabilityNames(field string, names, known []string) (list []string, all bool, err error) {
	for i, name := range names {
		full := strings.ToUpper(name)
		if full == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if !slices.Contains(known, full) {
			return nil, false, fmt.Errorf(`%s[%d]: %q: there is no such capability; write one such as "net_bind_service", or "all"`, field, i, name)
		}
		list = append(list, full)
	}
	return list, all, nil
}
