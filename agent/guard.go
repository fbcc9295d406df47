package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"waxseal/measure/wire"
)

var errNoOwner = fmt.Errorf("%w: this device has no owner: owner-ca.pem is not on its configuration partition", wire.ErrDenied)

// withoutOwner are the calls that a device without trust anchors answers, to
// everyone: they show and prove who it is, and that it can or cannot attest.
var withoutOwner = []string{
	wire.MethodGetIAKCert,
	wire.MethodCardID,
	wire.MethodChallenge,
	wire.MethodGetIDevIDCSR,
	wire.MethodContentStatus,
	wire.MethodIdentify,
	wire.MethodProve,
}

// guard stands before every call.
type guard struct {
	owned  bool
	limits Limits
	rates  map[string]rate // by method, of those that ask the TPM
	log    *slog.Logger
}

// rate bounds how often one address may call.
type rate struct {
	*meter
	what string
}

func newGuard(owned bool, l Limits, log *slog.Logger) *guard {
	proofs := rate{newMeter(l.ProofRate), "proofs of keys"}
	return &guard{owned, l, map[string]rate{
		wire.MethodAttest:        {newMeter(l.AttestRate), "challenges"},
		wire.MethodBatchedAttest: {newMeter(l.BatchRate), "batched challenges"},
		wire.MethodProve:         proofs,
		wire.MethodChallenge:     proofs,
		wire.MethodGetIDevIDCSR:  proofs,
	}, log}
}

// admit gives each call its deadline before the request is read, so that one
// that never ends does not hold its stream for ever, and refuses what the
// caller may not ask.
func (g *guard) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	if err := g.allow(ctx, info.FullMethodName); err != nil {
		return ctx, wire.Refuse(err)
	}
	limit := g.limits.Call
	if info.FullMethodName == wire.MethodFollow {
		limit = g.limits.Follow
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	context.AfterFunc(ctx, cancel)
	return limited, nil
}

func (g *guard) allow(ctx context.Context, method string) error {
	if !g.owned && !slices.Contains(withoutOwner, method) {
		return errNoOwner
	}
	limit, limited := g.rates[method]
	if !limited {
		return nil
	}
	if from, ok := peer.FromContext(ctx); ok {
		return limit.check(from.Addr)
	}
	return nil
}

// check tells whether a peer may call now.
func (r rate) check(from net.Addr) error {
	if !r.allow(peerOf(from), time.Now()) {
		return fmt.Errorf("%w: more than %g %s a second from one address", wire.ErrBusy, r.rate, r.what)
	}
	return nil
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, call grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := g.survive(ctx, req, call)
	g.report(ctx, info.FullMethod, start, err)
	return resp, err
}

// survive turns a panic in one call into an error of that call: a mistake that
// one message can trigger must not end attestation.
func (g *guard) survive(ctx context.Context, req any, call grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, wire.Refuse(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return call(ctx, req)
}

func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, call grpc.StreamHandler) error {
	start := time.Now()
	_, err := g.survive(ss.Context(), nil, func(context.Context, any) (any, error) { return nil, call(srv, ss) })
	g.report(ss.Context(), info.FullMethod, start, err)
	return err
}

// report logs a call: what broke inside the device as an error, the rest for
// whoever looks closer.
func (g *guard) report(ctx context.Context, method string, start time.Time, err error) {
	level := slog.LevelDebug
	if status.Code(err) == codes.Internal {
		level = slog.LevelError
	}
	if method == wire.MethodRotateOIAK {
		level = max(level, slog.LevelInfo)
	}
	attrs := []slog.Attr{slog.String("method", method), slog.Duration("took", time.Since(start))}
	if from, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", from.Addr.String()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("cause", err.Error()))
	}
	g.log.LogAttrs(ctx, level, "call", attrs...)
}
