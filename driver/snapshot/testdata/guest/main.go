// Command guest is a program worth freezing: it fills its memory with random bytes, and answers lines about itself.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

func main() {
	var heap []byte
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "fill": // so many MiB
			size, _ := strconv.Atoi(rest)
			heap = make([]byte, size<<20)
			for at := 0; at < len(heap); at += 1 << 20 {
				_, _ = rand.Read(heap[at : at+1<<20]) // never fails: crypto/rand
			}
			debug.FreeOSMemory()
			fmt.Println(len(heap))
		case "sum":
			fmt.Println(crc32.Checksum(heap, crc32.MakeTable(crc32.Castagnoli)))
		case "self": // what must differ between copies, and the time
			random := make([]byte, 16)
			_, _ = rand.Read(random) // never fails: crypto/rand
			bootID, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
			uuid, _ := os.ReadFile("/proc/sys/kernel/random/uuid")
			host, _ := os.Hostname()
			fmt.Printf("random=%s uuid=%s boot_id=%s host=%s time=%d\n", hex.EncodeToString(random),
				strings.TrimSpace(string(uuid)), strings.TrimSpace(string(bootID)), host, time.Now().UnixNano())
		default:
			fmt.Println(in.Text())
		}
	}
}
