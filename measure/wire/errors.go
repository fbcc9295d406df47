package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a call can fail with. A server returns an error that wraps one of
// these; a client gets an error that wraps the same one.
var (
	ErrInvalid  = errors.New("invalid request")         // InvalidArgument
	ErrNotReady = errors.New("device not ready")        // FailedPrecondition: not enrolled, no TPM, no owner
	ErrNotFound = errors.New("not found")               // NotFound
	ErrDenied   = errors.New("not allowed")             // Unauthenticated, PermissionDenied
	ErrBusy     = errors.New("busy")                    // ResourceExhausted
	ErrRetry    = errors.New("try again")               // Unavailable, Aborted
	ErrNoMethod = errors.New("not implemented")         // Unimplemented
	ErrAnswer   = errors.New("answer breaks the rules") // made by the client: what the device sent cannot be used
)

var codeOf = []struct {
	err  error
	code codes.Code
}{
	{ErrInvalid, codes.InvalidArgument},
	{ErrNotReady, codes.FailedPrecondition},
	{ErrNotFound, codes.NotFound},
	{ErrDenied, codes.PermissionDenied},
	{ErrBusy, codes.ResourceExhausted},
	{ErrRetry, codes.Unavailable},
	{ErrNoMethod, codes.Unimplemented},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// failure is an error of a server. Inside the process it is its cause, on the
// wire it is its status.
type failure struct {
	cause error
	shown *status.Status
}

func (f failure) Error() string              { return f.cause.Error() }
func (f failure) Unwrap() error              { return f.cause }
func (f failure) GRPCStatus() *status.Status { return f.shown }

// toStatus turns a server's error into a gRPC status. The text of an error
// that wraps none of the sentinels stays inside the device.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range codeOf {
		if errors.Is(err, c.err) {
			return failure{err, status.New(c.code, clean(err.Error(), MaxReason))}
		}
	}
	return failure{err, status.New(codes.Internal, "internal error")}
}

// Refuse returns the error with which an interceptor refuses a call. err wraps
// one of the sentinels.
func Refuse(err error) error { return toStatus(err) }

// fromStatus turns the error of a call into one that wraps a sentinel where
// one stands for its code. The peer's text is cut and made printable.
func fromStatus(method string, err error) error {
	if err == nil {
		return nil
	}
	code, text := status.Code(err), clean(status.Convert(err).Message(), MaxReason)
	if code == codes.Unauthenticated {
		code = codes.PermissionDenied
	}
	if code == codes.Aborted {
		code = codes.Unavailable
	}
	for _, c := range codeOf {
		if c.code == code {
			return fmt.Errorf("%s: %w: %s", method, c.err, strings.TrimPrefix(text, c.err.Error()+": "))
		}
	}
	return fmt.Errorf("%s: %s: %s", method, code, text)
}

// clean returns at most limit bytes of s with everything but printable ASCII
// replaced, so that a hostile peer cannot write to a terminal or a page.
func clean(s string, limit int) string {
	b := []byte(s[:min(len(s), limit)])
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}
