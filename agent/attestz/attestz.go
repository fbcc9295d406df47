// Package attestz answers challenges (openconfig.attestz.TpmAttestzService):
// it refuses what must not reach the TPM, and adds to a quote who the device
// is and which certificate its key has. Who asks for it gets all of that as an
// Entity Attestation Token.
//
// It never answers without a quote, and never judges what it reports.
package attestz

import (
	"context"
	"fmt"
	"time"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

// Desk takes quotes; *quote.Desk is one.
type Desk interface {
	// Check finds what is wrong with a question without asking the TPM.
	Check(bank measure.Alg) error
	// Take returns a quote and the log that explains it.
	Take(ctx context.Context, q quote.Question) (quote.Answer, error)
}

// Server implements wire.AttestServer.
type Server struct {
	Card wire.Card
	Desk Desk
	OIAK func() wire.Chain // the owner's certificate of the IAK; empty chain: not enrolled

	Signer Signer           // signs tokens; nil: answers are raw
	Now    func() time.Time // when a token is issued; needed with Signer
}

var _ wire.AttestServer = Server{}

// Attest implements wire.AttestServer.
func (s Server) Attest(ctx context.Context, req wire.AttestRequest) (wire.AttestAnswer, error) {
	oiak, err := s.refuse(req)
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	a, err := s.Desk.Take(ctx, quote.Question{Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs})
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	if req.Format != wire.Raw {
		return s.token(ctx, req, a, oiak)
	}
	return wire.AttestAnswer{
		Card: s.Card, PCRs: a.PCRs, Quoted: a.Quoted, Signature: a.Signature, OIAK: oiak, Log: a.Log,
	}, nil
}

// refuse finds what is wrong with a request without asking the TPM.
func (s Server) refuse(req wire.AttestRequest) (wire.Chain, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	if err := s.Card.Select(req.Select); err != nil {
		return nil, err
	}
	if req.Format != wire.Raw && s.Signer == nil {
		return nil, fmt.Errorf("%w: this device signs no tokens: ask for TPM_RAW", wire.ErrNoMethod)
	}
	if err := s.Desk.Check(req.Bank); err != nil {
		return nil, err
	}
	oiak := s.OIAK()
	if len(oiak) == 0 {
		return nil, fmt.Errorf("%w: not enrolled: no oIAK certificate installed", wire.ErrNotReady)
	}
	return oiak, nil
}
