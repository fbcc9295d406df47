package challenge

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure/wire"
)

// SealFormat is the format of a seal: a verifier's signature over an evidence
// file. A quote proves what a router booted, and nothing about the moment at
// which the answer came; the seal adds the verifier's word for that: it drew
// the nonce, and received just these bytes in time.
const SealFormat = "waxseal-seal-1"

// MaxSeal is the largest seal that CheckSeal accepts, in bytes.
const MaxSeal = 64 << 10

// ErrSeal means that a file is not the one that a verifier of the owner sealed.
var ErrSeal = errors.New("evidence is not as its seal says")

type seal struct {
	Format    string   `json:"format"`
	Verifier  []string `json:"verifier"`  // certificate chain in PEM, leaf first
	Signature string   `json:"signature"` // ECDSA in ASN.1 DER over sealed(file), standard base64
}

// sealed returns the SHA-384 digest of what a seal signs.
func sealed(file []byte) []byte {
	h := sha512.New384()
	h.Write([]byte(SealFormat + "\x00"))
	h.Write(file)
	return h.Sum(nil)
}

// Seal returns the seal of an evidence file by a verifier's client certificate.
func Seal(file []byte, verifier tls.Certificate) ([]byte, error) {
	signer, ok := verifier.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("seal: the verifier has no key")
	}
	signature, err := signer.Sign(rand.Reader, sealed(file), crypto.SHA384)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	s := seal{Format: SealFormat, Signature: base64.StdEncoding.EncodeToString(signature)}
	for _, der := range verifier.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		s.Verifier = append(s.Verifier, wire.ChainOf(cert)...)
	}
	b, err := json.Marshal(s, jsontext.WithIndent("  "))
	return append(b, '\n'), err
}

// CheckSeal returns the certificate of the verifier that sealed file. It must
// lead straight to one of roots and be one of a TLS client, which no router's is.
func CheckSeal(file, data []byte, roots []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	var s seal
	if len(data) > MaxSeal {
		return nil, fmt.Errorf("%w: seal of %d bytes: at most %d", ErrSeal, len(data), MaxSeal)
	}
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	if s.Format != SealFormat {
		return nil, fmt.Errorf("%w: format is %q: need %q", ErrSeal, s.Format, SealFormat)
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(s.Signature)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	verifier, err := verifierOf(s.Verifier, roots, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	key, ok := verifier.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, sealed(file), signature) {
		return nil, fmt.Errorf("%w: something in it was changed", ErrSeal)
	}
	return verifier, nil
}

func verifierOf(texts []string, roots []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	certs, err := wire.Chain(texts).Certificates()
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 || len(certs) > wire.MaxChain {
		return nil, fmt.Errorf("%d certificates of the verifier", len(certs))
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate of the verifier: %w", err)
	}
	return certs[0], clientOnly(certs[0])
}

// clientOnly refuses certificates without any usage, which x509 takes for all.
func clientOnly(cert *x509.Certificate) error {
	for _, use := range cert.ExtKeyUsage {
		if use == x509.ExtKeyUsageClientAuth {
			return nil
		}
	}
	return errors.New("certificate of the verifier is not one of a client")
}
