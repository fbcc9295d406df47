// Package restconf answers challenges and questions about the log to those who
// speak RESTCONF (RFC 8040) with JSON (RFC 7951): the remote procedures and
// the data of RFC 9684, "CHARRA".
//
// It is an http.Handler and nothing else: who may connect, and how often, is
// decided before it is called. A request is refused before the TPM could be
// asked if anything in it is not exactly what the YANG modules allow: a member
// that is unknown or stands twice, a nonce of another length than 16 to 64
// bytes, base64 in a second spelling. A nonce is never padded or trimmed. The
// package never answers a challenge without a quote, holds no lock while it
// writes to a client, and changes nothing in the device.
package restconf

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// Desk takes the quotes and knows the log; *quote.Desk is one.
type Desk interface {
	// Check finds what is wrong with a question about bank without asking the TPM.
	Check(bank measure.Alg) error
	// Take returns a quote that answers q.
	Take(ctx context.Context, q quote.Question) (quote.Answer, error)
	// Log returns the log as it is now: the firmware's events, then the agent's.
	Log() (eventlog.Log, error)
	// Banks returns the active PCR banks, none without a TPM.
	Banks() []measure.Alg
	// Probe tells why the device cannot attest; it is empty if it can.
	Probe() string
}

// Config is what a Handler works with.
type Config struct {
	Desk   Desk
	IAK    wire.Chain                // the maker's certificate of the IAK; empty: not provisioned
	OIAK   func() wire.Chain         // the owner's certificate of the IAK; empty: not enrolled
	Admit  func(*http.Request) error // tells whether the client may challenge now
	Uptime func() time.Duration      // since the device was started; nil: it is not told
	Now    func() time.Time          // the device's clock
	Stall  time.Duration             // until a client that takes no byte of an answer is given up
	Log    *slog.Logger              // hears what broke inside the device
}

// Handler serves RESTCONF.
type Handler struct {
	config  Config
	seen    *timeline
	readers chan struct{} // a slot for each log that is being sent
}

// maxReaders bounds the logs that are sent at once. A slow client keeps the log
// of its answer in memory.
const maxReaders = 8

// New returns a handler.
func New(c Config) *Handler {
	h := &Handler{config: c, seen: &timeline{}, readers: make(chan struct{}, maxReaders)}
	if log, err := c.Desk.Log(); err == nil {
		h.seen.note(c.Now(), len(log.Ours()))
	}
	return h
}

// Root is where the API resource stands ({+restconf} of RFC 8040, section 3.1).
const Root = "/restconf"

// Paths of what is served.
const (
	hostMeta     = "/.well-known/host-meta"
	hostMetaJSON = "/.well-known/host-meta.json"
	operations   = Root + "/operations"
	data         = Root + "/data"

	opChallenge   = operations + "/" + charra + ":tpm20-challenge-response-attestation"
	opChallenge12 = operations + "/" + charra + ":tpm12-challenge-response-attestation"
	opLog         = operations + "/" + charra + ":log-retrieval"
)

// Names of YANG modules.
const (
	charra     = "ietf-tpm-remote-attestation"
	tcgAlgs    = "ietf-tcg-algs"
	library    = "ietf-yang-library"
	monitoring = "ietf-restconf-monitoring"
)

// Paths returns every path that stands for something, but those inside of the
// nodes of the data.
func Paths() []string {
	paths := []string{
		opChallenge, opChallenge12, opLog,
		data, data + "/" + charraNode, data + "/" + libraryNode, data + "/" + modulesNode, data + "/" + monitoringNode,
	}
	return slices.AppendSeq(paths, maps.Keys(documents))
}

// ServeHTTP implements http.Handler. Paths are compared as they came, without
// decoding: there is one spelling of each.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	if err := h.route(w, r); err != nil {
		h.refuse(w, r, err)
	}
}

// route answers, or returns why not.
func (h *Handler) route(w http.ResponseWriter, r *http.Request) error {
	switch path := r.URL.EscapedPath(); path {
	case opChallenge:
		return h.operation(w, r, h.challenge)
	case opLog:
		return h.operation(w, r, h.log)
	case opChallenge12:
		return h.operation(w, r, noTPM12)
	default:
		return h.resource(w, r, path)
	}
}

// operation is a call of a remote procedure (RFC 8040, section 4.4.2).
func (h *Handler) operation(w http.ResponseWriter, r *http.Request, call func(http.ResponseWriter, *http.Request) error) error {
	if ok, err := method(w, r, http.MethodPost); !ok {
		return err
	}
	if r.URL.RawQuery != "" {
		return invalid("an operation takes no query parameters")
	}
	if err := accepts(r, yangData); err != nil {
		return err
	}
	return call(w, r)
}

// method tells whether the request has an allowed method and is to be
// answered. OPTIONS is answered here.
func method(w http.ResponseWriter, r *http.Request, allowed ...string) (bool, error) {
	for _, m := range allowed {
		if r.Method == m {
			return true, nil
		}
	}
	w.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return false, nil
	}
	return false, problem{http.StatusMethodNotAllowed, protocol, "operation-not-supported", "method is not one of " + w.Header().Get("Allow")}
}

func noTPM12(http.ResponseWriter, *http.Request) error {
	return unsupported("this device has no TPM 1.2: feature tpm12 of ietf-tcg-algs is off")
}
