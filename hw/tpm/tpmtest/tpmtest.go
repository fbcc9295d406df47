// Package tpmtest gives tests a TPM: a fresh swtpm of their own, one that has
// been through the factory, or a fake in memory. It never touches a real TPM.
package tpmtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
)

// Swtpm returns a device over a fresh swtpm with the banks sha256 and sha384
// and an EK. It ends with the test, and skips it where swtpm is missing.
func Swtpm(t testing.TB) *tpm.Device {
	t.Helper()
	return Open(t, Run(t, t.TempDir()))
}

// Provisioned returns Swtpm with a persistent IAK and IDevID. Certificates
// are the business of images/factory.
func Provisioned(t testing.TB) *tpm.Device {
	t.Helper()
	d := Swtpm(t)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// Run starts a swtpm over a state directory until the end of the test, and
// makes a TPM there if there is none. Running it again over the same
// directory, after Stop, is a reboot.
func Run(t testing.TB, state string) *swtpm.Process {
	t.Helper()
	if err := swtpm.Check(); errors.Is(err, swtpm.ErrMissing) {
		t.Skip(swtpm.ErrMissing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !swtpm.Made(state) {
		if err := swtpm.Manufacture(ctx, swtpm.Making{State: state}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := swtpm.Start(ctx, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Open opens a running swtpm until the end of the test.
func Open(t testing.TB, p *swtpm.Process) *tpm.Device {
	t.Helper()
	d, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // a test that stopped its TPM closes a dead device
	return d
}
