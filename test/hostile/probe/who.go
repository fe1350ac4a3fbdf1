package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// identity is all by which a copy could be told from another one, or mistaken for it.
type identity struct {
	// Loaded is random, and made before the freeze: copies share it.
	Loaded string `json:"loaded"`
	// Random, UUID and BootID are made for each call.
	Random string `json:"random"`
	UUID   string `json:"uuid"`
	BootID string `json:"boot_id"`
	Device string `json:"device"` // from /dev/urandom
	Host   string `json:"host"`
	PID    int    `json:"pid"`
	// Wall is the time of day, Monotonic since the start of the machine, both in nanoseconds; Started is Wall at the start.
	Wall      int64 `json:"wall"`
	Monotonic int64 `json:"monotonic"`
	Started   int64 `json:"started"`
	// Elapsed is what the program's own clock says has passed since its start, in nanoseconds.
	Elapsed int64 `json:"elapsed"`
	// Secrets are what the environment and files said at the start, and what they say now.
	LoadedEnv, Env, LoadedFile, File string
}

// memory is what the start leaves in a server.
var memory struct {
	random, env, file string
	started           time.Time
	held              net.Conn
}

const secretFile = "/secrets/token"

func load() error {
	memory.started = time.Now()
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	memory.random, memory.env = hex.EncodeToString(random), os.Getenv("SECRET")
	memory.file = text(secretFile)
	if address := os.Getenv("HOLD"); address != "" {
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			return err
		}
		memory.held = conn
		_, err = talk(conn)
		return err
	}
	return nil
}

func who() (identity, error) {
	random, device := make([]byte, 16), make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return identity{}, err
	}
	file, err := os.Open("/dev/urandom")
	if err != nil {
		return identity{}, err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Read(device); err != nil {
		return identity{}, err
	}
	host, err := os.Hostname()
	if err != nil {
		return identity{}, err
	}
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &since); err != nil {
		return identity{}, err
	}
	return identity{
		Loaded: memory.random, Random: hex.EncodeToString(random), UUID: text("/proc/sys/kernel/random/uuid"),
		BootID: text("/proc/sys/kernel/random/boot_id"), Device: hex.EncodeToString(device), Host: host, PID: os.Getpid(),
		Wall: time.Now().UnixNano(), Monotonic: since.Nano(), Started: memory.started.UnixNano(), Elapsed: int64(time.Since(memory.started)),
		LoadedEnv: memory.env, Env: os.Getenv("SECRET"), LoadedFile: memory.file, File: text(secretFile),
	}, nil
}

// text is what a file holds, or why not.
func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

// held tells whether the connection of the start is still one.
func held() (string, error) {
	if memory.held == nil {
		return "", errors.New("there is none")
	}
	if err := memory.held.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(memory.held, "still there"); err != nil {
		return "cut: " + err.Error(), nil
	}
	line, err := bufio.NewReader(memory.held).ReadString('\n')
	if err != nil {
		return "cut: " + err.Error(), nil
	}
	return "alive: " + strings.TrimSpace(line), nil
}
