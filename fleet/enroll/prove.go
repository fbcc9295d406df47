package enroll

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509/pkix"
	"errors"
	"fmt"

	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/evidence"
	"waxseal/measure/structure"
	"waxseal/measure/wire"
)

// ErrProof means that a router has not proven that its keys are in the TPM of
// its EK.
var ErrProof = errors.New("router does not prove where its keys are")

// prove finds out who a router is that has no certificates of its maker: the
// TPM of the known EK says that the IAK is in it, the IAK says that the IDevID
// is, the IDevID signs the request for its certificate and is the router's key
// in TLS. No link of this chain is a word of the router itself (attestz,
// enrollment by HMAC challenge).
func (c Config) prove(ctx context.Context, router wire.EnrollClient) (identity, wire.Card, error) {
	card, err := router.CardID(ctx, c.Select)
	if err != nil {
		return identity{}, card, err
	}
	if c.Serial != "" && card.Serial != c.Serial {
		return identity{}, card, fmt.Errorf("%w: the router calls itself %q, expected is %s", ErrSerial, card.Serial, c.Serial)
	}
	if card.Serial == "" {
		return identity{}, card, fmt.Errorf("%w: the router names none", ErrSerial)
	}
	ek, err := c.EKs.EK(ctx, card.Serial)
	if err != nil {
		return identity{}, card, err
	}
	c.Step("asking the TPM of " + evidence.Escape(card.Serial) + " for its keys")
	iak, area, err := c.challengeEK(ctx, router, ek)
	if err != nil {
		return identity{}, card, err
	}
	ans, err := router.IDevIDCSR(ctx, wire.CSRRequest{Select: c.Select, Parent: wire.ParentEK, Template: wire.TemplateP384})
	if err != nil {
		return identity{}, card, err
	}
	idevid, err := proven{card.Serial, ek, iak, area}.check(ans)
	if err != nil {
		return identity{}, card, err
	}
	return identity{
		serial: card.Serial, subject: pkix.Name{CommonName: card.Serial, SerialNumber: card.Serial},
		iak: iak.Public, idevid: idevid.Public, ek: ek, oneTPM: true,
	}, card, nil
}

// challengeEK sends an HMAC key that only the TPM of ek can unwrap, and
// returns the IAK that this TPM certifies with it, and the IAK's TPMT_PUBLIC.
func (c Config) challengeEK(ctx context.Context, router wire.EnrollClient, ek *rsa.PublicKey) (devid.Key, []byte, error) {
	secret, err := newHMACKey()
	if err != nil {
		return devid.Key{}, nil, err
	}
	challenge, err := secret.wrapFor(ek)
	if err != nil {
		return devid.Key{}, nil, err
	}
	challenge.Select = c.Select
	ans, err := router.Challenge(ctx, challenge)
	if errors.Is(err, wire.ErrInvalid) {
		return devid.Key{}, nil, fmt.Errorf("%w: its TPM does not hold the EK that is known: %w", ErrProof, err)
	}
	if err != nil {
		return devid.Key{}, nil, err
	}
	iak, err := checkWord(ans, secret.secret)
	return iak, inside(ans.IAK), err
}

// checkWord holds the answer to an HMAC challenge against its secret, and
// returns the IAK that the TPM has certified.
func checkWord(ans wire.HMACAnswer, secret []byte) (devid.Key, error) {
	iak, err := devid.Parse(devid.IAK, inside(ans.IAK))
	if err != nil {
		return devid.Key{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := iak.CertifiedByHMAC(secret, inside(ans.Attest), ans.Signature); err != nil {
		return devid.Key{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return iak, nil
}

// inside returns what a TPM2B holds, nil if it is none.
func inside(b []byte) []byte {
	r := structure.Reader{Rest: b}
	inner := r.Sized()
	if !r.Done() {
		return nil
	}
	return inner
}

// proven is what a router has proven so far.
type proven struct {
	serial string // as the router calls itself; the EK is that of this serial number
	ek     *rsa.PublicKey
	iak    devid.Key
	area   []byte // TPMT_PUBLIC of the IAK
}

// check holds the request for an IDevID certificate against what is proven,
// and returns the IDevID, which the IAK certifies in it.
func (p proven) check(ans wire.CSRAnswer) (devid.Key, error) {
	content, err := csr.Parse(ans.Content)
	if err != nil {
		return devid.Key{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	idevid, err := devid.Parse(devid.IDevID, content.IDevID)
	if err != nil {
		return devid.Key{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := idevid.CertifiedBy(p.iak, content.IDevIDAttest, content.IDevIDProof); err != nil {
		return devid.Key{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	if err := idevid.Signed(ans.Content, ans.Signature); err != nil {
		return devid.Key{}, fmt.Errorf("%w: request: %w", ErrProof, err)
	}
	switch {
	case content.Serial != p.serial || ans.Card.Serial != p.serial:
		return devid.Key{}, fmt.Errorf("%w: the request is of %q, the router calls itself %q and %q", ErrSerial, content.Serial, p.serial, ans.Card.Serial)
	case !bytes.Equal(content.IAK, p.area):
		return devid.Key{}, fmt.Errorf("%w: the request holds another IAK than its TPM certifies", ErrProof)
	case !sameEK(content.EK, p.ek):
		return devid.Key{}, fmt.Errorf("%w: the request holds another EK than is known", ErrProof)
	case len(ans.Peer) == 0 || !idevid.Public.Equal(ans.Peer[0].PublicKey):
		return devid.Key{}, fmt.Errorf("%w: its TLS key is not the IDevID of %s", ErrPeer, p.serial)
	}
	return idevid, nil
}
