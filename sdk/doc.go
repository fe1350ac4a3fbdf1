// Package freshet is the Go SDK: it turns ordinary functions into functions of a freshet cluster.
//
//	func main() {
//		app := freshet.New("greetings")
//		freshet.Func(app, "hello", func(ctx context.Context, name string) (string, error) {
//			return "Hello, " + name, nil
//		})
//		app.Main()
//	}
//
// `freshet deploy DIR` builds the program, asks it for its functions and deploys them; in a worker the same program serves
// them. Calls are made with the command line, over HTTP, or with package client.
//
// # Functions
//
// [Func] adds a plain function, [Generate] one that yields values while it runs, [Batched] one that takes calls together, and [Class] one whose
// workers hold something for its methods, such as a model, with parameters that callers choose. Options say all else: resources
// ([CPU], [MemoryMB], [GPU]), how many workers there are ([Scale], [Concurrency]), attempts ([Timeout], [Retries]), bounds ([Rate], [MaxRunning],
// [QueueTimeout]), schedules ([Cron], [Every]), and what the program finds around it ([Image], [Env], [Secrets], [Egress]). What is wrong with any of them, or
// with a function's types, is told when the app is deployed, by the field's name.
//
// # Calls
//
// Each of these returns a handle, which knows the function's types. Package client calls by it, or by name, from anywhere:
//
//	c := client.New("http://127.0.0.1:8600")
//	text, err := client.Of(c, hello).Call(ctx, "Ada")
//
// and maps, spawns and streams alike. A function calls others with client.Inside, which needs no address, token or network. How a call ended is in
// its error's type: *client.RemoteError, *client.TimeoutError and so on, for errors.As.
//
// # In a function
//
// The context that a function gets ends when its call is cancelled or its time is over, and knows the call: [CallID], [Attempt], [Worker],
// its Deadline. [Logger] writes log lines that belong to the call. A panic is the call's error, with its stack, and the worker lives on;
// a panic in a goroutine that the function started ends the worker, as in any Go program: its calls get a crash error, or another attempt.
// [InputError] says that the input is at fault.
//
// # Tests
//
// Package freshettest runs an app in a test's own process, with the same encoding, hooks, retries and errors, or in a real cluster.
//
// # Inputs and outputs
//
// An input or output of type []byte is the caller's bytes as they are, a string is text, and anything else is JSON. An empty
// body is the zero value. An input of type io.Reader is read as it comes, and an output of type io.Reader or io.ReadCloser is sent as it
// is read: inputs and outputs of gigabytes then need little memory.
//
// # Snapshots
//
// A function with an [Enter] hook is frozen after the hook, once for each version, and later workers thaw from there
// instead of running the hook again. Whatever the hook made is in memory then: indexes, weights, connections that are not
// open. What must not be shared between the copies is renewed by [AfterThaw] hooks. The copies also share the state of
// math/rand's top-level functions, which Go offers no way to seed anew: use [Rand], which is, or crypto/rand, which always
// asks the kernel.
package freshet
