package restconf

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"waxseal/measure/wire"
)

// Values of error-type (RFC 8040, section 7.1).
const (
	protocol    = "protocol"
	application = "application"
)

// problem is an error as a client sees it. Which status belongs to which tag
// says the table of RFC 8040, section 7.
type problem struct {
	status  int
	kind    string // error-type
	tag     string // error-tag
	message string
}

// Error implements error.
func (p problem) Error() string { return p.message }

func invalid(format string, a ...any) problem {
	return problem{http.StatusBadRequest, application, "invalid-value", fmt.Sprintf(format, a...)}
}

func missing(node string) problem {
	return problem{http.StatusBadRequest, application, "missing-element", node + " is missing"}
}

func unknown(message string) problem {
	return problem{http.StatusBadRequest, application, "unknown-element", message}
}

func unsupported(message string) problem {
	return problem{http.StatusNotImplemented, application, "operation-not-supported", message}
}

func malformed(message string) problem {
	return problem{http.StatusBadRequest, protocol, "malformed-message", message}
}

// problems says what the errors of the rest of the agent are to a client.
var problems = []struct {
	is error
	as problem
}{
	{wire.ErrInvalid, problem{http.StatusBadRequest, application, "invalid-value", ""}},
	{wire.ErrNotReady, problem{http.StatusPreconditionFailed, application, "operation-failed", ""}},
	{wire.ErrDenied, problem{http.StatusForbidden, protocol, "access-denied", ""}},
	{wire.ErrBusy, problem{http.StatusConflict, application, "resource-denied", ""}},
	{wire.ErrRetry, problem{http.StatusConflict, application, "resource-denied", ""}},
	{context.DeadlineExceeded, problem{http.StatusInternalServerError, application, "operation-failed", ""}},
	{context.Canceled, problem{http.StatusInternalServerError, application, "operation-failed", ""}},
}

// hidden is what a client is told of a fault of the device.
const hidden = "internal error"

// maxMessage is the longest error-message, in bytes.
const maxMessage = 512

// problemOf says err to a client. What went wrong inside the device stays there.
func problemOf(err error) problem {
	var p problem
	if errors.As(err, &p) {
		return p
	}
	for _, known := range problems {
		if errors.Is(err, known.is) {
			p = known.as
			p.message = err.Error()
			return p
		}
	}
	return problem{http.StatusInternalServerError, application, "operation-failed", hidden}
}

type errorsDocument struct {
	Errors struct {
		Error []errorEntry `json:"error"`
	} `json:"ietf-restconf:errors"`
}

type errorEntry struct {
	Type    string `json:"error-type"`
	Tag     string `json:"error-tag"`
	Message string `json:"error-message"`
}

// Refuse answers a request with err (RFC 8040, section 7.1). It is also for
// those who refuse a request before the handler sees it.
func Refuse(w http.ResponseWriter, err error) {
	p := problemOf(err)
	var doc errorsDocument
	doc.Errors.Error = []errorEntry{{p.kind, p.tag, printable(p.message)}}
	b, merr := json.Marshal(doc)
	if merr != nil {
		panic(merr) // three printable texts
	}
	if p.tag == "resource-denied" {
		w.Header().Set("Retry-After", "1") // seconds
	}
	w.Header().Set("Content-Type", yangData)
	w.WriteHeader(p.status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone needs no answer
}

// printable cuts s, and replaces everything in it but printable ASCII.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxMessage)])
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	return string(b)
}
