// Package agent is the resident part of a router: it answers challenges,
// enrollment and questions about its log over gRPC, and over RESTCONF.
//
// It serves TLS 1.3 only. The server's key is the IDevID in the TPM, under the
// owner's certificate once one is installed and the maker's before. Clients
// show a certificate of the owner's trust anchors for every call; a device
// without anchors answers only the calls that show who it is, to everyone.
//
// The package opens no device and no kernel file: what it needs of a TPM is
// given to it behind small interfaces. It never extends a PCR, never judges a
// measurement, and never answers a challenge without a quote.
package agent

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"waxseal/agent/attestz"
	"waxseal/agent/challenge"
	"waxseal/agent/delivery"
	"waxseal/agent/enrollz"
	"waxseal/agent/findings"
	"waxseal/agent/quote"
	"waxseal/measure/merkle"
	"waxseal/measure/wire"
)

// Agent is an agent that is ready to serve.
type Agent struct {
	config  Config
	desk    *quote.Desk // one for all who ask for quotes
	enrollz *enrollz.Server
	owned   bool
	gate    *gate
	server  *grpc.Server
	web     *http.Server
}

// Run serves until ctx is done.
func Run(ctx context.Context, c Config) error {
	a, err := New(c)
	if err != nil {
		return err
	}
	listen := c.Listen
	if listen == "" {
		listen = ":" + strconv.Itoa(wire.Port)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer a.beside(ctx)()
	return a.Serve(ctx, l)
}

// ErrOwnerCA means that the owner's trust anchors cannot be read.
var ErrOwnerCA = errors.New("owner's trust anchors")

// New checks the configuration and takes up the stored enrollment.
func New(c Config) (*Agent, error) {
	c.Limits = c.Limits.withDefaults()
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.Card.Check(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	trusted, err := parseAnchors(c.OwnerCA)
	if err != nil {
		return nil, fmt.Errorf("agent: %w: %w", ErrOwnerCA, err)
	}
	anchors := pool(trusted)
	keys, err := c.keys()
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a := &Agent{config: c, owned: anchors != nil}
	a.enrollz, err = enrollz.New(enrollz.Config{
		Card: c.Card, IAK: c.IAKCert, IDevID: c.IDevIDCert,
		Keys: keys, Chip: c.Enroller, Anchors: anchors, Store: enrollz.NewStore(c.State), Now: c.Now,
	})
	if errors.Is(err, enrollz.ErrStored) {
		c.Log.Warn("device counts as not enrolled", "cause", err)
	}
	stored, err := a.enrollz.Current().OIDevID.Certificates()
	if err != nil {
		return nil, fmt.Errorf("agent: stored oIDevID certificate: %w", err)
	}
	c.Now = floored(c.Now, append(trusted, stored...)...)
	a.config.Now = c.Now
	a.desk = quote.New(quote.Config{
		Quoter: c.Quoter, Recorder: c.Recorder, Firmware: c.Firmware,
		Unattested: c.Unattested, Queue: c.Limits.Queue, Before: c.BeforeQuote,
	})
	creds, err := newIdentity(c, anchors, a.enrollz.Current, a.desk.Busy)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	guard := newGuard(a.owned, c.Limits, c.Log)
	a.gate, a.server, a.web = newGate(c.Limits), a.newServer(creds, guard), a.newWeb(creds, guard)
	return a, nil
}

// keys returns the public keys that certificates of an owner must be of.
func (c Config) keys() (enrollz.Keys, error) {
	var keys enrollz.Keys
	if c.IAK != nil {
		iak, ok := c.IAK.(*ecdsa.PublicKey)
		if !ok {
			return keys, fmt.Errorf("IAK is a %T: need an ECDSA key", c.IAK)
		}
		keys.IAK = iak
	}
	if c.IDevID != nil {
		idevid, ok := c.IDevID.Public().(*ecdsa.PublicKey)
		if !ok {
			return keys, fmt.Errorf("IDevID is a %T: need an ECDSA key", c.IDevID.Public())
		}
		keys.IDevID = idevid
	}
	return keys, nil
}

func (a *Agent) newServer(id *identity, guard *guard) *grpc.Server {
	l := a.config.Limits
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(id.tlsConfig("h2"))),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.MaxRecvMsgSize(wire.MaxRequest),
		grpc.MaxConcurrentStreams(l.Streams),
		grpc.MaxHeaderListSize(16<<10),
		grpc.ReadBufferSize(8<<10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 30 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     l.Idle,
			MaxConnectionAge:      l.Age,
			MaxConnectionAgeGrace: l.Call,
			Time:                  l.Silence, // also ends a frame that never ends: nobody answers in the middle of one
			Timeout:               min(l.Silence, 20*time.Second),
		}),
		grpc.InTapHandle(guard.admit),
		grpc.UnaryInterceptor(guard.unary),
		grpc.StreamInterceptor(guard.stream),
	)
	wire.RegisterAttestz(s, attestz.Server{
		Card: a.config.Card, Desk: a.desk, OIAK: a.oiak, Signer: a.config.Tokens, Now: a.config.Now,
	})
	wire.RegisterEnrollz(s, a.enrollz)
	wire.RegisterChallenge(s, challenge.NewBatches(challenge.BatchConfig{
		Card: a.config.Card, Desk: a.desk, OIAK: a.oiak,
		Waiting: min(l.Batched, merkle.MaxSize), Every: l.QuoteEvery, Limit: l.Call,
	}))
	wire.RegisterDelivery(s, delivery.New(delivery.Config{Identity: a.identity(), Chip: a.config.Prover, Desk: a.desk}))
	wire.RegisterFindings(s, findings.Server{Book: a.config.Findings})
	wire.RegisterContents(s, challenge.Server{Source: a.config.Kept, State: a.Status})
	return s
}

// oiak returns the owner's certificate of the IAK; it is empty where nobody has
// enrolled the device.
func (a *Agent) oiak() wire.Chain { return a.enrollz.Current().OIAK }

// identity is what the device shows at the doorstep.
func (a *Agent) identity() wire.Identity {
	c := a.config
	return wire.Identity{
		Card: c.Card, EK: c.Areas.EK, IAK: c.Areas.IAK, IDevID: c.Areas.IDevID, SRK: c.Areas.SRK,
		EKCerts: c.EKCerts, IAKCert: c.IAKCert, IDevIDCert: c.IDevIDCert,
	}
}

// Status tells whether the device can attest now.
func (a *Agent) Status() wire.Status {
	reason := a.desk.Probe()
	return wire.Status{
		Attested: reason == "",
		Enrolled: a.enrollz.Current().Enrolled(),
		Owned:    a.owned,
		Reason:   reason,
	}
}

// Serve serves on l until ctx is done, and closes l. Calls that are being
// answered get Limits.Stop to end.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	a.config.Log.Info("agent serves", "address", l.Addr().String(), "serial", a.config.Card.Serial,
		"owned", a.owned, "enrolled", a.enrollz.Current().Enrolled(), "unattested", a.desk.Reason())
	failed := make(chan error, 1)
	go func() { failed <- a.server.Serve(a.gate.before(l)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("agent: %w", err)
	case <-ctx.Done():
	}
	cut := time.AfterFunc(a.config.Limits.Stop, a.server.Stop)
	defer cut.Stop()
	a.server.GracefulStop()
	return nil
}
