package main

import (
	"errors"
	"log/slog"
	"testing"

	"waxseal/agent"
	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure/devid"
	"waxseal/measure/wire"
)

// A device that left the factory with keys and without certificates is served
// all the same, and proves its keys. Its EK is shown by its certificate where
// the TPM's maker left one.
func TestDeviceWithoutCertificatesIsServed(t *testing.T) {
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	for name, making := range map[string]swtpm.Making{"no EK certificate": {}, "EK certificate": {CA: t.TempDir(), Name: "WX-0001"}} {
		t.Run(name, func(t *testing.T) {
			making.State = t.TempDir()
			if err := swtpm.Manufacture(t.Context(), making); err != nil {
				t.Fatal(err)
			}
			dev := tpmtest.Open(t, tpmtest.Run(t, making.State))
			for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
				if err := dev.CreateKey(t.Context(), k); err != nil {
					t.Fatal(err)
				}
			}
			c := agent.Config{Card: card(result{Serial: "WX-0001"}), State: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
			if err := attachKeys(t.Context(), &c, dev, c.Log); err != nil || len(c.IAKCert)+len(c.IDevIDCert) != 0 || c.IDevID == nil {
				t.Fatalf("%v, certificates %v %v", err, c.IAKCert, c.IDevIDCert)
			}
			if _, err := agent.New(c); err != nil {
				t.Fatal(err)
			}
			proof, err := c.Enroller.Keys(t.Context())
			if err != nil || (proof.EK[0] == 0x30) != (making.CA != "") {
				t.Errorf("EK of %x…, %v", proof.EK[:4], err)
			}
			testProofs(t, c, dev)
		})
	}
}

func testProofs(t *testing.T, c agent.Config, dev *tpm.Device) {
	t.Helper()
	ek, err := dev.Area(t.Context(), tpm.EK)
	if err != nil {
		t.Fatal(err)
	}
	key := tpmtest.NewHMACKey()
	w := key.WrapFor(t, ek)
	challenge := wire.HMACChallenge{Public: w.Public, Duplicate: w.Duplicate, Seed: w.Seed}
	ans, err := c.Enroller.CertifyByHMAC(t.Context(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	iak, err := devid.Parse(devid.IAK, ans.IAK[2:])
	if err != nil {
		t.Fatal(err)
	}
	if err := iak.CertifiedByHMAC(key.Secret, ans.Attest[2:], ans.Signature); err != nil {
		t.Error(err)
	}
	challenge.Seed[100] ^= 1
	if _, err := c.Enroller.CertifyByHMAC(t.Context(), challenge); !errors.Is(err, wire.ErrInvalid) {
		t.Errorf("a seed for another TPM: %v, want: %v", err, wire.ErrInvalid)
	}
}

func TestProofsOfMissingKeysAreNotReady(t *testing.T) {
	dev := tpmtest.Swtpm(t) // has an EK and nothing else
	if _, err := (enroller{dev}).Keys(t.Context()); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("Keys: %v, want: %v", err, wire.ErrNotReady)
	}
	ek, err := dev.Area(t.Context(), tpm.EK)
	if err != nil {
		t.Fatal(err)
	}
	w := tpmtest.NewHMACKey().WrapFor(t, ek)
	if _, err := (enroller{dev}).CertifyByHMAC(t.Context(), wire.HMACChallenge{Public: w.Public, Duplicate: w.Duplicate, Seed: w.Seed}); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("CertifyByHMAC: %v, want: %v", err, wire.ErrNotReady)
	}
}
