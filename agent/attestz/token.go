package attestz

import (
	"context"
	"errors"
	"fmt"

	"waxseal/agent/quote"
	"waxseal/measure/eat"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// Signer signs with the IAK what the TPM has hashed itself.
type Signer interface {
	// SignData returns r and s of 48 bytes each, ECDSA on P-384 with SHA-384.
	// It never signs what begins like a structure of the TPM.
	SignData(ctx context.Context, data []byte) ([]byte, error)
}

var forms = map[wire.Format]eat.Form{wire.JWT: eat.JWT, wire.CWT: eat.CWT}

// token puts a quote and what explains it into a token, which the key that has
// signed the quote signs.
func (s Server) token(ctx context.Context, req wire.AttestRequest, a quote.Answer, oiak wire.Chain) (wire.AttestAnswer, error) {
	certs, err := oiak.Certificates()
	if err != nil {
		return wire.AttestAnswer{}, fmt.Errorf("oIAK certificate: %w", err)
	}
	c := s.Card
	t := eat.Token{
		Nonce: req.Nonce, Issued: s.Now().Unix(), Bank: req.Bank, PCRs: a.PCRs, Quoted: a.Quoted, Signature: a.Signature, Log: a.Log,
		Card: evidence.Card{
			Role: c.Role.String(), Serial: c.Serial, Slot: c.Slot,
			Manufacturer: c.Maker, PartNumber: c.Part, ChassisSerial: c.ChassisSerial,
		},
	}
	for _, cert := range certs {
		t.Chain = append(t.Chain, cert.Raw)
	}
	b, err := eat.Encode(forms[req.Format], t, func(data []byte) ([]byte, error) { return s.Signer.SignData(ctx, data) })
	if errors.Is(err, eat.ErrLong) {
		return wire.AttestAnswer{}, fmt.Errorf("%w: %w", wire.ErrNotReady, err)
	}
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	return wire.AttestAnswer{Format: req.Format, Token: b}, nil
}
