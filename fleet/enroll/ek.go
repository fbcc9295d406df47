package enroll

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/sealed"
)

// ErrEK means that it is not known, or not to be believed, which EK the TPM of
// a router has.
var ErrEK = errors.New("EK of the router is not acceptable")

// EKs knows which EK the TPM of a router has: the root of trust of enrollment
// without the maker's certificates. A serial number that it does not know is
// ErrEK.
type EKs interface {
	EK(ctx context.Context, serial string) (*rsa.PublicKey, error)
}

// KnownEK is the EK of one router.
type KnownEK struct {
	Serial string
	Key    *rsa.PublicKey
}

var _ EKs = KnownEK{}

// EK implements EKs.
func (k KnownEK) EK(_ context.Context, serial string) (*rsa.PublicKey, error) {
	if serial != k.Serial {
		return nil, fmt.Errorf("%w: the one that is known is of %s, the router calls itself %s", ErrEK, evidence.Escape(k.Serial), evidence.Escape(serial))
	}
	return k.Key, nil
}

// ReadEK reads the EK of the router of a serial number from a PEM file: its
// public key as it stands, or its certificate, which must lead to one of ca,
// the CA certificates of the TPM's maker.
func ReadEK(path, serial string, ca []*x509.Certificate, now time.Time) (KnownEK, error) {
	text, err := read(path)
	if err != nil {
		return KnownEK{}, err
	}
	if serial == "" {
		return KnownEK{}, fmt.Errorf("%s: %w: it holds no serial number: name the router's", path, ErrEK)
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) != 0 {
		return KnownEK{}, fmt.Errorf("%s: %w: not one PEM block", path, ErrEK)
	}
	key, err := parseEK(block, ca, now)
	if err != nil {
		return KnownEK{}, fmt.Errorf("%s: %w", path, err)
	}
	return KnownEK{serial, key}, nil
}

// ShippedEK returns the EK of the device of a shipment manifest that its maker
// signed with both algorithms.
func ShippedEK(file []byte, maker sealed.Trust) (KnownEK, error) {
	s, err := manifest.Open(file, maker)
	if err != nil {
		return KnownEK{}, fmt.Errorf("%w: %w", ErrEK, err)
	}
	ek, err := manifest.ParseEK(s.EK.Public)
	if err != nil {
		return KnownEK{}, fmt.Errorf("%w: %w", ErrEK, err)
	}
	key, err := checkEK(ek.Key)
	return KnownEK{s.Serial, key}, err
}

func parseEK(block *pem.Block, ca []*x509.Certificate, now time.Time) (*rsa.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrEK, err)
		}
		return checkEK(key)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrEK, err)
		}
		return certifiedEK(cert, ca, now)
	}
	return nil, fmt.Errorf("%w: PEM block of type %q: need PUBLIC KEY or CERTIFICATE", ErrEK, block.Type)
}

// oidEKCertificate is tcg-kp-EKCertificate (TCG EK Credential Profile, section
// 3.2.16), the extended key usage of every EK certificate.
var oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

// certifiedEK returns the key of an EK certificate of the TPM's maker.
func certifiedEK(cert *x509.Certificate, ca []*x509.Certificate, now time.Time) (*rsa.PublicKey, error) {
	if len(ca) == 0 {
		return nil, fmt.Errorf("%w: its certificate needs the CA of the TPM's maker to be believed (--ek-ca)", ErrEK)
	}
	if err := evidence.Leads(cert, ca, now); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEK, err)
	}
	for _, use := range cert.UnknownExtKeyUsage {
		if use.Equal(oidEKCertificate) {
			return checkEK(cert.PublicKey)
		}
	}
	return nil, fmt.Errorf("%w: the certificate is not one of an EK (extended key usage %v)", ErrEK, oidEKCertificate)
}

// checkEK accepts keys of template L-1, the only one that a challenge can be
// wrapped for.
func checkEK(key any) (*rsa.PublicKey, error) {
	ek, ok := key.(*rsa.PublicKey)
	if !ok || ek.N.BitLen() != 2048 || ek.E != 65537 {
		return nil, fmt.Errorf("%w: need RSA-2048 with the exponent 65537 (template L-1)", ErrEK)
	}
	return ek, nil
}

// sameEK tells whether shown, as it stands in a TCG-CSR-IDEVID, is of this EK:
// its certificate in DER, or its TPMT_PUBLIC.
func sameEK(shown []byte, ek *rsa.PublicKey) bool {
	public := ekPublic(ek)
	if bytes.Equal(shown, tpm2.Marshal(public)) {
		return true
	}
	cert, err := x509.ParseCertificate(shown)
	return err == nil && ek.Equal(cert.PublicKey)
}
