package enroll

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

// dial returns a connection to a router that shows a certificate of the maker,
// or one of the owner where it was enrolled before. refused tells why the
// certificate that it showed was not accepted.
func (c Config) dial() (conn wire.Conn, refused func() error, err error) {
	if c.EKs != nil {
		return c.dialTo(sameKey())
	}
	return c.dialTo(func(peer *x509.Certificate) error {
		err := evidence.Leads(peer, c.Maker, c.Now())
		if err == nil || evidence.Leads(peer, c.Roots, c.Now()) == nil {
			return nil
		}
		return fmt.Errorf("%w: its certificate leads neither to the vendor CA nor to the owner: %w", ErrPeer, err)
	})
}

// sameKey accepts whoever is there, since nobody has certified a router without
// its maker's certificates, but nobody else later: its TLS key is held against
// the IDevID that its TPM proves, before anything is installed.
func sameKey() func(*x509.Certificate) error {
	var mu sync.Mutex
	var first []byte
	return func(peer *x509.Certificate) error {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = peer.RawSubjectPublicKeyInfo
		}
		if !bytes.Equal(first, peer.RawSubjectPublicKeyInfo) {
			return fmt.Errorf("%w: its TLS key has changed", ErrPeer)
		}
		return nil
	}
}

// dialTo returns a connection to a router whose certificate is accepted.
func (c Config) dialTo(accept func(*x509.Certificate) error) (wire.Conn, func() error, error) {
	var cause atomic.Pointer[error]
	conn, err := wire.Dial(c.Address, &tls.Config{
		Certificates:       []tls.Certificate{c.Client},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the chain is checked below, by rules for devices: an IDevID names no host
		VerifyConnection: func(cs tls.ConnectionState) error {
			err := accept(cs.PeerCertificates[0])
			if err != nil {
				cause.Store(&err)
			}
			return err
		},
	})
	refused := func() error {
		if p := cause.Load(); p != nil {
			return *p
		}
		return nil
	}
	return conn, refused, err
}

// switched waits until the router shows want at a new handshake.
func (c Config) switched(ctx context.Context, want *x509.Certificate) error {
	for try := 0; ; try++ {
		err := c.shows(ctx, want)
		if err == nil {
			return nil
		}
		if try == 4 {
			return fmt.Errorf("%w: %w", ErrSwitch, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrSwitch, errors.Join(err, ctx.Err()))
		case <-time.After(time.Duration(try+1) * 200 * time.Millisecond):
		}
	}
}

func (c Config) shows(ctx context.Context, want *x509.Certificate) error {
	conn, refused, err := c.dialTo(func(got *x509.Certificate) error {
		if !bytes.Equal(got.Raw, want.Raw) {
			return fmt.Errorf("it shows that of %s by %s", text(got), got.Issuer.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Enrollz().CardID(ctx, c.Select)
	if cause := refused(); cause != nil {
		return cause
	}
	return err
}
