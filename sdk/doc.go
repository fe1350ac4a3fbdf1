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
