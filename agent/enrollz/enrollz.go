// Package enrollz is the device's half of enrollment: it shows the maker's
// certificates, or proves without any which keys are in its TPM, and installs
// the owner's (openconfig.attestz.TpmEnrollzService).
//
// It installs a certificate only if it certifies a key of this device's TPM
// and its chain ends at the owner's trust anchors, and it installs all
// certificates of a rotation or none. It never changes the maker's
// certificates and never makes or moves a key.
package enrollz

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"waxseal/measure/wire"
)

// Config is what a Server works with.
type Config struct {
	Card    wire.Card        // who this device is; all fields filled
	IAK     wire.Chain       // the maker's certificate of the IAK; empty: the device is not provisioned
	IDevID  wire.Chain       // the maker's certificate of the IDevID
	Keys    Keys             // the TPM's keys; nil keys: nothing can be installed
	Chip    Chip             // proves where the keys are; nil: there are none
	Anchors *x509.CertPool   // the owner's trust anchors; nil: nothing can be installed
	Store   Store            // where the owner's certificates are kept
	Now     func() time.Time // the device's clock
}

// Server implements wire.EnrollServer.
type Server struct {
	config  Config
	proving chan struct{} // holds one while the TPM proves keys
	mu      sync.Mutex    // one rotation at a time
	current atomic.Pointer[Enrollment]
}

var _ wire.EnrollServer = (*Server)(nil)

// ErrStored means that what the store holds cannot be used. The device counts
// as not enrolled and can be enrolled again.
var ErrStored = errors.New("stored enrollment cannot be used")

// New returns a server that goes on with the enrollment of the store. If that
// cannot be used, the server is returned together with ErrStored.
func New(c Config) (*Server, error) {
	s := &Server{config: c, proving: make(chan struct{}, 1)}
	s.current.Store(&Enrollment{})
	if c.Keys.IAK == nil {
		return s, nil
	}
	e, err := c.Store.Load()
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrStored, err)
	}
	if !e.Enrolled() {
		return s, nil
	}
	if err := c.Keys.check(e); err != nil {
		return s, fmt.Errorf("%w: %w", ErrStored, err)
	}
	s.current.Store(&e)
	return s, nil
}

// Current returns the enrollment in use.
func (s *Server) Current() Enrollment { return *s.current.Load() }

// CardID implements wire.EnrollServer.
func (s *Server) CardID(_ context.Context, sel wire.Selection) (wire.Card, error) {
	return s.config.Card, s.config.Card.Select(sel)
}

// IAKCert implements wire.EnrollServer.
func (s *Server) IAKCert(_ context.Context, sel wire.Selection) (wire.IAKAnswer, error) {
	if err := s.config.Card.Select(sel); err != nil {
		return wire.IAKAnswer{}, err
	}
	if len(s.config.IAK) == 0 {
		return wire.IAKAnswer{}, fmt.Errorf("%w: no IAK certificate of the maker in this device", wire.ErrNotReady)
	}
	return wire.IAKAnswer{Card: s.config.Card, IAK: s.config.IAK, IDevID: s.config.IDevID, Atomic: true}, nil
}

// RotateOIAK implements wire.EnrollServer.
func (s *Server) RotateOIAK(_ context.Context, rot wire.Rotation) error {
	if s.config.Anchors == nil {
		return fmt.Errorf("%w: no owner's trust anchors in this device", wire.ErrDenied)
	}
	if s.config.Keys.IAK == nil {
		return fmt.Errorf("%w: no attestation key in this device", wire.ErrNotReady)
	}
	up, err := s.only(rot)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.Current()
	next.OIAK = up.OIAK
	if len(up.OIDevID) > 0 {
		next.OIDevID, next.Profile = up.OIDevID, rot.Profile
	}
	if err := s.check(up); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	if err := s.config.Store.Save(next); err != nil {
		return storeError{err}
	}
	s.current.Store(&next)
	return nil
}

// only returns the update of this device, which has one control card.
func (s *Server) only(rot wire.Rotation) (wire.Update, error) {
	for i, u := range rot.Updates {
		if err := s.config.Card.Select(u.Select); err != nil {
			return wire.Update{}, fmt.Errorf("updates[%d]: %w", i, err)
		}
	}
	if len(rot.Updates) != 1 {
		return wire.Update{}, fmt.Errorf("%w: %d updates of the one control card", wire.ErrInvalid, len(rot.Updates))
	}
	return rot.Updates[0], nil
}

// check tells whether the update's certificates are of this device's keys and
// of its owner. A TLS certificate must also allow a server.
func (s *Server) check(up wire.Update) error {
	if err := s.config.Keys.check(Enrollment{OIAK: up.OIAK, OIDevID: up.OIDevID}); err != nil {
		return err
	}
	if err := s.verify(up.OIAK, x509.ExtKeyUsageAny); err != nil {
		return fmt.Errorf("oiak_cert: %w", err)
	}
	if len(up.OIDevID) == 0 {
		return nil
	}
	if err := s.verify(up.OIDevID, x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("oidevid_cert: %w", err)
	}
	return nil
}

// verify checks that chain leads to the owner. A certificate that begins later
// than the device's clock is judged at its beginning: the owner has signed it,
// and a device's clock may stand in 1970.
func (s *Server) verify(chain wire.Chain, usage x509.ExtKeyUsage) error {
	certs, err := chain.Certificates()
	if err != nil {
		return err
	}
	if certs[0].IsCA {
		return errors.New("it is a CA certificate")
	}
	now := s.config.Now()
	if certs[0].NotBefore.After(now) {
		now = certs[0].NotBefore
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{
		Roots:         s.config.Anchors,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	return err
}

// storeError is a failed Save. The owner, whose disk it is, learns what the
// system said ("no space left on device"), but no path of the router.
type storeError struct{ cause error }

// Error implements error.
func (e storeError) Error() string {
	said := "certificates cannot be stored"
	var errno syscall.Errno
	if errors.As(e.cause, &errno) {
		said += ": " + errno.Error()
	}
	return said
}

// Unwrap implements the interface that errors.Is looks for.
func (e storeError) Unwrap() []error { return []error{wire.ErrNotReady, e.cause} }
