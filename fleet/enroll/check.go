package enroll

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"waxseal/measure/evidence"
)

// ErrIssued means that an issuer has answered another certificate than it was
// asked for.
var ErrIssued = errors.New("issued certificate is not the one that was asked for")

// Check tells whether cert is what was asked for: of this key, for this router
// and this use and no other, valid now, and signed by one of the owner's
// trust anchors.
func (r Request) Check(cert *x509.Certificate, anchors []*x509.Certificate, now time.Time) error {
	key, ok := r.Key.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !key.Equal(cert.PublicKey):
		return fmt.Errorf("%w: it is of another key", ErrIssued)
	case cert.Subject.SerialNumber != r.Subject.SerialNumber || cert.Subject.CommonName != r.Subject.CommonName:
		return fmt.Errorf("%w: it is of %s", ErrIssued, text(cert))
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return fmt.Errorf("%w: it is a certificate authority's", ErrIssued)
	case !slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == serialURI(r.Serial).String() }):
		return fmt.Errorf("%w: it does not name %s", ErrIssued, serialURI(r.Serial))
	}
	if err := r.checkUse(cert); err != nil {
		return err
	}
	if err := evidence.Leads(cert, anchors, now); err != nil {
		return fmt.Errorf("%w: %w", ErrIssued, err)
	}
	return nil
}

// checkUse holds the key usages against those of the template: an oIAK is no
// party of TLS, and an oIDevID no client.
func (r Request) checkUse(cert *x509.Certificate) error {
	switch r.Kind {
	case OIAK:
		if len(cert.ExtKeyUsage) != 0 || len(cert.UnknownExtKeyUsage) != 1 || !cert.UnknownExtKeyUsage[0].Equal(oidAIKCertificate) {
			return fmt.Errorf("%w: extended key usages %v %v: need %v alone", ErrIssued, cert.ExtKeyUsage, cert.UnknownExtKeyUsage, oidAIKCertificate)
		}
		return nil
	case OIDevID:
		if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || len(cert.UnknownExtKeyUsage) != 0 {
			return fmt.Errorf("%w: extended key usages %v %v: need serverAuth alone", ErrIssued, cert.ExtKeyUsage, cert.UnknownExtKeyUsage)
		}
		if err := cert.VerifyHostname(r.Host); err != nil {
			return fmt.Errorf("%w: %w", ErrIssued, err)
		}
		return nil
	}
	return fmt.Errorf("certificate of kind %q: need %s or %s", r.Kind, OIAK, OIDevID)
}
