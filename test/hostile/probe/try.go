package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const patience = 3 * time.Second

// tried is what a guest tried, and which of it it could.
type tried struct {
	Tried    int      `json:"tried"`
	Breaches []string `json:"breaches"`
}

// try tries what no guest may do.
func try() tried {
	all := append(attempts(), files()...)
	out := tried{Tried: len(all)}
	for _, attempt := range all {
		if err := attempt.try(); err == nil {
			out.Breaches = append(out.Breaches, attempt.name)
		}
	}
	return out
}

type attempt struct {
	name string
	try  func() error
}

func attempts() []attempt {
	return []attempt{
		{"mount a tmpfs", func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
		{"mount the host's disk", func() error { return unix.Mount("/dev/vda", "/tmp", "ext4", 0, "") }},
		{"bind the root", func() error { return unix.Mount("/", "/tmp", "", unix.MS_BIND, "") }},
		{"remount the root", func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") }},
		{"mount the kernel's debugging", func() error { return unix.Mount("debugfs", "/tmp", "debugfs", 0, "") }},
		{"trace the first process", func() error { return unix.PtraceAttach(1) }},
		{"write the first process's memory", func() error { return open("/proc/1/mem", os.O_RDWR) }},
		{"raw IP socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"raw IPv6 socket", func() error { return socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6) }},
		{"packet socket", func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
		{"vsock", func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
		{"set the clock", func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) }},
		{"load a module", func() error { return unix.InitModule([]byte("x"), "") }},
		{"load a kernel", func() error { return unix.KexecFileLoad(0, 0, "", 0) }},
		{"restart the machine", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }},
		{"swap", func() error { return call(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&[]byte("/tmp/x\x00")[0]))) }},
		{"ports of the processor", func() error { return call(unix.SYS_IOPL, 3) }},
		{"bpf", func() error { return call(unix.SYS_BPF, 5) }},
		{"performance events", func() error { return call(unix.SYS_PERF_EVENT_OPEN, 0, 0, ^uintptr(0)) }},
		{"faults by hand", func() error { return call(unix.SYS_USERFAULTFD) }},
		{"a ring with the kernel", func() error { return call(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&[120]byte{}))) }},
		{"the first process's namespace", func() error { return join("/proc/1/ns/mnt", unix.CLONE_NEWNS) }},
		{"a file by its handle", func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), os.O_RDONLY)
			return err
		}},
		{"the kernel's log", func() error { _, err := unix.Klogctl(3, make([]byte, 64)); return hostLog(err) }},
		{"signal everybody else", func() error { return others() }},
	}
}

// files are what must not be there, or not be opened.
func files() []attempt {
	var list []attempt
	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/vda", "/dev/sda",
		"/dev/loop-control", "/dev/loop0", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent",
	} {
		list = append(list, attempt{"open " + path, func() error { return open(path, os.O_RDWR) }})
	}
	for name, device := range map[string]struct{ mode, major, minor uint32 }{
		"disk": {unix.S_IFBLK, 254, 0}, "kvm": {unix.S_IFCHR, 10, 232}, "mem": {unix.S_IFCHR, 1, 1}, "loop": {unix.S_IFBLK, 7, 0},
	} {
		list = append(list, attempt{"make and open the device " + name, func() error {
			path := filepath.Join("/tmp", name)
			if err := unix.Mknod(path, device.mode|0o600, int(unix.Mkdev(device.major, device.minor))); err != nil {
				return err
			}
			return open(path, os.O_RDWR)
		}})
	}
	return list
}

// hostLog: gVisor tells jokes in place of the host's log.
func hostLog(err error) error {
	if err == nil {
		return errors.New("an own one")
	}
	return err
}

// others signals all processes that this one sees but itself and the first one: there must be none of the host's. It counts them by
// their directories.
func others() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	seen := 0
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid > 1 && pid != os.Getpid() {
			seen++
		}
	}
	if seen > 8 { // its own parents and neighbours in the sandbox are fewer
		return nil
	}
	return fmt.Errorf("%d only", seen)
}

// look finds a word in all files below the directories that lead out, if anything does.
func look(word string) ([]string, error) {
	var found []string
	for _, root := range []string{"", "/proc/1/root", "/proc/self/cwd/..", "/proc/1/cwd"} {
		err := filepath.WalkDir(root+"/", func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what cannot be read leads nowhere
			}
			if entry.IsDir() && (entry.Name() == "proc" || entry.Name() == "sys") {
				return fs.SkipDir
			}
			if !entry.Type().IsRegular() {
				return nil
			}
			data, err := os.ReadFile(path)
			if err == nil && len(data) < 1<<16 && strings.Contains(string(data), word) {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// dial tells of each address what answers there.
func dial(with string) (map[string]string, error) {
	var addresses []string
	if err := json.Unmarshal([]byte(with), &addresses); err != nil {
		return nil, err
	}
	answers := make(map[string]string)
	for _, address := range addresses {
		answers[address] = reach(address)
	}
	return answers, nil
}

func reach(address string) string {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "no: " + err.Error()
	}
	defer func() { _ = conn.Close() }()
	said, err := talk(conn)
	if err != nil {
		return "connected"
	}
	return "answered: " + said
}

// talk reads the first line.
func talk(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line := make([]byte, 256)
	n, err := conn.Read(line)
	return strings.TrimSpace(string(line[:n])), err
}

// eat takes so many MB of memory, and touches each page.
func eat(with string) (int, error) {
	megabytes, err := strconv.Atoi(with)
	if err != nil {
		return 0, err
	}
	var kept [][]byte
	for range megabytes {
		piece := make([]byte, 1<<20)
		for i := 0; i < len(piece); i += 512 {
			piece[i] = byte(i>>9) | 1
		}
		kept = append(kept, piece)
	}
	return len(kept), nil
}

// fill writes to a file until nothing more fits, or so many MB; it gives back how many MB did.
func fill(with string) (string, error) {
	path, most, _ := strings.Cut(with, " ")
	megabytes, err := strconv.Atoi(most)
	if err != nil {
		return "", err
	}
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(path)
	}()
	piece := []byte(strings.Repeat("full of it ", 95326))
	for n := range megabytes {
		if _, err := file.Write(piece); err != nil {
			return fmt.Sprintf("%d: %v", n, err), nil
		}
	}
	return fmt.Sprintf("%d: no end", megabytes), nil
}

// forks starts processes until it may not, and tells how many; they end with it.
func forks(with string) (string, error) {
	most, err := strconv.Atoi(with)
	if err != nil {
		return "", err
	}
	var all []*exec.Cmd
	defer func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	for n := range most {
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			return fmt.Sprintf("%d: %v", n, err), nil
		}
		all = append(all, cmd)
	}
	return fmt.Sprintf("%d: no end", most), nil
}

// flood prints so many MB.
func flood(with string) (string, error) {
	megabytes, err := strconv.Atoi(with)
	if err != nil {
		return "", err
	}
	line := strings.Repeat("log line ", 113) + "\n"
	for range megabytes << 10 {
		if _, err := os.Stderr.WriteString(line); err != nil {
			return "", err
		}
	}
	return with, nil
}

func rest(with string) (string, error) {
	wait, err := time.ParseDuration(with)
	if err != nil {
		return "", err
	}
	<-time.After(wait)
	return with, nil
}

func exit(with string) error {
	code, err := strconv.Atoi(with)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "the last words")
	os.Exit(code)
	return nil
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func join(path string, kind int) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, kind)
}

func call(number uintptr, args ...uintptr) error {
	var all [3]uintptr
	copy(all[:], args)
	if _, _, errno := unix.Syscall(number, all[0], all[1], all[2]); errno != 0 {
		return errno
	}
	return nil
}
