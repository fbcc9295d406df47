// Package delivery is the device's half of the doorstep check
// (waxseal.v1.Delivery): to whoever unpacks it, a device shows its keys, and
// proves that they are in its TPM and what it has booted.
//
// It answers before the device has an owner. So it gives nothing away that
// helps a stranger: what is inside of a credential never leaves it, only what
// was authenticated with it. It never proves without a quote, asks the TPM for
// one proof at a time, and never judges what it reports.
package delivery

import (
	"context"
	"fmt"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

// Key names a key of the device.
type Key string

// The keys that are proven.
const (
	IAK    Key = "IAK"
	IDevID Key = "IDevID"
	SRK    Key = "SRK"
)

// Chip is the part of a TPM that proves that keys are in it. A credential that
// is not for this TPM is an error that wraps wire.ErrInvalid.
type Chip interface {
	// Activate returns what is inside of a credential that was made for k and the EK.
	Activate(ctx context.Context, k Key, c wire.Credential) ([]byte, error)
	// Certify returns the IAK's word that k is in the TPM. nonce becomes the extraData.
	Certify(ctx context.Context, k Key, nonce []byte) (wire.Signed, error)
}

// Desk takes quotes; *quote.Desk is one.
type Desk interface {
	// Check finds what is wrong with a question without asking the TPM.
	Check(bank measure.Alg) error
	// Take returns a quote and the log that explains it.
	Take(ctx context.Context, q quote.Question) (quote.Answer, error)
}

// Config is what a Server works with.
type Config struct {
	Identity wire.Identity // shown as it is
	Chip     Chip          // nil: no TPM
	Desk     Desk
}

// Server implements wire.DeliveryServer.
type Server struct {
	config  Config
	waiting chan struct{} // a slot for each proof that waits or is made
	proving chan struct{} // the one that is made
}

var _ wire.DeliveryServer = (*Server)(nil)

// queue bounds the proofs that may wait: a device has one buyer.
const queue = 4

// New returns a server.
func New(c Config) *Server {
	return &Server{config: c, waiting: make(chan struct{}, queue), proving: make(chan struct{}, 1)}
}

// Identify implements wire.DeliveryServer.
func (s *Server) Identify(context.Context) (wire.Identity, error) { return s.config.Identity, nil }

// Prove implements wire.DeliveryServer. Credentials come first: a request that
// is for another device costs no quote.
func (s *Server) Prove(ctx context.Context, req wire.ProofRequest) (wire.Proof, error) {
	if err := s.refuse(req); err != nil {
		return wire.Proof{}, err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return wire.Proof{}, err
	}
	defer leave()
	iak, err := s.config.Chip.Activate(ctx, IAK, req.IAK)
	if err != nil {
		return wire.Proof{}, fmt.Errorf("credential of the IAK: %w", err)
	}
	idevid, err := s.config.Chip.Activate(ctx, IDevID, req.IDevID)
	if err != nil {
		return wire.Proof{}, fmt.Errorf("credential of the IDevID: %w", err)
	}
	proof, err := s.sign(ctx, req)
	if err != nil {
		return wire.Proof{}, err
	}
	proof.IAKProof = req.Authenticate(wire.ProofOfIAK, iak, proof)
	proof.IDevIDProof = req.Authenticate(wire.ProofOfIDevID, idevid, proof)
	return proof, nil
}

// sign returns what the IAK says of the other keys and of the boot.
func (s *Server) sign(ctx context.Context, req wire.ProofRequest) (wire.Proof, error) {
	var proof wire.Proof
	var err error
	if proof.IDevID, err = s.config.Chip.Certify(ctx, IDevID, req.Nonce); err != nil {
		return proof, fmt.Errorf("certify IDevID: %w", err)
	}
	if len(s.config.Identity.SRK) > 0 {
		if proof.SRK, err = s.config.Chip.Certify(ctx, SRK, req.Nonce); err != nil {
			return proof, fmt.Errorf("certify SRK: %w", err)
		}
	}
	// Last, so that its counters are the newest.
	a, err := s.config.Desk.Take(ctx, quote.Question{Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs})
	if err != nil {
		return proof, err
	}
	proof.PCRs, proof.Log = a.PCRs, a.Log
	proof.Quote = wire.Signed{Attest: a.Quoted, Signature: a.Signature}
	return proof, nil
}

// refuse finds what is wrong with a request without asking the TPM.
func (s *Server) refuse(req wire.ProofRequest) error {
	if err := req.Check(); err != nil {
		return err
	}
	if err := s.config.Desk.Check(req.Bank); err != nil {
		return err
	}
	if s.config.Chip == nil {
		return fmt.Errorf("%w: no TPM that proves keys", wire.ErrNotReady)
	}
	return nil
}

// enter waits until no other proof is made.
func (s *Server) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d proofs wait for the TPM", wire.ErrBusy, cap(s.waiting))
	}
	select {
	case s.proving <- struct{}{}:
		return func() { <-s.proving; <-s.waiting }, nil
	case <-ctx.Done():
		<-s.waiting
		return nil, ctx.Err()
	}
}
