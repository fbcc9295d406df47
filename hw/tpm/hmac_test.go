package tpm_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/devid"
)

func TestSwtpmCertifiesByHMAC(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	testHMAC(t, provision(t, tpmtest.Open(t, p)), func() {
		t.Helper()
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("%d objects and sessions are left in the TPM", n)
		}
	})
}

// testHMAC is the contract of every TPM that has all keys. clean fails if
// anything is left in it.
func testHMAC(t *testing.T, d *tpm.Device, clean func()) {
	ek, key := publicArea(t, d, tpm.EK), tpmtest.NewHMACKey()
	certified, err := d.CertifyByHMAC(t.Context(), key.WrapFor(t, ek))
	if err != nil {
		t.Fatal(err)
	}
	clean()
	iak, err := devid.Parse(devid.IAK, certified.Public[2:])
	if err != nil {
		t.Fatal(err)
	}
	if err := iak.CertifiedByHMAC(key.Secret, certified.Attest[2:], certified.Signature); err != nil {
		t.Error(err)
	}
	other := provision(t, tpmtest.Swtpm(t))
	for name, c := range map[string]struct {
		ek     []byte
		key    func(*tpmtest.HMACKey)
		change func(*tpm.Wrapped)
	}{
		"wrapped for another TPM": {ek: publicArea(t, other, tpm.EK)},
		"no public area":          {change: func(w *tpm.Wrapped) { w.Public = nil }},
		"no duplicate":            {change: func(w *tpm.Wrapped) { w.Duplicate = nil }},
		"no seed":                 {change: func(w *tpm.Wrapped) { w.Seed = nil }},
		"empty structures": {change: func(w *tpm.Wrapped) {
			*w = tpm.Wrapped{Public: []byte{0, 0}, Duplicate: []byte{0, 0}, Seed: []byte{0, 0}}
		}},
		"public area cut":         {change: func(w *tpm.Wrapped) { w.Public = w.Public[:len(w.Public)-1] }},
		"duplicate cut":           {change: func(w *tpm.Wrapped) { w.Duplicate = w.Duplicate[:len(w.Duplicate)-1] }},
		"seed cut":                {change: func(w *tpm.Wrapped) { w.Seed = w.Seed[:len(w.Seed)-1] }},
		"seed of one byte":        {change: func(w *tpm.Wrapped) { w.Seed = []byte{0, 1, 7} }},
		"duplicate of one byte":   {change: func(w *tpm.Wrapped) { w.Duplicate = []byte{0, 1, 7} }},
		"a size in the duplicate": {change: func(w *tpm.Wrapped) { w.Duplicate[2] = 0xff }},
		"duplicate changed":       {change: func(w *tpm.Wrapped) { w.Duplicate[len(w.Duplicate)-1] ^= 1 }},
		"integrity changed":       {change: func(w *tpm.Wrapped) { w.Duplicate[6] ^= 1 }},
		"seed changed":            {change: func(w *tpm.Wrapped) { w.Seed[len(w.Seed)-1] ^= 1 }},
		"seed above the modulus":  {change: func(w *tpm.Wrapped) { copy(w.Seed[2:], bytes.Repeat([]byte{0xff}, 256)) }},
		"seed of zeros":           {change: func(w *tpm.Wrapped) { clear(w.Seed[2:]) }},
		"unique of another key":   {change: func(w *tpm.Wrapped) { w.Public[len(w.Public)-1] ^= 1 }},
		"64 KiB of public area":   {change: func(w *tpm.Wrapped) { w.Public = append([]byte{0xff, 0xff}, make([]byte, 0xffff)...) }},
		"fixedTPM":                {key: func(k *tpmtest.HMACKey) { k.Public.ObjectAttributes.FixedTPM = true }},
		"not restricted":          {key: func(k *tpmtest.HMACKey) { k.Public.ObjectAttributes.Restricted = false }},
		"decrypts":                {key: func(k *tpmtest.HMACKey) { k.Public.ObjectAttributes.Decrypt = true }},
		"needs a policy":          {key: func(k *tpmtest.HMACKey) { k.Public.AuthPolicy.Buffer = make([]byte, 32) }},
		"an asymmetric key":       {key: func(k *tpmtest.HMACKey) { k.Public = tpm2.ECCSRKTemplate }},
		"named by SHA-1":          {key: func(k *tpmtest.HMACKey) { k.Public.NameAlg = tpm2.TPMAlgSHA1 }},
	} {
		key, ek := tpmtest.NewHMACKey(), ek
		if c.key != nil {
			c.key(&key)
		}
		if c.ek != nil {
			ek = c.ek
		}
		w := key.WrapFor(t, ek)
		if c.change != nil {
			c.change(&w)
		}
		if got, err := d.CertifyByHMAC(t.Context(), w); !errors.Is(err, tpm.ErrWrapped) || errors.Is(err, tpm.ErrFailed) || got.Signature != nil {
			t.Errorf("%s: %v, want: %v", name, err, tpm.ErrWrapped)
		}
		clean()
	}
	if _, err := d.CertifyByHMAC(t.Context(), key.WrapFor(t, ek)); err != nil {
		t.Errorf("after all refusals: %v", err)
	}
	clean()
}

func TestHMACWithoutAKeyIsErrNoKey(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	w := tpmtest.NewHMACKey().WrapFor(t, publicArea(t, d, tpm.EK))
	if _, err := d.CertifyByHMAC(t.Context(), w); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("no IAK: %v", err)
	}
	if n := tpmtest.Loaded(t, p); n != 0 {
		t.Errorf("%d objects and sessions are left in the TPM", n)
	}
}

// A caller who leaves at whatever command leaves no key and no session behind.
func TestCancelledHMACLeavesTheTPMClean(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := provision(t, tpmtest.Open(t, p))
	w := tpmtest.NewHMACKey().WrapFor(t, publicArea(t, d, tpm.EK))
	conn, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	l := &leaving{TPMCloser: conn, leave: func() {}}
	d, err = tpm.New(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for after := 1; after < 20; after++ {
		ctx, cancel := context.WithCancel(t.Context())
		l.left, l.leave = after, cancel
		_, err := d.CertifyByHMAC(ctx, w)
		cancel()
		if _, err := d.Counters(t.Context()); err != nil { // waits until the TPM is left alone
			t.Fatal(err)
		}
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("cancelled after command %d (%v): %d objects and sessions are left in the TPM", after, err, n)
		}
	}
	l.left = 0
	if _, err := d.CertifyByHMAC(t.Context(), w); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What the IAK says of the IDevID, and what the IDevID signs, is what an owner
// accepts.
func TestIDevIDIsCertifiedAndSignsContent(t *testing.T) {
	d := tpmtest.Provisioned(t)
	iak, err := devid.Parse(devid.IAK, publicArea(t, d, tpm.IAK))
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := devid.Parse(devid.IDevID, publicArea(t, d, tpm.IDevID))
	if err != nil {
		t.Fatal(err)
	}
	attest, signature, err := d.Certify(t.Context(), tpm.IDevID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := idevid.CertifiedBy(iak, attest, signature); err != nil {
		t.Error(err)
	}
	sig, err := d.SignContent(t.Context(), []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	if err := idevid.Signed([]byte("content"), sig); err != nil {
		t.Error(err)
	}
}

// The policies of measure/devid are written down, those of this package computed.
func TestPoliciesAreThoseThatOwnersKnow(t *testing.T) {
	for k, kind := range map[tpm.Key]devid.Kind{tpm.IAK: devid.IAK, tpm.IDevID: devid.IDevID} {
		policy, err := tpm.AuthPolicy(k, measure.SHA384)
		if err != nil || !bytes.Equal(policy, devid.Policy(kind)) {
			t.Errorf("%s: %x, %v", k, policy, err)
		}
	}
}

// FuzzWrapped gives a device wrapped keys that a stranger might send: what is
// not an HMAC key never reaches the TPM, and nothing panics.
func FuzzWrapped(f *testing.F) {
	key := tpmtest.NewHMACKey()
	public := tpm2.Marshal(tpm2.New2B(key.Public))
	f.Add(public, []byte{0, 1, 7}, []byte{0, 1, 7})
	f.Add([]byte{0xff, 0xff}, []byte{}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, public, duplicate, seed []byte) {
		s := &script{}
		d, err := tpm.New(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		before := len(s.commands())
		_, err = d.CertifyByHMAC(t.Context(), tpm.Wrapped{Public: public, Duplicate: duplicate, Seed: seed})
		if err == nil {
			t.Error("a TPM that does nothing certifies")
		}
		if asked := len(s.commands()) > before; asked == errors.Is(err, tpm.ErrWrapped) {
			t.Errorf("the TPM was asked %v: %v", asked, err)
		}
	})
}
