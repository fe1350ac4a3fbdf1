// Package world is what the tests of hostile guests and of handlers run in: a network namespace of their own with an outside that
// answers, a whole cluster within it, and images for its tasks.
package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/freshet-dev/freshet/internal/netnstest"
)

// Addresses of the world. All of them exist, and answer at port 80 with their own address and whom they saw, so that what a guest
// does not reach, it was kept from.
const (
	// Host is the node's own address towards the outside.
	Host = "203.0.113.1"
	// Website is what egress is for.
	Website = "198.51.100.7"
	// Metadata is where clouds tell a machine its secrets.
	Metadata = "169.254.169.254"
	// Private is somebody's own network.
	Private = "10.1.2.3"

	router = "203.0.113.2"
)

// Inside runs the tests again in a network namespace of their own, which ends with them; there it calls run. It returns the exit
// code.
func Inside(run func() int) int {
	return netnstest.Inside(func() int {
		outside, err := open()
		if err != nil {
			fmt.Fprintln(os.Stderr, "make the world around the node:", err)
			return 1
		}
		defer func() { _ = outside.Close() }() // it ends with the process
		return run()
	})
}

type closers []io.Closer

func (c closers) Close() error {
	var err error
	for _, one := range c {
		err = errors.Join(err, one.Close())
	}
	return err
}

// open joins the node to a router, behind which are all the addresses above.
func open() (io.Closer, error) {
	behind := []string{Website, Metadata, Private}
	outside, err := netnstest.Outside(Host+"/24", router+"/24", behind[0]+"/32", behind[1]+"/32", behind[2]+"/32")
	if err != nil {
		return nil, err
	}
	all := closers{outside}
	err = outside.Do(func() error {
		for _, address := range behind {
			listener, err := net.Listen("tcp", net.JoinHostPort(address, "80"))
			if err != nil {
				return err
			}
			all = append(all, listener)
			go answer(listener) // ends with its listener
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// answer says whom it is and whom it saw, then gives each line back.
func answer(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() { // ends with its connection
			defer func() { _ = conn.Close() }()
			if _, err := fmt.Fprintf(conn, "%s saw %s\n", conn.LocalAddr(), conn.RemoteAddr()); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}
