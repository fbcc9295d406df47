package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of a chain.
const (
	maxChain       = 8
	maxCertificate = 16 << 10 // bytes of one PEM text
	maxSerial      = 64       // bytes (X.520, ub-serial-number)
)

var (
	oidSerialNumber   = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidAIKCertificate is tcg-kp-AIKCertificate (TCG EK Credential Profile, section 4).
	oidAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3}
)

// SplitPEM cuts a chain that stands in one text into one text per certificate.
func SplitPEM(chain string) ([]string, error) {
	var out []string
	for rest := strings.TrimSpace(chain); rest != ""; rest = strings.TrimSpace(rest) {
		const end = "-----END CERTIFICATE-----"
		i := strings.Index(rest, end)
		if i < 0 || len(out) == maxChain {
			return nil, fmt.Errorf("%w: chain is no list of at most %d PEM certificates", ErrCertificate, maxChain)
		}
		out = append(out, rest[:i+len(end)]+"\n")
		rest = rest[i+len(end):]
	}
	return out, nil
}

// ParsePEM reads one certificate. Nothing but that certificate, in the form
// that encoding/pem writes, may stand in text.
func ParsePEM(text string) (*x509.Certificate, error) {
	if len(text) > maxCertificate {
		return nil, fmt.Errorf("%w: %d bytes: at most %d", ErrCertificate, len(text), maxCertificate)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%w: not one PEM block of type CERTIFICATE", ErrCertificate)
	}
	plain := strings.ReplaceAll(text, "\r\n", "\n")
	if strings.TrimSpace(plain) != strings.TrimSpace(string(pem.EncodeToMemory(block))) {
		return nil, fmt.Errorf("%w: PEM is not in its plain form", ErrCertificate)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return cert, nil
}

// leaf is a certificate whose chain was found good.
type leaf struct {
	*x509.Certificate
	serial        string
	after, before time.Time // validity of the whole chain
}

// certify reads a chain and finds the way from its leaf to a root. Only
// trusted intermediates are used, and a chain that brings others is refused.
func (t Trust) certify(name string, chain []string) (leaf, error) {
	l, err := t.readLeaf(chain)
	if err != nil {
		return leaf{}, fmt.Errorf("%s certificate: %w", name, err)
	}
	if err := t.findRoot(&l); err != nil {
		return leaf{}, fmt.Errorf("%s certificate: %w", name, err)
	}
	return l, nil
}

func (t Trust) readLeaf(chain []string) (leaf, error) {
	if len(chain) > maxChain {
		return leaf{}, fmt.Errorf("%w: chain of %d: at most %d", ErrCertificate, len(chain), maxChain)
	}
	cert, err := ParsePEM(chain[0])
	if err != nil {
		return leaf{}, err
	}
	for i, text := range chain[1:] {
		issuer, err := ParsePEM(text)
		if err != nil {
			return leaf{}, err
		}
		if !slices.ContainsFunc(slices.Concat(t.Intermediates, t.Roots), issuer.Equal) {
			return leaf{}, fmt.Errorf("%w: the router brought an issuer of its own (number %d of the chain)", ErrChain, i+1)
		}
	}
	if cert.IsCA {
		return leaf{}, fmt.Errorf("%w: it is one of a certificate authority", ErrCertificate)
	}
	if err := strong(cert); err != nil {
		return leaf{}, err
	}
	serial, err := SerialNumber(cert)
	return leaf{Certificate: cert, serial: serial}, err
}

// findRoot verifies the chain of l and keeps how long it is valid.
func (t Trust) findRoot(l *leaf) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range t.Roots {
		roots.AddCert(c)
	}
	for _, c := range t.Intermediates {
		intermediates.AddCert(c)
	}
	cert := *l.Certificate
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: t.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if invalid, ok := err.(x509.CertificateInvalidError); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w: %w", ErrExpired, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChain, err)
	}
	l.after, l.before = cert.NotBefore, cert.NotAfter
	for _, c := range chains[0][1:] {
		if err := strong(c); err != nil {
			return fmt.Errorf("issuer %s: %w", Escape(c.Subject.String()), err)
		}
		if c.NotBefore.After(l.after) {
			l.after = c.NotBefore
		}
		if c.NotAfter.Before(l.before) {
			l.before = c.NotAfter
		}
	}
	return nil
}

// strong refuses keys below 112 bits of strength (NIST SP 800-131A).
func strong(cert *x509.Certificate) error {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Errorf("%w: RSA of %d bits: need 2048", ErrWeakKey, key.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return fmt.Errorf("%w: curve P-224: need P-256 or above", ErrWeakKey)
		}
	default:
		return fmt.Errorf("%w: %T is neither RSA nor ECDSA", ErrWeakKey, cert.PublicKey)
	}
	return nil
}

// SerialNumber returns the device serial number of a certificate: the one
// Subject.serialNumber, plain or as "PID:<pid> SN:<serial>" (attestz).
func SerialNumber(cert *x509.Certificate) (string, error) {
	var found []string
	for _, name := range cert.Subject.Names {
		if name.Type.Equal(oidSerialNumber) {
			s, _ := name.Value.(string)
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%w: subject has %d serial numbers: need one", ErrSerial, len(found))
	}
	serial := found[0]
	if strings.HasPrefix(serial, "PID:") {
		_, serial, _ = strings.Cut(serial, " SN:")
	}
	if serial == "" || len(serial) > maxSerial || Escape(serial) != serial {
		return "", fmt.Errorf("%w: subject serial number %q is not 1 to %d printable characters", ErrSerial, found[0], maxSerial)
	}
	return serial, nil
}

// attestationUse refuses a certificate that was given for another use than
// attestation (RFC 5280, section 4.2.1.3 and 4.2.1.12).
func attestationUse(cert *x509.Certificate) error {
	uses := len(cert.ExtKeyUsage) + len(cert.UnknownExtKeyUsage)
	if uses > 0 && !slices.ContainsFunc(cert.UnknownExtKeyUsage, oidAIKCertificate.Equal) {
		return fmt.Errorf("%w: its extended key usage is not tcg-kp-AIKCertificate", ErrCertificate)
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("%w: its key usage has no digital signature", ErrCertificate)
	}
	return nil
}

// identityUse refuses a certificate that was not given for a TLS server or a
// device identity (TCG DICE and Device Identity use arc 2.23.133).
func identityUse(cert *x509.Certificate) error {
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, use := range cert.ExtKeyUsage {
		if use == x509.ExtKeyUsageServerAuth || use == x509.ExtKeyUsageClientAuth || use == x509.ExtKeyUsageAny {
			return nil
		}
	}
	for _, use := range cert.UnknownExtKeyUsage {
		if len(use) > 3 && use[:3].Equal(oidAIKCertificate[:3]) && !use.Equal(oidAIKCertificate) {
			return nil
		}
	}
	return fmt.Errorf("%w: its extended key usage is not one of a device identity", ErrCertificate)
}
