package enroll

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"

	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// identity is a router that is known: by its maker's certificates, or by what
// its TPM has proven.
type identity struct {
	serial      string
	subject     pkix.Name // of the certificates that it gets
	iak, idevid *ecdsa.PublicKey
	ek          *rsa.PublicKey // nil: not known
	oneTPM      bool           // iak and idevid are proven to be in one TPM
}

// identify checks the maker's certificates: that they lead to the maker, name
// one router, are of two P-384 keys, and that the router that answered holds
// the IDevID key (RFC 9683, section 2.3; attestz, enrollment by certificates).
func (c Config) identify(ans wire.IAKAnswer) (identity, error) {
	iak, err := c.certified("IAK", ans.IAK)
	if err != nil {
		return identity{}, err
	}
	idevid, err := c.certified("IDevID", ans.IDevID)
	if err != nil {
		return identity{}, err
	}
	serial, err := c.serial(iak, idevid, ans.Card)
	if err != nil {
		return identity{}, err
	}
	id := identity{serial: serial, subject: iak.Subject, iak: publicKey(iak), idevid: publicKey(idevid)}
	if id.iak.Equal(id.idevid) {
		return id, fmt.Errorf("%w: IAK and IDevID are one key", ErrKey)
	}
	if len(ans.Peer) == 0 || !id.idevid.Equal(ans.Peer[0].PublicKey) {
		return id, fmt.Errorf("%w: its TLS key is not the IDevID of %s", ErrPeer, serial)
	}
	return id, nil
}

// certified returns the leaf of a chain of the maker.
func (c Config) certified(name string, chain wire.Chain) (*x509.Certificate, error) {
	certs, err := chain.Certificates()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrChain, err)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %w: there is none", name, ErrChain)
	}
	leaf := certs[0]
	for i, issuer := range certs[1:] {
		if !slices.ContainsFunc(c.Maker, issuer.Equal) {
			return nil, fmt.Errorf("%s: %w: issuer %d of the chain (%s) is not one of the vendor CA file", name, ErrChain, i+1, text(issuer))
		}
	}
	if err := evidence.Leads(leaf, c.Maker, c.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrChain, err)
	}
	if key := publicKey(leaf); key == nil || key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%s: %w: need ECDSA on P-384", name, ErrKey)
	}
	return leaf, nil
}

// serial returns the serial number on which the certificates, the router and
// the operator agree.
func (c Config) serial(iak, idevid *x509.Certificate, card wire.Card) (string, error) {
	serial, err := evidence.SerialNumber(iak)
	if err != nil {
		return "", fmt.Errorf("IAK: %w: %w", ErrSerial, err)
	}
	other, err := evidence.SerialNumber(idevid)
	if err != nil {
		return "", fmt.Errorf("IDevID: %w: %w", ErrSerial, err)
	}
	if serial != other || !bytes.Equal(iak.RawSubject, idevid.RawSubject) {
		return "", fmt.Errorf("%w: the IAK is of %s, the IDevID of %s", ErrSerial, text(iak), text(idevid))
	}
	if serial != card.Serial && serial != card.ChassisSerial {
		return "", fmt.Errorf("%w: certificates say %s, the router calls itself %q (chassis %q)", ErrSerial, serial, card.Serial, card.ChassisSerial)
	}
	if c.Serial != "" && serial != c.Serial {
		return "", fmt.Errorf("%w: certificates say %s, expected is %s", ErrSerial, serial, c.Serial)
	}
	return serial, nil
}

func publicKey(cert *x509.Certificate) *ecdsa.PublicKey {
	key, _ := cert.PublicKey.(*ecdsa.PublicKey)
	return key
}

// text names a certificate by its subject, safe to print.
func text(cert *x509.Certificate) string { return evidence.Escape(cert.Subject.String()) }
