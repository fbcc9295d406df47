// Package challengetest is a router in software behind the real protocols, on
// loopback: it answers challenges and lets itself be enrolled, honestly unless
// a test changes what it says.
//
// It is for tests and simulations, and proves nothing about a machine. Its
// clock stands at evidencetest.Noon.
package challengetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/merkle"
	"waxseal/measure/wire"
)

// Device is a router's agent in software.
type Device struct {
	*evidencetest.Router                        // its Owner has issued the certificates that are shown
	Vendor               evidencetest.Authority // the maker, who has certified IAK and IDevID
	IAK, IDevID          wire.Chain
	EK                   *rsa.PrivateKey // of template L-1; nil: it can unwrap nothing
	Card                 wire.Card
	Says                 wire.Status

	// What a dishonest router does; nil: nothing.
	Attesting  func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error
	Batching   func(context.Context, wire.BatchRequest, *wire.BatchAnswer) error
	Showing    func(*wire.IAKAnswer)
	Certifying func(secret []byte, ans *wire.HMACAnswer) // knows the HMAC key, as the router's TPM does
	Requesting func(*wire.CSRAnswer) error
	Giving     func(context.Context, []byte) ([]byte, error) // what lies under a digest
	Deaf       bool                                          // accepts new certificates and shows the old

	mu        sync.Mutex // guards what follows
	tls       tls.Certificate
	requests  []wire.AttestRequest
	rotations []wire.Rotation
}

// New returns a router that was enrolled by its Owner for 127.0.0.1.
func New(serial string) (*Device, error) {
	r, err := evidencetest.New(serial, elliptic.P384())
	if err != nil {
		return nil, err
	}
	d := &Device{
		Router: r, Says: wire.Status{Attested: true, Enrolled: true, Owned: true},
		Card: wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "lab", Part: "soft", ChassisSerial: serial},
	}
	if d.Vendor, err = evidencetest.NewAuthority("vendor", nil); err != nil {
		return nil, err
	}
	if d.IAK, err = certify(d.Vendor, evidencetest.Leaf(serial), r.AK.Public()); err != nil {
		return nil, err
	}
	if d.IDevID, err = certify(d.Vendor, evidencetest.Leaf(serial), r.Identity.Public()); err != nil {
		return nil, err
	}
	return d, d.ShowTLS(r.Owner, ServerLeaf(serial), r.Identity)
}

// ServerLeaf returns the template of a router's TLS certificate of an owner.
func ServerLeaf(serial string) *x509.Certificate {
	t := evidencetest.Leaf(serial)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	return t
}

func certify(by evidencetest.Authority, template *x509.Certificate, key any) (wire.Chain, error) {
	cert, err := by.Certify(template, key)
	if err != nil {
		return nil, err
	}
	return wire.ChainOf(cert), nil
}

// ShowTLS makes the router show another TLS certificate.
func (d *Device) ShowTLS(by evidencetest.Authority, template *x509.Certificate, key *ecdsa.PrivateKey, more ...*x509.Certificate) error {
	cert, err := by.Certify(template, key.Public())
	if err != nil {
		return err
	}
	d.ShowCertificate(cert, key, more...)
	return nil
}

// ShowCertificate is ShowTLS for a certificate that there is already.
func (d *Device) ShowCertificate(cert *x509.Certificate, key *ecdsa.PrivateKey, more ...*x509.Certificate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tls = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	for _, c := range more {
		d.tls.Certificate = append(d.tls.Certificate, c.Raw)
	}
}

// ShowMaker makes the router show its maker's IDevID certificate, as one does
// that was never enrolled.
func (d *Device) ShowMaker() error {
	certs, err := d.IDevID.Certificates()
	if err != nil {
		return err
	}
	d.ShowCertificate(certs[0], d.Identity, certs[1:]...)
	return nil
}

// Boot measures a boot from its start to its hand-over; content under names of
// class config may be shown to the owner.
func (d *Device) Boot(items ...[2]string) error {
	if err := d.Start(); err != nil {
		return err
	}
	for _, item := range items {
		if err := d.Measure(item[0], []byte(item[1])); err != nil {
			return err
		}
		d.Keep([]byte(item[1]))
	}
	return d.Cap(measure.Handoff + "switch_root")
}

// Requests returns the challenges that came.
func (d *Device) Requests() []wire.AttestRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]wire.AttestRequest(nil), d.requests...)
}

// Rotations returns the certificates that were installed.
func (d *Device) Rotations() []wire.Rotation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]wire.Rotation(nil), d.rotations...)
}

// Serve serves until stop is called.
func (d *Device) Serve() (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			shown := d.tls
			return &shown, nil
		},
	})))
	wire.RegisterAttestz(s, attestz{d})
	wire.RegisterEnrollz(s, enrollz{d})
	wire.RegisterContents(s, contents{d})
	wire.RegisterChallenge(s, batches{d})
	go func() { _ = s.Serve(l) }() // ends with stop
	return l.Addr().String(), s.Stop, nil
}

type attestz struct{ d *Device }

// Attest implements wire.AttestServer.
func (a attestz) Attest(ctx context.Context, req wire.AttestRequest) (wire.AttestAnswer, error) {
	d := a.d
	d.mu.Lock()
	d.requests = append(d.requests, req)
	ans, err := d.answer(req)
	if err == nil && req.Format != wire.Raw {
		ans, err = d.token(req, ans)
	}
	d.mu.Unlock()
	if err == nil && d.Attesting != nil {
		err = d.Attesting(ctx, req, &ans)
	}
	return ans, err
}

func (d *Device) answer(req wire.AttestRequest) (wire.AttestAnswer, error) {
	ans := wire.AttestAnswer{Card: d.Card, PCRs: map[measure.PCR][]byte{}, OIAK: d.Certificates.OIAK}
	for _, pcr := range req.PCRs {
		ans.PCRs[pcr] = d.PCR(req.Bank, pcr)
	}
	ans.Quoted = d.Router.Attest(evidence.Challenge{Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs}).Encode()
	var err error
	if ans.Signature, err = evidencetest.Sign(d.AK, ans.Quoted); err != nil {
		return ans, err
	}
	ans.Log, err = eventlog.EncodeCEL(d.Log)
	return ans, err
}

type batches struct{ d *Device }

// AttestBatched implements wire.BatchServer. The challenger is the third of
// five; nobody knows the others.
func (b batches) AttestBatched(ctx context.Context, req wire.BatchRequest) (wire.BatchAnswer, error) {
	d := b.d
	tree, err := merkle.New([][]byte{make([]byte, 16), make([]byte, 32), req.Nonce, make([]byte, 32), make([]byte, 64)})
	if err != nil {
		return wire.BatchAnswer{}, err
	}
	d.mu.Lock()
	single, err := d.answer(wire.AttestRequest{Nonce: tree.Commitment(), Bank: req.Bank, PCRs: req.PCRs})
	d.mu.Unlock()
	ans := wire.BatchAnswer{AttestAnswer: single, Proof: tree.Proof(2)}
	if sum := sha256.Sum256(ans.Log); bytes.Equal(sum[:], req.KnownLog) {
		ans.Log, ans.LogKnown = nil, true
	}
	if err == nil && d.Batching != nil {
		err = d.Batching(ctx, req, &ans)
	}
	return ans, err
}

type enrollz struct{ d *Device }

// CardID implements wire.EnrollServer.
func (e enrollz) CardID(context.Context, wire.Selection) (wire.Card, error) { return e.d.Card, nil }

// IAKCert implements wire.EnrollServer.
func (e enrollz) IAKCert(context.Context, wire.Selection) (wire.IAKAnswer, error) {
	ans := wire.IAKAnswer{Card: e.d.Card, IAK: e.d.IAK, IDevID: e.d.IDevID, Atomic: true}
	if e.d.Showing != nil {
		e.d.Showing(&ans)
	}
	return ans, nil
}

// RotateOIAK implements wire.EnrollServer.
func (e enrollz) RotateOIAK(_ context.Context, rot wire.Rotation) error {
	d := e.d
	certs, err := rot.Updates[0].OIDevID.Certificates()
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.rotations = append(d.rotations, rot)
	d.Certificates.OIAK = rot.Updates[0].OIAK
	d.mu.Unlock()
	if !d.Deaf {
		d.ShowCertificate(certs[0], d.Identity)
	}
	return nil
}

type contents struct{ d *Device }

// Content implements wire.ContentServer.
func (c contents) Content(ctx context.Context, sum [sha256.Size]byte) ([]byte, error) {
	if c.d.Giving != nil {
		return c.d.Giving(ctx, sum[:])
	}
	b, ok := c.d.Contents[fmt.Sprintf("%x", sum)]
	if !ok {
		return nil, fmt.Errorf("%x: %w", sum, wire.ErrNotFound)
	}
	return b, nil
}

// Status implements wire.ContentServer.
func (c contents) Status(context.Context) (wire.Status, error) { return c.d.Says, nil }

// Client returns a client certificate of an owner.
func Client(owner evidencetest.Authority) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := evidencetest.Leaf("verifier")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := owner.Certify(t, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}
