// Command hostile tries what no guest may do, and prints what it could.
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	for _, attempt := range attempts() {
		if err := attempt.try(); err == nil {
			fmt.Println("breach:", attempt.name)
		}
	}
	fmt.Println("tried", len(attempts()))
}

type attempt struct {
	name string
	try  func() error
}

func attempts() []attempt {
	list := []attempt{
		{"mount a tmpfs", func() error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") }},
		{"mount the host's disk", func() error { return unix.Mount("/dev/vda", "/mnt", "ext4", 0, "") }},
		{"remount the root", func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") }},
		{"unmount /proc", func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }},
		{"trace the first process", func() error { return unix.PtraceAttach(1) }},
		{"read the first process's memory", func() error { return open("/proc/1/mem", os.O_RDWR) }},
		{"raw IP socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"raw IPv6 socket", func() error { return socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6) }},
		{"packet socket", func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
		{"vsock", func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
		{"the host's unix socket", func() error { return dial("/mnt/socket") }},
		{"the host's pipe", func() error { return open("/mnt/pipe", os.O_RDWR) }},
		{"the host's device", func() error { return open("/mnt/device", os.O_RDWR) }},
		{"set the clock", func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) }},
		{"set the host name", func() error { return unix.Sethostname([]byte("mine")) }},
		{"load a module", func() error { return unix.InitModule([]byte("x"), "") }},
		{"load a kernel", func() error { return unix.KexecFileLoad(0, 0, "", 0) }},
		{"restart the machine", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }},
		{"swap", func() error { return syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&[]byte("/tmp/x\x00")[0]))) }},
		{"ports of the processor", func() error { return syscall(unix.SYS_IOPL, 3) }},
		{"bpf", func() error { return syscall(unix.SYS_BPF, 5) }},
		{"a file by its handle", func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), os.O_RDONLY)
			return err
		}},
		{"the namespace of the first process", func() error { return join("/proc/1/ns/mnt", unix.CLONE_NEWNS) }},
	}
	for _, path := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/vda", "/dev/sda", "/dev/loop-control", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent"} {
		list = append(list, attempt{"open " + path, func() error { return open(path, os.O_RDWR) }})
	}
	for name, device := range map[string]struct {
		mode         uint32
		major, minor uint32
	}{"disk": {unix.S_IFBLK, 254, 0}, "kvm": {unix.S_IFCHR, 10, 232}, "mem": {unix.S_IFCHR, 1, 1}, "loop-control": {unix.S_IFCHR, 10, 237}} {
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

func dial(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}

func join(path string, kind int) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, kind)
}

func syscall(number uintptr, args ...uintptr) error {
	var all [3]uintptr
	copy(all[:], args)
	if _, _, errno := unix.Syscall(number, all[0], all[1], all[2]); errno != 0 {
		return errno
	}
	return nil
}
