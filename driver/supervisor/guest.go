package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/sdk/wire/stream"
)

// exitWait is how long a guest that closed its output gets to exit, so that callers read its exit code.
const exitWait = 2 * time.Second

// guest is the user's process as the supervisor sees it: messages in and out, and how it died. It trusts nothing it reads.
type guest struct {
	sandbox *sandbox.Sandbox
	task    handoff.Task
	writer  *wire.Writer
	logs    *logs
	groups  *groups
	control *handoff.Server
	// streams are connections to the guest's server, and the large inputs and outputs of calls.
	streams  *stream.Opener
	payloads *payloads
	// takesLarge says that inputs may come by streams.
	takesLarge bool
	// outward takes the guest's own calls; nil where it may make none.
	outward *outward
	life    context.Context //nolint:containedctx // what moves payloads ends with the guest
	leave   context.CancelFunc
	reading sync.WaitGroup

	// answers are the messages about the whole guest. A guest that sends what nobody asked for fills it and is cut off.
	answers chan wire.Message
	// dead is closed when nothing more will come; death says why.
	dead  chan struct{}
	death *wire.Error
	// alone says that at most one call was running when the guest died, so that it is known which one did it.
	alone bool
	// robbed says that somebody killed the sandbox under the guest, which is no fault of the function's.
	robbed bool

	mu    sync.Mutex
	last  uint64
	calls map[uint64]*running
}

// running is a call that the guest has not ended yet.
type running struct {
	id      string
	attempt int
	// transfer is the stream with what is too large for a message; nil for most calls.
	transfer *transfer
	done     chan outcome                               // capacity 1: the first outcome counts
	yield    func(meta wire.Result, value []byte) error // nil when nobody wants the call's values
	batch    *sync.WaitGroup                            // told when the guest ended the call; nil for one that runs alone
}

// over tells the call's batch, if it is of one, that the guest has ended it.
func (r *running) over() {
	if r.batch != nil {
		r.batch.Done()
	}
}

// outcome is how one attempt ended.
type outcome struct {
	err         *wire.Error
	contentType string
	body        []byte
	// large says that the output came by the call's stream; payload is where it is.
	large   bool
	payload *queue.Payload
	// yields is how many values came before.
	yields int
	// unsent says that the guest was dead before it got the call: whatever killed it, this call did not.
	unsent bool
	// gathered is how long the call waited for others of its batch, and for a worker's room for one.
	gathered time.Duration
}

// openGuest begins to listen to the guest of a sandbox, which it takes over, and to whoever asks about it.
func openGuest(ctx context.Context, s *sandbox.Sandbox, task handoff.Task, groups *groups, logs *logs, payloads *payloads) (*guest, error) {
	control, err := handoff.Serve(ctx, task.StateDir, newControl(s, task).answer)
	if err != nil {
		err = errors.Join(err, s.Destroy())
		closeStreams(s)
		return nil, err
	}
	g := &guest{
		sandbox: s, task: task, writer: wire.NewWriter(s.Stdin), logs: logs, groups: groups, control: control,
		answers: make(chan wire.Message, 4),
		dead:    make(chan struct{}),
		calls:   make(map[uint64]*running),
	}
	g.streams, g.payloads = stream.NewOpener(g.writer), payloads
	g.life, g.leave = context.WithCancel(context.WithoutCancel(ctx))
	if g.outward, err = openOutward(g.life, task); err != nil {
		g.leave()
		err = errors.Join(err, s.Destroy())
		control.Close()
		closeStreams(s)
		return nil, err
	}
	g.reading.Go(func() { g.read(wire.NewReader(s.Stdout, maxPayload)) })
	g.reading.Go(func() { logs.copyLines(s.Stderr, g.only) })
	return g, nil
}

// read dispatches the guest's messages until it closes its output or breaks the protocol.
func (g *guest) read(in *wire.Reader) {
	for {
		msg, err := in.Read()
		if err == nil {
			err = g.dispatch(msg)
		}
		if err != nil {
			g.die(err)
			return
		}
	}
}

func (g *guest) dispatch(msg wire.Message) error {
	if msg.Type.Stream() {
		return g.streams.Handle(msg) // refused where none was opened
	}
	switch msg.Type {
	case wire.TypeResult:
		var meta wire.Result
		if err := msg.DecodeMeta(&meta); err != nil {
			return err
		}
		return g.end(msg.Call, outcome{contentType: meta.ContentType, body: msg.Payload, large: meta.Large})
	case wire.TypeFailure:
		failure := &wire.Error{}
		if err := msg.DecodeMeta(failure); err != nil {
			return err
		}
		if failure.Kind != wire.KindUser && failure.Kind != wire.KindInput && failure.Kind != wire.KindCancelled {
			failure.Kind = wire.KindUser // the other kinds are the platform's to say
		}
		return g.end(msg.Call, outcome{err: failure})
	case wire.TypeLarge:
		return g.large(msg)
	case wire.TypeDial:
		if g.outward == nil {
			return fmt.Errorf("%w: a connection to the gateway was asked for, and none was offered", wire.ErrType)
		}
		g.outward.dial(g, msg.Call)
		return nil
	case wire.TypeLog:
		return g.log(msg)
	case wire.TypeYield:
		return g.yield(msg)
	}
	select {
	case g.answers <- msg:
		return nil
	default:
		return fmt.Errorf("%w: message 0x%02x that nobody asked for", wire.ErrType, uint8(msg.Type))
	}
}

// yield passes on a value of a call whose values are wanted.
func (g *guest) yield(msg wire.Message) error {
	var meta wire.Result
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	g.mu.Lock()
	call := g.calls[msg.Call]
	g.mu.Unlock()
	if call == nil || call.yield == nil {
		return fmt.Errorf("%w: a yield from call number %d, which was not asked for values", wire.ErrType, msg.Call)
	}
	return call.yield(meta, msg.Payload)
}

func (g *guest) log(msg wire.Message) error {
	var meta wire.Log
	if err := msg.DecodeMeta(&meta); err != nil {
		return err
	}
	g.mu.Lock()
	call := g.calls[msg.Call]
	g.mu.Unlock()
	id := ""
	if call != nil {
		id = call.id
	}
	g.logs.frame(id, meta, string(msg.Payload))
	return nil
}

// end hands a call its outcome. A call that nobody runs (it was ended by its timeout, say) is forgotten.
func (g *guest) end(number uint64, o outcome) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	call, ok := g.calls[number]
	if !ok {
		return fmt.Errorf("%w: an answer to call number %d, which is not running", wire.ErrType, number)
	}
	delete(g.calls, number)
	call.offer(o)
	call.over()
	return nil
}

// offer gives an outcome unless there is one already.
func (r *running) offer(o outcome) {
	select {
	case r.done <- o:
	default:
	}
}

// die records why the guest ended, cuts it off and ends its calls.
func (g *guest) die(cause error) {
	death := &wire.Error{Kind: wire.KindProtocol, Message: "the function's process broke its protocol: " + cause.Error() + "; a program must not print on the descriptor it was started with as standard output"}
	if errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) {
		death = g.exited()
	}
	_ = g.sandbox.Kill() // what is not dead yet must not go on
	g.streams.Close(death)
	g.leave()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.death, g.alone = death, len(g.calls) <= 1
	close(g.dead)
	for number, call := range g.calls {
		delete(g.calls, number)
		call.offer(outcome{err: death})
		call.over()
	}
}

// exited tells how a process that closed its output ended.
func (g *guest) exited() *wire.Error {
	exits := make(chan sandbox.Exit, 1)
	go func() { // ends with the sandbox, which die kills next
		if exit, err := g.sandbox.Wait(); err == nil {
			exits <- exit
		}
		close(exits)
	}()
	select {
	case exit, ok := <-exits:
		if g.groups.outOfMemory() {
			return &wire.Error{Kind: wire.KindMemory, Message: memoryReason(g.task)}
		}
		if said := g.lastWords(); said != nil {
			return said
		}
		if ok {
			g.robbed = exit.Lost == sandbox.LostKilled
			return &wire.Error{Kind: wire.KindCrash, Message: "the function's process " + exit.String()}
		}
		g.robbed = true
		return &wire.Error{Kind: wire.KindCrash, Message: "the function's sandbox was killed"}
	case <-time.After(exitWait):
		return &wire.Error{Kind: wire.KindCrash, Message: "the function's process closed its output and went on"}
	}
}

// wasRobbed tells that the guest, if there is one, is dead because somebody killed its sandbox: the next one may start well.
func (g *guest) wasRobbed() bool {
	if g == nil {
		return false
	}
	select {
	case <-g.dead:
		return g.robbed
	default:
		return false
	}
}

// lastWords are why a guest said that it ends, such as the end of its server: they tell more than its exit code. Nil when it said
// nothing.
func (g *guest) lastWords() *wire.Error {
	for {
		select {
		case msg := <-g.answers:
			said := &wire.Error{}
			if msg.Type == wire.TypeFailed && msg.DecodeMeta(said) == nil {
				said.Kind = wire.KindCrash // what kind of end it is, is the platform's to say
				return said
			}
		default:
			return nil
		}
	}
}

// only is the id of the call that runs when it is the only one: what the process prints is then that call's.
func (g *guest) only() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.calls) != 1 {
		return ""
	}
	for _, call := range g.calls {
		return call.id
	}
	return ""
}

// begin registers a call and sends it; the outcome comes on the running call's channel, and what it yields to yield. large is an input
// that follows by a stream, nil for most calls.
func (g *guest) begin(meta wire.Call, input []byte, large *blobs.PayloadReader, yield func(wire.Result, []byte) error) (uint64, *running) {
	call := &running{id: meta.ID, attempt: meta.Attempt, done: make(chan outcome, 1), yield: yield}
	return g.send(call, meta, input, large), call
}

// send is begin for a call that was made already.
func (g *guest) send(call *running, meta wire.Call, input []byte, large *blobs.PayloadReader) uint64 {
	g.mu.Lock()
	g.last++
	number := g.last
	g.calls[number] = call
	death := g.death
	if death != nil {
		delete(g.calls, number)
	}
	g.mu.Unlock()
	if death != nil {
		if large != nil {
			_ = large.Close() // read only
		}
		call.offer(outcome{err: death, unsent: true})
		call.over()
		return number
	}
	if err := g.writer.Write(wire.TypeCall, number, meta, input); err != nil {
		_ = g.sandbox.Kill() // its input is gone: the reader sees the end and ends the calls
	}
	if large != nil { // the guest knows the call by now
		g.mu.Lock()
		call.transfer = g.transfer(number, call, large)
		g.mu.Unlock()
	}
	return number
}

// cancel ends a call for its caller at once, and asks the guest to end it too.
func (g *guest) cancel(number uint64, call *running, reason *wire.Error) {
	call.offer(outcome{err: reason})
	if err := g.writer.Write(wire.TypeCancel, number, wire.Cancel{Kind: reason.Kind}, nil); err != nil {
		_ = g.sandbox.Kill()
	}
}

// ended tells whether the guest ended the call.
func (g *guest) ended(number uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, runs := g.calls[number]
	return !runs
}

// ask sends a message about the whole guest and waits for the answer of the wanted type; Failed is the guest's own error.
func (g *guest) ask(ctx context.Context, send wire.Type, meta any, want wire.Type) (wire.Message, error) {
	if err := g.writer.Write(send, 0, meta, nil); err != nil {
		return wire.Message{}, g.lost(ctx, err)
	}
	return g.await(ctx, want)
}

func (g *guest) await(ctx context.Context, want wire.Type) (wire.Message, error) {
	select {
	case msg := <-g.answers:
		if msg.Type == wire.TypeFailed {
			failure := &wire.Error{}
			if err := msg.DecodeMeta(failure); err != nil {
				return wire.Message{}, &wire.Error{Kind: wire.KindProtocol, Message: fmt.Sprintf("the function's process failed without a reason: %v", err)}
			}
			return wire.Message{}, failure
		}
		if msg.Type != want {
			return wire.Message{}, &wire.Error{
				Kind: wire.KindProtocol, Message: fmt.Sprintf("the function's process answered 0x%02x where 0x%02x was due", uint8(msg.Type), uint8(want)),
			}
		}
		return msg, nil
	case <-g.dead:
		return wire.Message{}, g.death
	case <-ctx.Done():
		return wire.Message{}, context.Cause(ctx)
	}
}

// lost prefers the reason of the guest's death to the broken pipe that it caused.
func (g *guest) lost(ctx context.Context, err error) error {
	select {
	case <-g.dead:
		return g.death
	case <-time.After(exitWait):
		return err
	case <-ctx.Done():
		return err
	}
}

// close destroys the sandbox and waits for the readers.
func (g *guest) close() error {
	g.control.Close()
	err := g.sandbox.Destroy()
	g.leave()
	g.outward.close()
	g.reading.Wait()
	closeStreams(g.sandbox)
	return err
}
