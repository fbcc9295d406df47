package challenge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// errStranger means that the peer of TLS is not proven to be the router.
var errStranger = errors.New("peer is not authenticated")

// dial returns a connection on which only the expected router is spoken to.
// refused tells why the peer was not taken for it.
func (c Config) dial() (conn wire.Conn, refused func() error, err error) {
	var cause atomic.Pointer[error]
	conn, err = wire.Dial(c.Address, &tls.Config{
		Certificates:       []tls.Certificate{c.Client},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // checked below: a router is known by its serial number, and its address may change
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := c.authenticate(cs.PeerCertificates)
			if err != nil {
				cause.Store(&err)
			}
			return err
		},
	})
	refused = func() error {
		if p := cause.Load(); p != nil {
			return *p
		}
		return nil
	}
	return conn, refused, err
}

// authenticate accepts a certificate of the owner for a TLS server that names
// the expected router: by its serial number, or where none is expected by the
// address that was dialled. Only the owner's own certificates are used as issuers.
func (c Config) authenticate(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it shows no certificate", errStranger)
	}
	leaf, roots := chain[0], x509.NewCertPool()
	for _, root := range c.Roots {
		roots.AddCert(root)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: c.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: its certificate (of %s, by %s) is not the owner's: %w; if it was never enrolled: waxseal enroll",
			errStranger, name(leaf.Subject.String()), name(leaf.Issuer.String()), err)
	}
	serial, err := evidence.SerialNumber(leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	if c.Serial != "" {
		if serial != c.Serial {
			return fmt.Errorf("%w: its certificate is of %s, expected is %s", errStranger, serial, c.Serial)
		}
		return nil
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("%w: it is %s, which was not enrolled under this address: %w; say which router is expected (--serial)", errStranger, serial, err)
	}
	return nil
}

// stranger is the result where the peer is not proven to be the router: no
// question was put to it but what it says of itself.
func (c Config) stranger(ctx context.Context, cause error) Result {
	r := Result{Outcome: Unauthenticated, Verdict: none(evidence.Escape(cause.Error()))}
	if claim := c.claim(ctx); claim != "" {
		r.Verdict.Reasons = append(r.Verdict.Reasons, "device says (not verified): "+claim)
	}
	return r
}

func name(s string) string {
	if s == "" {
		return "nobody"
	}
	return evidence.Escape(s)
}

// claim asks a peer that could not be authenticated what it says of itself. It
// is for the operator's eye, and is trusted in nothing.
func (c Config) claim(ctx context.Context) string {
	conn, err := wire.Dial(c.Address, &tls.Config{
		Certificates:       []tls.Certificate{c.Client},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // nothing that comes back is believed
	})
	if err != nil {
		return ""
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, min(c.Timeout, 10*time.Second))
	defer cancel()
	status, err := conn.Contents().Status(ctx)
	if err != nil {
		return ""
	}
	return saying(status)
}

func saying(s wire.Status) string {
	switch {
	case !s.Attested && s.Reason != "":
		return "UNATTESTED(" + evidence.Escape(s.Reason) + ")"
	case !s.Attested:
		return "UNATTESTED"
	case !s.Enrolled:
		return "can attest, not enrolled"
	}
	return "can attest"
}
