// Command guest is a tiny program for the sandbox's tests: it answers each line of input with a count that it keeps in
// memory, and does what the line says.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	in := bufio.NewScanner(os.Stdin)
	fmt.Fprintln(os.Stderr, "guest started")
	for count := 1; in.Scan(); count++ {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "exit":
			code, _ := strconv.Atoi(rest)
			os.Exit(code)
		case "read":
			data, err := os.ReadFile(rest)
			fmt.Println(count, string(data), err)
		case "write":
			fmt.Println(count, os.WriteFile(rest, []byte("x"), 0o600))
		default:
			fmt.Println(count, in.Text())
		}
	}
}
