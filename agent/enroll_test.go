package agent_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/wire"
)

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// shown returns the certificate that the router shows on a new connection.
func (l *lab) shown(t *testing.T) *x509.Certificate {
	t.Helper()
	ans, err := l.dial(t, l.owner.client(t)).Enrollz().IAKCert(t.Context(), active)
	if err != nil {
		t.Fatal(err)
	}
	return ans.Peer[0]
}

func TestMakersCertificatesAreShown(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	ans, err := l.dial(t, l.owner.client(t)).Enrollz().IAKCert(t.Context(), active)
	if err != nil {
		t.Fatal(err)
	}
	if ans.Card != card || ans.IAK.String() != l.config.IAKCert.String() || ans.IDevID.String() != l.config.IDevIDCert.String() || !ans.Atomic {
		t.Errorf("answer %+v", ans)
	}
	if wire.ChainOf(ans.Peer...).String() != ans.IDevID.String() {
		t.Error("TLS does not show the IDevID certificate")
	}
}

func TestRotationSwitchesTheServerCertificateAtOnce(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		l := newLab(t, c)
		for range 3 {
			rot := l.rotation(t)
			if err := l.dial(t, l.owner.client(t)).Enrollz().RotateOIAK(t.Context(), rot); err != nil {
				t.Fatal(err)
			}
			if wire.ChainOf(l.shown(t)).String() != rot.Updates[0].OIDevID.String() {
				t.Fatal("the next connection does not show the new oIDevID certificate")
			}
			// As a verifier with nothing but the owner's CA dials it.
			roots := x509.NewCertPool()
			roots.AddCert(l.owner.cert)
			conn := dial(t, l.addr, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{*l.owner.client(t)}})
			ans, err := conn.Attestz().Attest(t.Context(), newRequest(t))
			if err != nil {
				t.Fatal(err)
			}
			if ans.OIAK.String() != rot.Updates[0].OIAK.String() {
				t.Error("Attest answers with an older oIAK certificate")
			}
		}
	})
}

func TestSessionsResumeButNotOverARotation(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	config := clientTLS(l.owner.client(t))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	config.ServerName = "router"
	call := func() int32 {
		t.Helper()
		before := c.idevid.signed.Load()
		conn := dial(t, l.addr, config)
		if _, err := conn.Enrollz().IAKCert(t.Context(), active); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		return c.idevid.signed.Load() - before
	}
	if n := call(); n != 1 {
		t.Fatalf("first connection took %d signatures", n)
	}
	if n := call(); n != 0 {
		t.Errorf("second connection took %d signatures: the session does not resume", n)
	}
	l.enroll(t)
	if n := call(); n != 1 {
		t.Errorf("connection after the rotation took %d signatures: want 1", n)
	}
}

func TestLaterRotationMayCarryOIAKOnly(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	first := l.rotation(t)
	conn := l.dial(t, l.owner.client(t))
	if err := conn.Enrollz().RotateOIAK(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := l.rotation(t)
	second.Profile, second.Updates[0].OIDevID = "", nil
	if err := conn.Enrollz().RotateOIAK(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	ans, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	if ans.OIAK.String() != second.Updates[0].OIAK.String() || wire.ChainOf(ans.Peer...).String() != first.Updates[0].OIDevID.String() {
		t.Error("want the new oIAK and the old oIDevID certificate")
	}
}

func TestEnrollmentSurvivesRestart(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	rot := l.rotation(t)
	if err := l.dial(t, l.owner.client(t)).Enrollz().RotateOIAK(t.Context(), rot); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.start(t)
	if wire.ChainOf(l.shown(t)).String() != rot.Updates[0].OIDevID.String() {
		t.Error("the oIDevID certificate is gone")
	}
	if _, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Error(err)
	}
	l.stop()
	if err := os.RemoveAll(l.config.State); err != nil { // factory reset
		t.Fatal(err)
	}
	l.start(t)
	if wire.ChainOf(l.shown(t)).String() != l.config.IDevIDCert.String() {
		t.Error("after a factory reset TLS does not show the maker's certificate")
	}
	if _, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Attest after a factory reset: %v: want ErrNotReady", err)
	}
}

func TestEnrollmentOfAnotherTPMDoesNotCount(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	l.enroll(t)
	l.stop()
	c := newSoftChip(t) // the board was replaced, its disk was kept
	iak, idevid := c.keys(t)
	l.config.Quoter, l.config.IAK, l.config.IDevID = c, iak, idevid
	l.config.IAKCert, l.config.IDevIDCert = wire.ChainOf(l.vendor.device(t, iak)), wire.ChainOf(l.vendor.device(t, idevid.Public()))
	l.start(t)
	if _, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Attest: %v: want ErrNotReady", err)
	}
	l.chip = c
	l.enroll(t)
	if _, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Errorf("after enrolling again: %v", err)
	}
}

func TestBadRotationsChangeNothing(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.enroll(t)
	iak, idevid := l.chip.keys(t)
	other := newKey(t)
	expired := func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(1) }
	before := l.shown(t)
	oiak := attest(t, l).OIAK.String()
	for name, change := range map[string]func(*wire.Update){
		"oIAK of another key":      func(u *wire.Update) { u.OIAK = wire.ChainOf(l.owner.device(t, &other.PublicKey)) },
		"oIAK and oIDevID swapped": func(u *wire.Update) { u.OIAK, u.OIDevID = u.OIDevID, u.OIAK },
		"oIDevID of the IAK":       func(u *wire.Update) { u.OIDevID = u.OIAK },
		"oIDevID of another key":   func(u *wire.Update) { u.OIDevID = wire.ChainOf(l.owner.device(t, &other.PublicKey)) },
		"oIAK of another CA":       func(u *wire.Update) { u.OIAK = wire.ChainOf(l.stranger.device(t, iak)) },
		"oIDevID of another CA":    func(u *wire.Update) { u.OIDevID = wire.ChainOf(l.stranger.device(t, idevid.Public())) },
		"other CA, its root sent":  func(u *wire.Update) { u.OIAK = wire.ChainOf(l.stranger.device(t, iak), l.stranger.cert) },
		"oIAK expired":             func(u *wire.Update) { u.OIAK = wire.ChainOf(l.owner.device(t, iak, expired)) },
		"oIDevID expired":          func(u *wire.Update) { u.OIDevID = wire.ChainOf(l.owner.device(t, idevid.Public(), expired)) },
		"oIDevID for clients only": func(u *wire.Update) { u.OIDevID = wire.ChainOf(l.owner.device(t, idevid.Public(), clientOnly)) },
		"oIAK is a CA":             func(u *wire.Update) { u.OIAK = wire.ChainOf(l.owner.device(t, iak, isCA)) },
		"oIAK is not a certificate": func(u *wire.Update) {
			u.OIAK = wire.Chain{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
		},
		"for a card that is not here": func(u *wire.Update) { u.Select = wire.Selection{Serial: "WX-0002"} },
	} {
		rot := l.rotation(t)
		change(&rot.Updates[0])
		if err := conn.Enrollz().RotateOIAK(t.Context(), rot); !errors.Is(err, wire.ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
	rot := l.rotation(t)
	rot.Updates = append(rot.Updates, l.rotation(t).Updates...)
	if err := conn.Enrollz().RotateOIAK(t.Context(), rot); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("the same card twice: %v: want ErrInvalid", err)
	}
	if !l.shown(t).Equal(before) || attest(t, l).OIAK.String() != oiak {
		t.Error("a refused rotation changed a certificate")
	}
}

func TestChainOverAnIntermediateIsAccepted(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	iak, idevid := l.chip.keys(t)
	issuing := authority{key: newKey(t)}
	issuing.cert = l.owner.device(t, &issuing.key.PublicKey, isCA)
	rot := wire.Rotation{Profile: "tls", Updates: []wire.Update{{
		Select:  active,
		OIAK:    wire.ChainOf(issuing.device(t, iak), issuing.cert),
		OIDevID: wire.ChainOf(issuing.device(t, idevid.Public()), issuing.cert),
	}}}
	if err := l.dial(t, l.owner.client(t)).Enrollz().RotateOIAK(t.Context(), rot); err != nil {
		t.Fatal(err)
	}
	if n := len(attest(t, l).OIAK); n != 2 {
		t.Errorf("oIAK chain of %d certificates: want 2", n)
	}
}

func TestRotationThatCannotBeStoredChangesNothing(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	if err := os.WriteFile(l.config.State, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	conn := l.dial(t, l.owner.client(t))
	err := conn.Enrollz().RotateOIAK(t.Context(), l.rotation(t))
	if !contains(err, "cannot be stored") || contains(err, l.config.State) {
		t.Errorf("RotateOIAK: %v: want an error that says so and tells no path", err)
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Attest: %v: want ErrNotReady", err)
	}
	if wire.ChainOf(l.shown(t)).String() != l.config.IDevIDCert.String() {
		t.Error("TLS shows a certificate that is not stored")
	}
}

func attest(t *testing.T, l *lab) wire.AttestAnswer {
	t.Helper()
	req := newRequest(t)
	req.PCRs = []measure.PCR{12}
	ans, err := l.dial(t, l.owner.client(t)).Attestz().Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return ans
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
}

func clientOnly(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}
