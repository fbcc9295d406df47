package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"waxseal/fleet/challenge"
	"waxseal/fleet/challenge/challengetest"
	"waxseal/fleet/enroll"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/wire"
)

const serial = "WX-0001"

func noon() time.Time { return evidencetest.Noon }

// fresh is a router as it leaves the factory, and its owner.
type fresh struct {
	*challengetest.Device
	config enroll.Config
	dir    string // the owner's
}

func newFresh(t *testing.T) fresh {
	t.Helper()
	d, err := challengetest.New(serial)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Boot([2]string{"policy/measure", "p"}), d.ShowMaker()); err != nil {
		t.Fatal(err)
	}
	address, stop, err := d.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir := t.TempDir() + "/owner"
	if err := enroll.Init(dir, noon()); err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca.Now = noon
	cred, err := enroll.OpenCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fresh{d, enroll.Config{
		Address: address, Maker: []*x509.Certificate{d.Vendor.Certificate}, Roots: cred.Roots,
		Issuer: ca, Client: cred.Client, Serial: serial, Now: noon, Timeout: 20 * time.Second,
	}, dir}
}

func newKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func chain(t *testing.T, by evidencetest.Authority, key *ecdsa.PrivateKey, changes ...func(*x509.Certificate)) wire.Chain {
	t.Helper()
	template := evidencetest.Leaf(serial)
	for _, change := range changes {
		change(template)
	}
	cert, err := by.Certify(template, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return wire.ChainOf(cert)
}

func authority(t *testing.T, name string, parent *evidencetest.Authority) evidencetest.Authority {
	t.Helper()
	a, err := evidencetest.NewAuthority(name, parent)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRouterIsEnrolled(t *testing.T) {
	f := newFresh(t)
	r, err := enroll.Enroll(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	if r.Serial != serial || r.First.Outcome != challenge.Genuine {
		t.Fatalf("serial %s, first challenge %s %q", r.Serial, r.First.Outcome, r.First.Verdict.Reasons)
	}
	if !f.AK.PublicKey.Equal(r.OIAK.PublicKey) || !f.Identity.PublicKey.Equal(r.OIDevID.PublicKey) {
		t.Error("certificates are not of the router's keys")
	}
	for name, cert := range map[string]*x509.Certificate{"oIAK": r.OIAK, "oIDevID": r.OIDevID} {
		if got, err := evidence.SerialNumber(cert); err != nil || got != serial {
			t.Errorf("%s is of %q, %v", name, got, err)
		}
		if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.URIs) != 1 || cert.URIs[0].String() != "urn:serial:"+serial {
			t.Errorf("%s: CA %v, usage %v, URIs %v", name, cert.IsCA, cert.KeyUsage, cert.URIs)
		}
	}
	if err := r.OIDevID.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if rot := f.Rotations(); len(rot) != 1 || rot[0].Profile != "waxseal" || len(rot[0].Updates) != 1 {
		t.Errorf("rotations are %+v", rot)
	}
}

func TestAttestationCertificateIsNoPartyOfTLS(t *testing.T) {
	f := newFresh(t)
	r, err := enroll.Enroll(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(f.config.Roots[0])
	verify := func(cert *x509.Certificate, use x509.ExtKeyUsage) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: noon(), KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	if err := verify(r.OIDevID, x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("oIDevID as a server: %v", err)
	}
	if verify(r.OIDevID, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("oIDevID passes for a client of TLS: one router could be the verifier at another")
	}
	if verify(r.OIAK, x509.ExtKeyUsageServerAuth) == nil || verify(r.OIAK, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("oIAK passes for a party of TLS")
	}
}

func TestEnrolledRouterCanBeEnrolledAgain(t *testing.T) {
	f := newFresh(t)
	f.config.Ledger = enroll.FileLedger{Dir: t.TempDir()}
	for range 2 {
		if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.Rotations()); n != 2 {
		t.Fatalf("%d rotations", n)
	}
}

// Each case changes one thing that enrollment looks at; nothing may be
// installed then.
func TestRouterThatIsNotProvenIsNotEnrolled(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *fresh)
		want   error
	}{
		"IAK of another maker": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, authority(t, "vendor", nil), f.AK)
		}, enroll.ErrChain},
		"IDevID of another maker": {func(t *testing.T, f *fresh) {
			f.IDevID = chain(t, authority(t, "vendor", nil), f.Identity)
		}, enroll.ErrChain},
		"TLS certificate of another maker": {func(t *testing.T, f *fresh) {
			if err := f.ShowTLS(authority(t, "vendor", nil), evidencetest.Leaf(serial), f.Identity); err != nil {
				t.Fatal(err)
			}
		}, enroll.ErrPeer},
		"another router of the maker in TLS": {func(t *testing.T, f *fresh) {
			if err := f.ShowTLS(f.Vendor, evidencetest.Leaf("WX-0002"), newKey(t, elliptic.P384())); err != nil {
				t.Fatal(err)
			}
		}, enroll.ErrPeer},
		"no IAK certificate":    {func(_ *testing.T, f *fresh) { f.IAK = nil }, enroll.ErrChain},
		"no IDevID certificate": {func(_ *testing.T, f *fresh) { f.IDevID = nil }, enroll.ErrChain},
		"an intermediate of its own": {func(t *testing.T, f *fresh) {
			between := authority(t, "between", &f.Vendor)
			f.IAK = append(chain(t, between, f.AK), wire.ChainOf(between.Certificate)...)
		}, enroll.ErrChain},
		"expired IAK certificate": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, f.AK, func(c *x509.Certificate) { c.NotAfter = noon().Add(-time.Second) })
		}, enroll.ErrChain},
		"a CA as IAK": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, f.AK, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
		}, enroll.ErrChain},
		"IAK of another serial number": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, f.AK, func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, enroll.ErrSerial},
		"both of another serial number than the card's": {func(t *testing.T, f *fresh) {
			other := func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" }
			f.IAK, f.IDevID = chain(t, f.Vendor, f.AK, other), chain(t, f.Vendor, f.Identity, other)
			f.config.Serial = "WX-0002"
		}, enroll.ErrSerial},
		"other subjects": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, f.AK, func(c *x509.Certificate) { c.Subject.CommonName = "another" })
		}, enroll.ErrSerial},
		"no serial number": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, f.AK, func(c *x509.Certificate) { c.Subject.SerialNumber = "" })
		}, enroll.ErrSerial},
		"another router than expected": {func(_ *testing.T, f *fresh) { f.config.Serial = "WX-0009" }, enroll.ErrSerial},
		"IAK on P-256": {func(t *testing.T, f *fresh) {
			f.IAK = chain(t, f.Vendor, newKey(t, elliptic.P256()))
		}, enroll.ErrKey},
		"one key for both": {func(t *testing.T, f *fresh) { f.IAK = chain(t, f.Vendor, f.Identity) }, enroll.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFresh(t)
			c.change(t, &f)
			if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if n := len(f.Rotations()); n != 0 {
				t.Fatalf("%d certificates were installed", n)
			}
		})
	}
}

func TestRouterThatKeepsItsOldCertificateIsNotEnrolled(t *testing.T) {
	f := newFresh(t)
	f.Deaf = true
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrSwitch) {
		t.Fatalf("error is %v", err)
	}
}

// A router with the certificate of an IAK that it does not hold is found out
// by the first challenge.
func TestStolenAttestationCertificateIsFoundOut(t *testing.T) {
	f := newFresh(t)
	f.IAK = chain(t, f.Vendor, newKey(t, elliptic.P384()))
	r, err := enroll.Enroll(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	if r.First.Outcome != challenge.Refused || !strings.Contains(r.First.Verdict.Reasons[0], evidence.ErrSignature.Error()) {
		t.Fatalf("first challenge: %s %q", r.First.Outcome, r.First.Verdict.Reasons)
	}
}

func TestSecondRouterWithTheSameTPMIsNotEnrolled(t *testing.T) {
	f := newFresh(t)
	f.config.Ledger = enroll.FileLedger{Dir: t.TempDir()}
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Fatal(err)
	}
	other := func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" }
	f.IAK, f.IDevID = chain(t, f.Vendor, f.AK, other), chain(t, f.Vendor, f.Identity, other)
	f.Card.Serial, f.config.Serial = "WX-0002", "WX-0002"
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrKeyTaken) {
		t.Fatalf("error is %v", err)
	}
	if n := len(f.Rotations()); n != 1 {
		t.Fatalf("%d rotations", n)
	}
}

func TestRouterWithOtherKeysNeedsTheOperator(t *testing.T) {
	f := newFresh(t)
	f.config.Ledger = enroll.FileLedger{Dir: t.TempDir()}
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Fatal(err)
	}
	f.AK = newKey(t, elliptic.P384())
	f.IAK = chain(t, f.Vendor, f.AK)
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrOtherKey) || !strings.Contains(err.Error(), "--replace") {
		t.Fatalf("error is %v", err)
	}
	f.config.Replace = true
	if r, err := enroll.Enroll(t.Context(), f.config); err != nil || r.First.Outcome != challenge.Genuine {
		t.Fatalf("%s, %v", r.First.Outcome, err)
	}
}

func TestSilentPeerEndsInTime(t *testing.T) {
	f := newFresh(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.config.Address, f.config.Timeout = l.Addr().String(), 200*time.Millisecond
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, wire.ErrRetry) {
		t.Fatalf("error is %v", err)
	}
}
