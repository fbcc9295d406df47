package evidence

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Leads tells whether a device's certificate leads to a self-signed one of
// trusted, by way of the others. No issuer that a device brings along is used,
// and what the certificate may be used for is not looked at.
func Leads(cert *x509.Certificate, trusted []*x509.Certificate, now time.Time) error {
	subject := Escape(cert.Subject.String())
	if cert.IsCA {
		return fmt.Errorf("%s is a certificate authority", subject)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, t := range trusted {
		if bytes.Equal(t.RawIssuer, t.RawSubject) {
			roots.AddCert(t)
			continue
		}
		between.AddCert(t)
	}
	plain := *cert
	// A SAN with a directory name is critical where the subject is empty (TCG EK
	// Credential Profile, section 3.2.9); crypto/x509 does not read it, and nothing is decided on it.
	plain.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	_, err := plain.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	return nil
}
