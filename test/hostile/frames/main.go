// Command frames is a guest that breaks the protocol between supervisor and guest, in a way that the number in SEED decides: before
// its greeting, or when it is given a call.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

func main() {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		os.Exit(2)
	}
	g := guest{rand: rand.New(rand.NewPCG(seed, 1)), in: wire.NewReader(os.Stdin, 0), out: os.Stdout} //nolint:gosec // a test repeats itself
	if seed%10 == 0 {
		g.harm(0)
		return
	}
	g.greet()
	msg, err := g.in.Read()
	if err != nil || msg.Type != wire.TypeCall {
		os.Exit(3)
	}
	g.harm(msg.Call)
}

type guest struct {
	rand *rand.Rand
	in   *wire.Reader
	out  io.Writer
}

func (g *guest) greet() {
	msg, err := g.in.Read()
	if err != nil || msg.Type != wire.TypeHello {
		os.Exit(3)
	}
	g.write(frame(wire.TypeWelcome, 0, 0, body([]byte(`{"version":2,"sdk":"hostile","streams":true}`), nil)))
	g.write(frame(wire.TypeReady, 0, 0, body(nil, nil)))
}

// write writes, or ends where nobody reads.
func (g *guest) write(data []byte) {
	if _, err := g.out.Write(data); err != nil {
		os.Exit(4)
	}
}

// harm breaks the protocol.
func (g *guest) harm(call uint64) {
	ways := []func(uint64){g.noise, g.mutated, g.lengths, g.unasked, g.interleaved, g.endless, g.streams, g.metas, g.cut, g.slow}
	way := g.rand.IntN(4 * (len(ways) - 1)) // the slow one is rare: it takes as long as a call may
	if way == 0 {
		way = len(ways) - 1
	}
	ways[way%len(ways)](call)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the host has enough
}

// frame makes a frame, right in its form.
func frame(typ wire.Type, flags byte, call uint64, body []byte) []byte {
	header := []byte{0xF5, 0x52, byte(typ), flags}
	header = binary.BigEndian.AppendUint64(header, call)
	header = binary.BigEndian.AppendUint32(header, uint32(len(body)))
	return append(header, body...)
}

func body(meta, payload []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(meta))), meta...), payload...)
}

func (g *guest) bytes(most int) []byte {
	data := make([]byte, 1+g.rand.IntN(most))
	for i := range data {
		data[i] = byte(g.rand.Uint32())
	}
	return data
}

func (g *guest) noise(uint64) { g.write(append([]byte("this is no frame"), g.bytes(1<<16)...)) }

// mutated changes bytes of what would be right.
func (g *guest) mutated(call uint64) {
	result, _ := json.Marshal(wire.Result{ContentType: "text/plain"})
	for {
		right := frame(wire.TypeLog, 0, call, body([]byte(`{"time":"2026-01-02T03:04:05Z"}`), g.bytes(200)))
		right = append(right, frame(wire.TypeYield, 0, call, body(result, g.bytes(100)))...)
		for range 1 + g.rand.IntN(8) {
			right[g.rand.IntN(len(right))] ^= 1 << g.rand.IntN(8)
		}
		g.write(right)
	}
}

// lengths claims what it does not send.
func (g *guest) lengths(call uint64) {
	data := frame(wire.TypeResult, 0, call, body([]byte(`{}`), g.bytes(100)))
	if g.rand.IntN(2) == 0 {
		binary.BigEndian.PutUint32(data[12:], wire.MaxFrame+1+g.rand.Uint32N(1<<31)) // of the frame
	} else {
		binary.BigEndian.PutUint32(data[16:], g.rand.Uint32()|1<<20) // of the meta
	}
	g.write(data)
}

// unasked answers what nobody asked, and calls that nobody made.
func (g *guest) unasked(call uint64) {
	types := []wire.Type{wire.TypeWelcome, wire.TypeReady, wire.TypeFrozen, wire.TypeDrained, wire.TypeHello, wire.TypeCall, wire.TypeThawed, 0, 0x7F, 0xFF}
	for {
		g.write(frame(types[g.rand.IntN(len(types))], 0, 0, body([]byte(`{}`), nil)))
		g.write(frame(wire.TypeResult, 0, call+1+g.rand.Uint64N(1<<40), body([]byte(`{}`), nil)))
	}
}

// interleaved begins more messages than it ends.
func (g *guest) interleaved(call uint64) {
	for number := call; ; number++ {
		g.write(frame(wire.TypeResult, 1, number, body([]byte(`{}`), g.bytes(4000))))
	}
}

// endless begins one message that has no end.
func (g *guest) endless(call uint64) {
	g.write(frame(wire.TypeResult, 1, call, body([]byte(`{}`), nil)))
	piece := make([]byte, wire.MaxFrame)
	for {
		g.write(frame(wire.TypeResult, 1, call, piece))
	}
}

// streams speaks on connections that were never opened.
func (g *guest) streams(uint64) {
	types := []wire.Type{wire.TypeOpened, wire.TypeGuestData, wire.TypeGuestEnd, wire.TypeGuestCredit, wire.TypeGuestClose}
	for {
		g.write(frame(types[g.rand.IntN(len(types))], 0, g.rand.Uint64N(4), body([]byte(`{"bytes":1000000}`), g.bytes(64))))
	}
}

// metas sends what is no JSON, or another kind of it.
func (g *guest) metas(call uint64) {
	bad := [][]byte{[]byte(`{`), []byte(`[]`), []byte(`"x"`), []byte(`{"content_type":7}`), bytes.Repeat([]byte(`[`), 60000), {0}, nil}
	g.write(frame(wire.TypeResult, 0, call, body(bad[g.rand.IntN(len(bad))], nil)))
	g.write(frame(wire.TypeFailure, 0, call, body(bad[g.rand.IntN(len(bad)-1)], nil)))
}

// cut ends within a frame.
func (g *guest) cut(call uint64) {
	data := frame(wire.TypeResult, 0, call, body([]byte(`{}`), g.bytes(1000)))
	g.write(data[:1+g.rand.IntN(len(data)-1)])
	os.Exit(g.rand.IntN(3))
}

// slow sends a right frame that takes longer than a call may, and than a guest may go on after that.
func (g *guest) slow(call uint64) {
	for _, one := range frame(wire.TypeResult, 0, call, body([]byte(`{}`), make([]byte, 1000))) {
		g.write([]byte{one})
		<-time.After(50 * time.Millisecond)
	}
}
