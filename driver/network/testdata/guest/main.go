// Command guest is the program in the sandboxes of the network's tests: it does what each line of its input says and answers
// with a line.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

const patience = 3 * time.Second

func main() {
	g := guest{kept: make(map[string]net.Conn)}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fields := strings.Fields(in.Text())
		start := time.Now()
		answer, err := g.do(fields[0], fields[1:])
		if err != nil {
			answer = "error: " + err.Error()
		}
		if slow := time.Since(start); slow > patience/2 {
			answer += " (slow)"
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", " "))
	}
}

type guest struct {
	kept map[string]net.Conn
}

func (g *guest) do(verb string, args []string) (string, error) {
	switch verb {
	case "tcp", "udp":
		return exchange(verb, args[0])
	case "bulk":
		return bulk(args[0])
	case "listen":
		return listen(args[0])
	case "listenudp":
		return listenUDP(args[0])
	case "keep": // opens a connection and keeps it
		conn, err := net.DialTimeout(args[0], args[1], patience)
		if err != nil {
			return "", err
		}
		g.kept[args[0]] = conn
		return talk(conn)
	case "talk":
		return talk(g.kept[args[0]])
	case "ping":
		return ping(args[0], "")
	case "spoof":
		return ping(args[0], args[1])
	case "protocol": // a protocol that nobody tracks
		conn, err := net.DialTimeout("ip4:132", args[0], patience)
		if err != nil {
			return "", err
		}
		return talk(conn)
	case "addresses":
		return addresses()
	}
	return "", fmt.Errorf("unknown verb %s", verb)
}

func exchange(network, address string) (string, error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return talk(conn)
}

func talk(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	buffer := make([]byte, 1500)
	n, err := conn.Read(buffer)
	return strings.TrimSpace(string(buffer[:n])), err
}

// bulk sends many lines at once and counts the lines of the answers.
func bulk(address string) (string, error) {
	const lines = 200_000
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write([]byte(strings.Repeat("hello\n", lines)))
		if half := conn.(*net.TCPConn).CloseWrite(); err == nil {
			err = half
		}
		sent <- err
	}()
	answers := 0
	for in := bufio.NewScanner(conn); in.Scan(); {
		answers++
	}
	if err := <-sent; err != nil {
		return "", err
	}
	return fmt.Sprintf("%d of %d", answers, lines), nil
}

func listen(address string) (string, error) {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return "listening", nil
}

func serve(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		fmt.Fprintf(conn, "guest at %s saw %s\n", conn.LocalAddr(), conn.RemoteAddr())
	}
}

func listenUDP(address string) (string, error) {
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		return "", err
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			_, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(fmt.Appendf(nil, "guest saw %s", from), from)
		}
	}()
	return "listening", nil
}

// ping sends an echo request by a raw socket, from any address, and waits for the answer.
func ping(to, from string) (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	packet := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
	sum := checksum(packet)
	packet[2], packet[3] = byte(sum>>8), byte(sum)
	if from != "" {
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_HDRINCL, 1); err != nil {
			return "", err
		}
		source, target := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
		header := []byte{0x45, 0, 0, byte(20 + len(packet)), 0, 1, 0, 0, 64, 1, 0, 0}
		header = append(append(header, source[:]...), target[:]...)
		sum := checksum(header)
		header[10], header[11] = byte(sum>>8), byte(sum)
		packet = append(header, packet...)
	}
	timeout := syscall.NsecToTimeval(time.Second.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		return "", err
	}
	if err := syscall.Sendto(fd, packet, 0, &syscall.SockaddrInet4{Addr: netip.MustParseAddr(to).As4()}); err != nil {
		return "", err
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := syscall.Recvfrom(fd, buffer, 0)
		if err != nil {
			return "silence", nil
		}
		if header := int(buffer[0]&15) * 4; n >= header+8 {
			return fmt.Sprintf("icmp type %d code %d", buffer[header], buffer[header+1]), nil
		}
	}
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(data[i])<<8 | uint32(data[i+1])
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

func addresses() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var all []string
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, addr := range addrs {
			all = append(all, i.Name+"="+addr.String())
		}
	}
	return strings.Join(all, " "), nil
}
