package eat

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"maps"

	"waxseal/measure/evidence"
)

// Parse reads a token. It accepts what Encode writes and no other spelling of
// it: the token is written again from what was read, and must come out the
// same. So what is made from other parts, such as the UEID from the key, is
// right, and no bit is without meaning.
func Parse(form Form, b []byte) (Signed, error) {
	if len(b) > MaxToken {
		return Signed{}, fmt.Errorf("%w: %d bytes: at most %d", ErrForm, len(b), MaxToken)
	}
	var s Signed
	var err error
	switch form {
	case JWT:
		s, err = parseJWT(b)
	case CWT:
		s, err = parseCWT(b)
	default:
		err = fmt.Errorf("%w: %v is neither JWT nor CWT", ErrForm, form)
	}
	if err != nil {
		return Signed{}, err
	}
	if len(s.signature) != SignatureSize {
		return Signed{}, fmt.Errorf("%w: signature of %d bytes: need %d", ErrAlgorithm, len(s.signature), SignatureSize)
	}
	again, err := Encode(form, s.Token, func([]byte) ([]byte, error) { return s.signature, nil })
	if err != nil {
		return Signed{}, err
	}
	if !bytes.Equal(again, b) {
		return Signed{}, fmt.Errorf("%w: it is not in its one spelling, or a claim does not agree with the others", ErrForm)
	}
	return s, nil
}

// Open reads a token that answers nonce and returns the evidence in it, to be
// given to evidence.Verify like any other. The token is signed by the key
// whose certificate it brings, and that certificate becomes the evidence's: so
// evidence.Verify decides whether the owner knows the key, and whether the
// same key has signed the quote. Open decides neither.
func Open(form Form, b, nonce []byte) (evidence.Evidence, error) {
	s, err := Parse(form, b)
	if err != nil {
		return evidence.Evidence{}, err
	}
	if !bytes.Equal(s.Nonce, nonce) {
		return evidence.Evidence{}, ErrNonce
	}
	key, err := s.key()
	if err != nil {
		return evidence.Evidence{}, err
	}
	if err := s.Verify(key); err != nil {
		return evidence.Evidence{}, err
	}
	return s.evidence(), nil
}

func (t Token) evidence() evidence.Evidence {
	ev := evidence.Evidence{
		Nonce: t.Nonce, Bank: t.Bank, PCRs: maps.Clone(t.PCRs), Quoted: t.Quoted, Signature: t.Signature, Log: t.Log, Card: t.Card,
	}
	for _, der := range t.Chain {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		ev.Certificates.OIAK = append(ev.Certificates.OIAK, string(text))
	}
	return ev
}
