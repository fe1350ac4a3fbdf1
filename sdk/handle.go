package freshet

// Handle names a function or a method of a class together with the types of its input and output. Package client calls by it:
// client.Of(c, handle).Call(ctx, in). It is a plain value, which other programs may import from the package that defines the app.
type Handle[In, Out any] struct {
	function, method string
}

// Function is the function's name as callers write it, APP.FUNCTION.
func (h Handle[In, Out]) Function() string { return h.function }

// Method is the method's name; empty for a function that is none of a class.
func (h Handle[In, Out]) Method() string { return h.method }

// StreamHandle names a generator together with the types of its input and of the values that it yields. Package client calls by it:
// client.StreamOf(c, handle).Values(ctx, in).
type StreamHandle[In, Out any] struct{ function string }

// Function is the function's name as callers write it, APP.FUNCTION.
func (h StreamHandle[In, Out]) Function() string { return h.function }
