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
	if len(os.Args) > 1 {
		select {} // a child of "fork": there until it is killed
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
		case "fork":
			started := 0
			for range number {
				if err := exec.Command("/guest", "child").Start(); err != nil { // they end with the sandbox
					fmt.Println("forked", started, err)
					break
				}
				started++
			}
			fmt.Println("forked", started)
		case "bomb": // until the end
			for {
				_ = exec.Command("/guest", "child").Start() // what fails is tried again
			}
		default:
			fmt.Println(in.Text())
		}
	}
}
