package enrollz

import (
	"context"
	"fmt"

	"waxseal/measure/csr"
	"waxseal/measure/wire"
)

// Chip is the device's TPM, as far as it tells an owner which keys are in
// it. Its errors wrap a sentinel of wire where the caller can do something
// about them.
type Chip interface {
	// CertifyByHMAC takes in the HMAC key of the challenge and lets it certify
	// the IAK. A key that the TPM cannot take in is wire.ErrInvalid. Nothing of
	// it is left in the TPM.
	CertifyByHMAC(context.Context, wire.HMACChallenge) (wire.HMACAnswer, error)
	// Keys returns IAK and IDevID and the IAK's word that the IDevID is in its
	// TPM.
	Keys(context.Context) (Proof, error)
	// Sign returns the IDevID's TPMT_SIGNATURE over content.
	Sign(ctx context.Context, content []byte) ([]byte, error)
}

// Proof is that IAK and IDevID are in one TPM.
type Proof struct {
	EK        []byte // DER of the EK's certificate, or the EK's TPMT_PUBLIC where it has none
	IAK       []byte // TPMT_PUBLIC
	IDevID    []byte // TPMT_PUBLIC
	Attest    []byte // TPMS_ATTEST: the IDevID certified
	Signature []byte // TPMT_SIGNATURE of the IAK over Attest
}

// Challenge implements wire.EnrollServer.
func (s *Server) Challenge(ctx context.Context, c wire.HMACChallenge) (wire.HMACAnswer, error) {
	if err := s.config.Card.Select(c.Select); err != nil {
		return wire.HMACAnswer{}, err
	}
	if c.Parent != wire.ParentEK {
		return wire.HMACAnswer{}, fmt.Errorf("%w: key: this device has KEY_EK only", wire.ErrInvalid)
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return wire.HMACAnswer{}, err
	}
	defer leave()
	return s.config.Chip.CertifyByHMAC(ctx, c)
}

// IDevIDCSR implements wire.EnrollServer.
func (s *Server) IDevIDCSR(ctx context.Context, r wire.CSRRequest) (wire.CSRAnswer, error) {
	ans := wire.CSRAnswer{Card: s.config.Card}
	if err := s.config.Card.Select(r.Select); err != nil {
		return ans, err
	}
	if r.Parent != wire.ParentEK || r.Template != wire.TemplateP384 {
		return ans, fmt.Errorf("%w: key %d, template %d: it has KEY_EK and ECC_NIST_P384 only", wire.ErrUnsupported, r.Parent, r.Template)
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return ans, err
	}
	defer leave()
	proof, err := s.config.Chip.Keys(ctx)
	if err != nil {
		return ans, err
	}
	ans.Content, err = csr.Content{
		Model: s.config.Card.Part, Serial: s.config.Card.Serial, EK: proof.EK, IAK: proof.IAK,
		IDevID: proof.IDevID, IDevIDAttest: proof.Attest, IDevIDProof: proof.Signature,
	}.Encode()
	if err != nil {
		return ans, err
	}
	ans.Signature, err = s.config.Chip.Sign(ctx, ans.Content)
	return ans, err
}

// enter waits until nobody else has the TPM prove keys: each proof takes
// several commands, and strangers may ask a device that has no owner.
func (s *Server) enter(ctx context.Context) (leave func(), err error) {
	if s.config.Chip == nil {
		return nil, fmt.Errorf("%w: no IAK and IDevID in this device", wire.ErrNotReady)
	}
	select {
	case s.proving <- struct{}{}:
		return func() { <-s.proving }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: others have the TPM prove keys: %w", wire.ErrBusy, ctx.Err())
	}
}
