package delivery

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"waxseal/measure/evidence"
)

// subjectAltName is critical in EK certificates, since their subject is empty,
// and holds a directory name, which crypto/x509 does not read (TCG EK
// Credential Profile, section 3.2.9). Nothing is decided on it here.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// leads tells whether cert leads to a self-signed certificate of trusted, by
// way of the others. No issuer that a device brings along is used.
func leads(cert *x509.Certificate, trusted []*x509.Certificate, now time.Time) error {
	if cert.IsCA {
		return fmt.Errorf("%s is a certificate authority", evidence.Escape(cert.Subject.String()))
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
	plain.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), subjectAltName.Equal)
	_, err := plain.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}
