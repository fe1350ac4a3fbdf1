package client

import (
	"net/http"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// failure is Error by a name that a field can have beside the method Error.
type failure = Error

// The errors below say by their type how a call ended: errors.As finds each in what calls return, beside *Error, which they hold.
type (
	// RemoteError is an error that the function's code returned, or its panic: Fault has its Go type, its message, and a panic's stack.
	RemoteError struct{ *failure }
	// InputError is an input that the function cannot take. Sending it again does not help.
	InputError struct{ *failure }
	// TimeoutError is an attempt that took longer than the function's timeout, or a call that waited too long for its first one: its
	// kind, wire.KindTimeout or wire.KindExpired, tells which.
	TimeoutError struct{ *failure }
	// CrashError is a worker whose process ended, ran out of memory or broke its protocol while the call ran, or that vanished too often.
	CrashError struct{ *failure }
	// CancelledError is a call that somebody cancelled.
	CancelledError struct{ *failure }
	// StartError is a function whose workers do not start, by its code: the next deploy mends it.
	StartError struct{ *failure }
	// NotFoundError is a function, or a call, that the cluster does not have; Near has names like the one asked for.
	NotFoundError struct{ *failure }
	// DeniedError is a token that is missing, has expired or does not allow the call.
	DeniedError struct{ *failure }
	// BusyError is a function whose queue is full or whose rate is used up, for longer than the client's patience.
	BusyError struct{ *failure }
)

// As lets errors.As find the error as the type that says how the call ended.
func (e *Error) As(target any) bool {
	kind := e.Fault.Kind
	switch t := target.(type) {
	case **RemoteError:
		return as(t, &RemoteError{e}, kind == wire.KindUser)
	case **InputError:
		return as(t, &InputError{e}, kind == wire.KindInput)
	case **TimeoutError:
		return as(t, &TimeoutError{e}, kind == wire.KindTimeout || kind == wire.KindExpired)
	case **CrashError:
		return as(t, &CrashError{e}, kind == wire.KindCrash || kind == wire.KindMemory || kind == wire.KindProtocol || kind == wire.KindLost)
	case **CancelledError:
		return as(t, &CancelledError{e}, kind == wire.KindCancelled)
	case **StartError:
		return as(t, &StartError{e}, kind == wire.KindStart)
	case **NotFoundError:
		return as(t, &NotFoundError{e}, e.Status == http.StatusNotFound)
	case **DeniedError:
		return as(t, &DeniedError{e}, e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
	case **BusyError:
		return as(t, &BusyError{e}, e.Status == http.StatusTooManyRequests)
	}
	return false
}

func as[T any](target *T, value T, is bool) bool {
	if is {
		*target = value
	}
	return is
}
