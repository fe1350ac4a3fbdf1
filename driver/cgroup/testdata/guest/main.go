// Command guest is a program that uses resources when it is told to, a line of input at a time.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "busy" {
		for {
		}
	}
	if len(os.Args) > 1 {
		select {} // a child of "bomb": there until it is killed
	}
	var held [][]byte
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		number, _ := strconv.Atoi(rest)
		switch verb {
		case "use": // MiB
			for range number {
				block := make([]byte, 1<<20)
				for i := range block {
					block[i] = byte(i>>8) | 1
				}
				held = append(held, block)
			}
			fmt.Println("used", len(held))
		case "busy":
			for range number {
				_ = exec.Command("/guest", "busy").Start()
			}
			fmt.Println("busy")
		case "bomb": // until the end
			for {
				_ = exec.Command("/guest", "child").Start() // what fails is tried again
			}
		default:
			fmt.Println(in.Text())
		}
	}
}
