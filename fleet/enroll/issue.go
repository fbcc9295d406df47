package enroll

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Kind says what a certificate is for.
type Kind string

// The certificates that an owner gives a router.
const (
	OIAK    Kind = "oIAK"    // attestation key: signs quotes, and is no party of TLS
	OIDevID Kind = "oIDevID" // identity key: the router's TLS server
)

// Request asks for a certificate of one key of one router.
type Request struct {
	Kind    Kind
	Subject pkix.Name // as the maker certified it, Subject.SerialNumber included
	Serial  string    // serial number of the router
	Host    string    // name or IP address that the router is dialled by; OIDevID only
	Key     crypto.PublicKey
}

// Issuer is an owner's certificate authority: OwnerCA, or a signer elsewhere.
type Issuer interface {
	Issue(ctx context.Context, r Request) (*x509.Certificate, error)
}

// oidAIKCertificate is tcg-kp-AIKCertificate (TCG EK Credential Profile,
// section 4): as the only use it keeps an oIAK out of TLS.
var oidAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// clockSkew is how long before its issue a certificate is already valid, for
// routers whose clock is behind.
const clockSkew = 24 * time.Hour

func (r Request) template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	t, err := template(pkix.Name{
		Country: r.Subject.Country, Organization: r.Subject.Organization, OrganizationalUnit: r.Subject.OrganizationalUnit,
		CommonName: r.Subject.CommonName, SerialNumber: r.Subject.SerialNumber,
	}, now, life)
	if err != nil {
		return nil, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.URIs = []*url.URL{serialURI(r.Serial)}
	switch r.Kind {
	case OIAK:
		t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidAIKCertificate}
		return t, nil
	case OIDevID:
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		return t, addHost(t, r.Host)
	}
	return nil, fmt.Errorf("certificate of kind %q: need %s or %s", r.Kind, OIAK, OIDevID)
}

// serialURI names a router in a certificate (attestz, Subject alternative name).
func serialURI(serial string) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "serial:" + url.PathEscape(serial)}
}

func addHost(t *x509.Certificate, host string) error {
	if host == "" {
		return fmt.Errorf("%s certificate without a host", OIDevID)
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
		return nil
	}
	t.DNSNames = []string{host}
	return nil
}

// template returns what all certificates of an owner have in common.
func template(subject pkix.Name, now time.Time, life time.Duration) (*x509.Certificate, error) {
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("certificate number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: number.Add(number, big.NewInt(1)), Subject: subject,
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life),
		BasicConstraintsValid: true,
	}, nil
}
