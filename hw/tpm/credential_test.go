package tpm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

// credential makes a credential for a key of the TPM whose EK this is.
func credential(t testing.TB, ekArea, keyArea, value []byte) (blob, secret []byte) {
	t.Helper()
	ek, err := tpm2.Unmarshal[tpm2.TPMTPublic](ekArea)
	if err != nil {
		t.Fatal(err)
	}
	kem, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		t.Fatal(err)
	}
	name := append([]byte{0x00, 0x0c}, measure.Hash(measure.SHA384, keyArea).Sum...)
	blob, secret, err = tpm2.CreateCredential(rand.Reader, kem, name, value)
	if err != nil {
		t.Fatal(err)
	}
	return blob, secret
}

// provision makes all keys.
func provision(t testing.TB, d *tpm.Device) *tpm.Device {
	t.Helper()
	for _, k := range []tpm.Key{tpm.EK, tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

var inside = bytes.Repeat([]byte{7}, 32)

func TestSwtpmActivatesCredentials(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	testActivation(t, provision(t, tpmtest.Open(t, p)), func() {
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("%d objects and sessions are left in the TPM", n)
		}
	})
}

// testActivation is the contract of every TPM that has all keys. clean fails
// if anything is left in it.
func testActivation(t *testing.T, d *tpm.Device, clean func()) {
	ek, iak, idevid := publicArea(t, d, tpm.EK), publicArea(t, d, tpm.IAK), publicArea(t, d, tpm.IDevID)
	other := provision(t, tpmtest.Swtpm(t))
	for name, c := range map[string]struct {
		key       tpm.Key
		ek, owner []byte
		change    func(blob, secret []byte)
		good      bool
	}{
		"IAK":                          {key: tpm.IAK, ek: ek, owner: iak, good: true},
		"IDevID":                       {key: tpm.IDevID, ek: ek, owner: idevid, good: true},
		"for the other key":            {key: tpm.IAK, ek: ek, owner: idevid},
		"for the other key, reversed":  {key: tpm.IDevID, ek: ek, owner: iak},
		"for a key of another TPM":     {key: tpm.IAK, ek: ek, owner: publicArea(t, other, tpm.IAK)},
		"for the EK of another TPM":    {key: tpm.IAK, ek: publicArea(t, other, tpm.EK), owner: iak},
		"with a changed blob":          {key: tpm.IAK, ek: ek, owner: iak, change: func(b, _ []byte) { b[len(b)-1] ^= 1 }},
		"with a changed integrity":     {key: tpm.IAK, ek: ek, owner: iak, change: func(b, _ []byte) { b[5] ^= 1 }},
		"with a changed secret":        {key: tpm.IAK, ek: ek, owner: iak, change: func(_, s []byte) { s[len(s)-1] ^= 1 }},
		"with a size in it that lies":  {key: tpm.IAK, ek: ek, owner: iak, change: func(b, _ []byte) { b[1] = 0xff }},
		"with a secret above modulus":  {key: tpm.IAK, ek: ek, owner: iak, change: func(_, s []byte) { copy(s, bytes.Repeat([]byte{0xff}, 256)) }},
		"with a secret that is a zero": {key: tpm.IAK, ek: ek, owner: iak, change: func(_, s []byte) { clear(s) }},
	} {
		t.Run(name, func(t *testing.T) {
			blob, secret := credential(t, c.ek, c.owner, inside)
			if c.change != nil {
				c.change(blob, secret)
			}
			value, err := d.ActivateCredential(t.Context(), c.key, blob, secret)
			if c.good && (err != nil || !bytes.Equal(value, inside)) {
				t.Errorf("%x, %v", value, err)
			}
			if !c.good && (!errors.Is(err, tpm.ErrCredential) || value != nil) {
				t.Errorf("%x, %v: want ErrCredential", value, err)
			}
			clean()
		})
	}
}

func TestCredentialThatCannotBeOneIsNotGivenToTheTPM(t *testing.T) {
	s := &script{}
	d := open(t, s)
	before := len(s.commands())
	good, long := make([]byte, 10), make([]byte, 300)
	for name, err := range map[string]error{
		"no blob":     last(d.ActivateCredential(t.Context(), tpm.IAK, nil, good)),
		"no secret":   last(d.ActivateCredential(t.Context(), tpm.IAK, good, nil)),
		"long blob":   last(d.ActivateCredential(t.Context(), tpm.IAK, long, good)),
		"long secret": last(d.ActivateCredential(t.Context(), tpm.IAK, good, long)),
		"EK":          last(d.ActivateCredential(t.Context(), tpm.EK, good, good)),
		"no key":      last(d.ActivateCredential(t.Context(), "", good, good)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := len(s.commands()); n != before {
		t.Errorf("the TPM was asked %d times", n-before)
	}
}

func last[T any](_ T, err error) error { return err }

func TestActivationWithoutTheKeyIsErrNoKey(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	if err := last(d.ActivateCredential(t.Context(), tpm.IAK, inside, inside)); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("%v: want ErrNoKey", err)
	}
	if n := tpmtest.Loaded(t, p); n != 0 {
		t.Errorf("%d objects and sessions are left in the TPM", n)
	}
}

// leaving is a transport whose caller leaves after some commands.
type leaving struct {
	transport.TPMCloser
	left  int
	leave func()
}

func (l *leaving) Send(cmd []byte) ([]byte, error) {
	rsp, err := l.TPMCloser.Send(cmd)
	if l.left--; l.left == 0 {
		l.leave()
	}
	return rsp, err
}

// A caller who leaves at whatever command leaves no session behind.
func TestCancelledActivationLeavesTheTPMClean(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := provision(t, tpmtest.Open(t, p))
	blob, secret := credential(t, publicArea(t, d, tpm.EK), publicArea(t, d, tpm.IAK), inside)
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
	for after := 1; after < 14; after++ {
		ctx, cancel := context.WithCancel(t.Context())
		l.left, l.leave = after, cancel
		err := last(d.ActivateCredential(ctx, tpm.IAK, blob, secret))
		cancel()
		if _, err := d.Counters(t.Context()); err != nil { // waits until the TPM is left alone
			t.Fatal(err)
		}
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("cancelled after command %d (%v): %d objects and sessions are left in the TPM", after, err, n)
		}
	}
	if value, err := d.ActivateCredential(t.Context(), tpm.IAK, blob, secret); err != nil || !bytes.Equal(value, inside) {
		t.Errorf("afterwards: %x, %v", value, err)
	}
}
