package enroll_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"sync"
	"testing"

	"waxseal/fleet/challenge"
	"waxseal/fleet/challenge/challengetest"
	"waxseal/fleet/enroll"
	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/structure"
	"waxseal/measure/wire"
)

// eks are the EKs of two TPMs: an RSA key takes long to make.
var eks = sync.OnceValues(func() ([2]*rsa.PrivateKey, error) {
	var keys [2]*rsa.PrivateKey
	var errs [2]error
	for i := range keys {
		keys[i], errs[i] = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys, errors.Join(errs[:]...)
})

// newBare is a router with keys and without certificates of its maker, whose
// EK the owner knows.
func newBare(t *testing.T) fresh {
	t.Helper()
	f := newFresh(t)
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	f.EK, f.IAK, f.IDevID, f.config.Maker = keys[0], nil, nil, nil
	f.config.EKs = enroll.KnownEK{Serial: serial, Key: &keys[0].PublicKey}
	if err := f.ShowTLS(authority(t, "nobody", nil), evidencetest.Leaf("anything"), f.Identity); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f fresh) tpm() devidtest.TPM {
	return devidtest.TPM{Keys: map[devid.Kind]*ecdsa.PrivateKey{devid.IAK: f.AK, devid.IDevID: f.Identity}}
}

func TestRouterWithoutCertificatesIsEnrolled(t *testing.T) {
	f := newBare(t)
	f.config.Ledger = enroll.FileLedger{Dir: t.TempDir()}
	for range 2 { // and again, when it shows the owner's certificate
		r, err := enroll.Enroll(t.Context(), f.config)
		if err != nil {
			t.Fatal(err)
		}
		if r.Serial != serial || r.First.Outcome != challenge.Genuine || r.OIAK.Subject.SerialNumber != serial {
			t.Fatalf("serial %s of %s, first challenge %s %q", r.Serial, r.OIAK.Subject, r.First.Outcome, r.First.Verdict.Reasons)
		}
		if !f.AK.PublicKey.Equal(r.OIAK.PublicKey) || !f.Identity.PublicKey.Equal(r.OIDevID.PublicKey) {
			t.Error("certificates are not of the router's keys")
		}
	}
}

// request makes the router ask with another content, truly signed.
func request(f *fresh, change func(*csr.Content)) {
	f.Requesting = func(ans *wire.CSRAnswer) error {
		c, err := csr.Parse(ans.Content)
		if err != nil {
			return err
		}
		change(&c)
		if ans.Content, err = c.Encode(); err != nil {
			return err
		}
		ans.Signature, err = f.tpm().Sign(devid.IDevID, ans.Content)
		return err
	}
}

// Each case changes one thing that the proof rests on; nothing may be
// installed then.
func TestRouterThatProvesNothingIsNotEnrolled(t *testing.T) {
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	other, err := devidtest.New()
	if err != nil {
		t.Fatal(err)
	}
	sized := func(b []byte) []byte { return structure.AppendSized(nil, b) }
	for name, c := range map[string]struct {
		change func(*testing.T, *fresh)
		want   error
	}{
		"a TPM with another EK":          {func(_ *testing.T, f *fresh) { f.EK = keys[1] }, enroll.ErrProof},
		"another serial than expected":   {func(_ *testing.T, f *fresh) { f.config.Serial = "WX-0002" }, enroll.ErrSerial},
		"a serial whose EK is not known": {func(_ *testing.T, f *fresh) { f.Card.Serial, f.config.Serial = "WX-0002", "" }, enroll.ErrEK},
		"no serial":                      {func(_ *testing.T, f *fresh) { f.Card.Serial, f.config.Serial = "", "" }, enroll.ErrSerial},
		"HMAC with another key": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(_ []byte, ans *wire.HMACAnswer) { ans.Signature = devidtest.Tag(make([]byte, 32), ans.Attest[2:]) }
		}, enroll.ErrProof},
		"the word of an earlier enrollment": {func(t *testing.T, f *fresh) {
			var first *wire.HMACAnswer
			f.Certifying = func(_ []byte, ans *wire.HMACAnswer) {
				if first == nil {
					first = &wire.HMACAnswer{IAK: ans.IAK, Attest: ans.Attest, Signature: ans.Signature}
				}
				*ans = *first
			}
			if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
				t.Fatal(err)
			}
		}, enroll.ErrProof},
		"IAK of another TPM shown": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(_ []byte, ans *wire.HMACAnswer) { ans.IAK = sized(other.Public(devid.IAK)) }
		}, enroll.ErrProof},
		"an IAK that is not restricted": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(secret []byte, ans *wire.HMACAnswer) {
				area := devidtest.Public(&f.AK.PublicKey, devidtest.AttributesIAK&^(1<<16), devid.Policy(devid.IAK))
				attest := devidtest.Certification(area).Bytes()
				*ans = wire.HMACAnswer{IAK: sized(area), Attest: sized(attest), Signature: devidtest.Tag(secret, attest)}
			}
		}, enroll.ErrProof},
		"an IAK with a policy of its own": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(secret []byte, ans *wire.HMACAnswer) {
				area := devidtest.Public(&f.AK.PublicKey, devidtest.AttributesIAK, nil)
				attest := devidtest.Certification(area).Bytes()
				*ans = wire.HMACAnswer{IAK: sized(area), Attest: sized(attest), Signature: devidtest.Tag(secret, attest)}
			}
		}, enroll.ErrProof},
		"D-02 a quote as certification": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(secret []byte, ans *wire.HMACAnswer) {
				a := devidtest.Certification(f.tpm().Public(devid.IAK))
				a.Type = 0x8018
				ans.Attest, ans.Signature = sized(a.Bytes()), devidtest.Tag(secret, a.Bytes())
			}
		}, enroll.ErrProof},
		"bytes behind the IAK": {func(_ *testing.T, f *fresh) {
			f.Certifying = func(_ []byte, ans *wire.HMACAnswer) { ans.IAK = append(bytes.Clone(ans.IAK), 0) }
		}, enroll.ErrProof},
		"D-21 an IDevID of another TPM": {func(_ *testing.T, f *fresh) {
			f.Requesting = func(ans *wire.CSRAnswer) (err error) {
				ans.Content, ans.Signature, err = other.CSR(serial, challengetest.EKArea(&keys[0].PublicKey))
				return err
			}
		}, enroll.ErrProof},
		"D-21 an IDevID of another TPM, certified by this IAK's owner": {func(_ *testing.T, f *fresh) {
			mixed := devidtest.TPM{Keys: map[devid.Kind]*ecdsa.PrivateKey{devid.IAK: f.AK, devid.IDevID: other.Keys[devid.IDevID]}}
			f.Requesting = func(ans *wire.CSRAnswer) (err error) {
				ans.Content, ans.Signature, err = mixed.CSR(serial, challengetest.EKArea(&keys[0].PublicKey))
				return err
			}
		}, enroll.ErrPeer},
		"a request signed by another key": {func(_ *testing.T, f *fresh) {
			f.Requesting = func(ans *wire.CSRAnswer) (err error) {
				ans.Signature, err = other.Sign(devid.IDevID, ans.Content)
				return err
			}
		}, enroll.ErrProof},
		"a request of another serial": {func(_ *testing.T, f *fresh) { request(f, func(c *csr.Content) { c.Serial = "WX-0002" }) }, enroll.ErrSerial},
		"a request with another IAK":  {func(_ *testing.T, f *fresh) { request(f, func(c *csr.Content) { c.IAK = other.Public(devid.IAK) }) }, enroll.ErrProof},
		"a request with another EK": {func(_ *testing.T, f *fresh) {
			request(f, func(c *csr.Content) { c.EK = challengetest.EKArea(&keys[1].PublicKey) })
		}, enroll.ErrProof},
		"an answer of another card": {func(_ *testing.T, f *fresh) {
			f.Requesting = func(ans *wire.CSRAnswer) error { ans.Card.Serial = "WX-0002"; return nil }
		}, enroll.ErrSerial},
		"another key in TLS": {func(t *testing.T, f *fresh) {
			if err := f.ShowTLS(authority(t, "nobody", nil), evidencetest.Leaf(serial), newKey(t, elliptic.P384())); err != nil {
				t.Fatal(err)
			}
		}, enroll.ErrPeer},
	} {
		t.Run(name, func(t *testing.T) {
			f := newBare(t)
			c.change(t, &f)
			before := len(f.Rotations())
			if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if n := len(f.Rotations()); n != before {
				t.Fatalf("%d certificates were installed", n-before)
			}
		})
	}
}

// Every single bit of what a genuine router answers counts, and every byte at
// its end.
func TestEveryBitOfTheProofCounts(t *testing.T) {
	f := newBare(t)
	var secret []byte
	var word wire.HMACAnswer
	var request wire.CSRAnswer
	f.Certifying = func(s []byte, ans *wire.HMACAnswer) { secret, word = s, *ans }
	f.Requesting = func(ans *wire.CSRAnswer) error { request = *ans; return nil }
	r, err := enroll.Enroll(t.Context(), f.config)
	if err != nil {
		t.Fatal(err)
	}
	request.Peer = []*x509.Certificate{r.OIDevID}
	check := func() error { return enroll.CheckProof(serial, &f.EK.PublicKey, secret, word, request) }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for name, field := range map[string]*[]byte{
		"IAK": &word.IAK, "attest": &word.Attest, "tag": &word.Signature,
		"request": &request.Content, "signature": &request.Signature,
	} {
		genuine := *field
		refused := func(what string, at int, b []byte) {
			t.Helper()
			*field = b
			if err := check(); !errors.Is(err, enroll.ErrProof) {
				t.Errorf("%s, %s %d: %v", name, what, at, err)
			}
		}
		for bit := range 8 * len(genuine) {
			b := bytes.Clone(genuine)
			b[bit/8] ^= 1 << (bit % 8)
			refused("changed bit", bit, b)
		}
		for n := range genuine {
			refused("cut at", n, genuine[:n])
		}
		refused("longer than", len(genuine), append(bytes.Clone(genuine), 0))
		*field = genuine
	}
	if err := check(); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
}

// D-22, and one TPM that stands for two control cards.
func TestOneTPMUnderTwoSerialsIsNotEnrolled(t *testing.T) {
	f := newBare(t)
	dir := t.TempDir()
	f.config.Ledger = enroll.FileLedger{Dir: dir}
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Fatal(err)
	}
	f.Card.Serial, f.config.Serial = "WX-0002", "WX-0002"
	f.config.EKs = enroll.KnownEK{Serial: "WX-0002", Key: &f.EK.PublicKey} // a database that was fooled
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrKeyTaken) {
		t.Errorf("the same TPM: %v", err)
	}
	// With other keys under the same EK, as no TPM can have them.
	f.AK, f.Identity = newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	if err := f.ShowTLS(authority(t, "nobody", nil), evidencetest.Leaf("anything"), f.Identity); err != nil {
		t.Fatal(err)
	}
	f.config.Replace = true
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrKeyTaken) {
		t.Errorf("the same EK: %v", err)
	}
	if n := len(f.Rotations()); n != 1 {
		t.Errorf("%d rotations", n)
	}
}

func TestRouterWithAnotherTPMNeedsTheOperator(t *testing.T) {
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	f := newBare(t)
	f.config.Ledger = enroll.FileLedger{Dir: t.TempDir()}
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Fatal(err)
	}
	f.EK = keys[1]
	f.config.EKs = enroll.KnownEK{Serial: serial, Key: &keys[1].PublicKey}
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrOtherKey) {
		t.Errorf("another EK: %v", err)
	}
	f.config.Replace = true
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Errorf("with the operator's word: %v", err)
	}
}

// Nobody has certified the first TLS key; but nobody takes its place later.
func TestSecondTLSKeyOnOneConnectionIsRefused(t *testing.T) {
	ca := authority(t, "nobody", nil)
	accept := enroll.SameKey()
	first, err := ca.Certify(evidencetest.Leaf(serial), newKey(t, elliptic.P384()).Public())
	if err != nil {
		t.Fatal(err)
	}
	second, err := ca.Certify(evidencetest.Leaf(serial), newKey(t, elliptic.P384()).Public())
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := ca.Certify(evidencetest.Leaf("renewed"), first.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(accept(first), accept(first), accept(renewed)); err != nil {
		t.Errorf("the first key: %v", err)
	}
	if err := accept(second); !errors.Is(err, enroll.ErrPeer) {
		t.Errorf("another key: %v, want: %v", err, enroll.ErrPeer)
	}
}
