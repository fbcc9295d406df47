// Package enroll is the owner's half of enrollment
// (openconfig.attestz.TpmEnrollzService): it makes sure that a router is what
// its maker says it is, or that its keys are in the TPM of a known EK, gives
// the keys certificates of the owner, and sees that the router uses them.
//
// It believes the maker's certificates or the known EK, and the keys that the
// router proves to hold, never what the router only says. It installs nothing before every
// check has passed, and it never makes, moves or sees a private key of a
// router.
package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"waxseal/fleet/challenge"
	"waxseal/measure/wire"
)

// Why a router is not enrolled. Enroll wraps one of them where the router is
// to blame; other errors are of the network or of the owner's own things.
var (
	ErrChain  = errors.New("maker's certificate is not acceptable")
	ErrSerial = errors.New("serial number is not the expected one")
	ErrKey    = errors.New("key is not acceptable")
	ErrPeer   = errors.New("router at the other end of TLS is not the one of the certificates")
	ErrSwitch = errors.New("router does not show its new certificate")
)

// Config says which router is enrolled, and how.
type Config struct {
	Address string              // host:port; without a port, wire.Port
	Maker   []*x509.Certificate // the maker's roots and intermediates; no other issuer is used
	EKs     EKs                 // who knows the routers' EKs; not nil: the router has no certificates of its maker, and Maker is not used
	Roots   []*x509.Certificate // the owner's trust anchors, for a router that is enrolled again
	Issuer  Issuer              // the owner's CA
	Ledger  Ledger              // which keys are enrolled; nil: nothing is remembered
	Replace bool                // the router may come with other keys than it was enrolled with
	Client  tls.Certificate     // the owner's client certificate
	Serial  string              // expected serial number; "": the one that the maker certifies
	Select  wire.Selection      // control card; zero: the active one
	Profile string              // TLS profile of the new certificate; "": "waxseal"
	Timeout time.Duration       // for everything up to the first challenge; 0: 1 min
	Now     func() time.Time    // nil: time.Now
	Step    func(string)        // is told what is done next; nil: nobody is
}

// Result is an enrolled router.
type Result struct {
	Serial  string
	Card    wire.Card // what the router says; only the serial number was compared
	OIAK    *x509.Certificate
	OIDevID *x509.Certificate
	OneTPM  bool // proven: both keys are in one TPM. False: the router does not answer that question
	// First is the outcome of the first challenge, without reference values. If
	// it is not genuine, the router has not proven that it holds its IAK.
	First challenge.Result
}

// Enroll enrolls one router. It may be repeated: the certificates are then
// replaced by new ones.
func Enroll(ctx context.Context, c Config) (Result, error) {
	c = c.withDefaults()
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := c.install(bounded)
	if err != nil {
		return Result{}, fmt.Errorf("enroll %s: %w", c.Address, err)
	}
	c.Step("challenging " + r.Serial)
	r.First, err = challenge.Challenge(ctx, challenge.Config{
		Address: c.Address, Roots: c.Roots, Client: c.Client, Serial: r.Serial,
		Select: c.Select, Now: c.Now, UnsafeClock: true,
	})
	if err != nil {
		return Result{}, fmt.Errorf("enroll %s: first challenge: %w", c.Address, err)
	}
	return r, nil
}

func (c Config) withDefaults() Config {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		c.Address = net.JoinHostPort(c.Address, strconv.Itoa(wire.Port))
	}
	if c.Select == (wire.Selection{}) {
		c.Select = wire.Selection{Role: wire.Active}
	}
	if c.Profile == "" {
		c.Profile = "waxseal"
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	return c
}

// install finds out who the router is and gives it the owner's certificates.
func (c Config) install(ctx context.Context) (Result, error) {
	conn, refused, err := c.dial()
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	id, card, err := c.meet(ctx, conn.Enrollz())
	if cause := refused(); cause != nil {
		return Result{}, cause
	}
	if err != nil {
		return Result{}, err
	}
	if c.Ledger != nil {
		if err := c.Ledger.Admit(id.serial, c.Replace, Keys{IAK: id.iak, IDevID: id.idevid, EK: id.ek}); err != nil {
			return Result{}, err
		}
	}
	c.Step("issuing certificates for " + id.serial)
	r, rotation, err := c.issue(ctx, id)
	if err != nil {
		return Result{}, err
	}
	r.Card, r.OneTPM = card, id.oneTPM
	c.Step("installing certificates")
	if err := conn.Enrollz().RotateOIAK(ctx, rotation); err != nil {
		return Result{}, err
	}
	c.Step("reconnecting")
	return r, c.switched(ctx, r.OIDevID)
}

// meet finds out who the router is: by its maker's certificates, or by what the
// TPM of the known EK says.
func (c Config) meet(ctx context.Context, router wire.EnrollClient) (identity, wire.Card, error) {
	if c.EKs != nil {
		return c.prove(ctx, router)
	}
	c.Step("asking for the maker's certificates")
	ans, err := router.IAKCert(ctx, c.Select)
	if err != nil {
		return identity{}, wire.Card{}, err
	}
	id, err := c.identify(ans)
	if err != nil {
		return id, ans.Card, err
	}
	id.oneTPM, err = c.together(ctx, router, id)
	return id, ans.Card, err
}

// issue gets the owner's certificates for the router's two keys.
func (c Config) issue(ctx context.Context, id identity) (Result, wire.Rotation, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return Result{}, wire.Rotation{}, err
	}
	oiak, err := c.certify(ctx, Request{Kind: OIAK, Subject: id.subject, Serial: id.serial, Key: id.iak})
	if err != nil {
		return Result{}, wire.Rotation{}, err
	}
	oidevid, err := c.certify(ctx, Request{Kind: OIDevID, Subject: id.subject, Serial: id.serial, Host: host, Key: id.idevid})
	if err != nil {
		return Result{}, wire.Rotation{}, err
	}
	rotation := wire.Rotation{
		Profile: c.Profile,
		Updates: []wire.Update{{Select: c.Select, OIAK: wire.ChainOf(oiak), OIDevID: wire.ChainOf(oidevid)}},
	}
	return Result{Serial: id.serial, OIAK: oiak, OIDevID: oidevid}, rotation, nil
}

// certify has a certificate issued. What the issuer answers is checked,
// wherever it is.
func (c Config) certify(ctx context.Context, r Request) (*x509.Certificate, error) {
	cert, err := c.Issuer.Issue(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := r.Check(cert, c.Roots, c.Now()); err != nil {
		return nil, fmt.Errorf("%s certificate for %s: %w", r.Kind, r.Serial, err)
	}
	return cert, nil
}
